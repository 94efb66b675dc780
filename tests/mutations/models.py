"""Of models."""

FAULTS = []
