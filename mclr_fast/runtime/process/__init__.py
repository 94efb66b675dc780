"""A process: its place among a run's ranks, its command line and streams, signals, and what it ends with."""
