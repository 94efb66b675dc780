"""Of evaluation."""

FAULTS = []
