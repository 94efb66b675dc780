"""mclr_fast: fine-tune class-conditional generators so that unguided samples look guided."""

__version__ = "0.2.0"

_LAZY = {  # name -> module: imported when it is used
    "CCALoss": "integrations.nvlabs_edm2",
    "CCDPOLoss": "integrations.nvlabs_edm2",
    "DDOLoss": "integrations.nvlabs_edm2",
    "MCLRLoss": "integrations.nvlabs_edm2",
    "generate": "experiments.one_model.sample_files",
    "load": "models",
    "score": "evaluation.scoring",
}


def __dir__() -> list[str]:
    """The names that are loaded later too, for those who look around."""
    return sorted({*globals(), *_LAZY})


def __getattr__(name: str):
    """What the package offers at its top; `import mclr_fast` itself loads nothing."""
    from .runtime.on_use import on_use

    return on_use(__name__, _LAZY)(name)
