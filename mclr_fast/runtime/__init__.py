"""What every room may use: ranks, files, logs, signals, errors; it knows no model."""
