"""Of data."""

FAULTS = []
