"""Of pickles."""

FAULTS = []
