"""Of experiments."""

FAULTS = []
