"""mclr_fast: fine-tune class-conditional generators so that unguided samples look guided."""

__version__ = "0.1.0"
