"""Tables of many runs: their cells, shared by any number of processes, and what they come to."""
