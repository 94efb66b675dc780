"""Of runtime."""

FAULTS = []
