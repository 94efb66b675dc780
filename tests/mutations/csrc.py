"""Of csrc."""

FAULTS = []
