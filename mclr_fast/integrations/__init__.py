"""The objectives inside training code that is not this package's."""
