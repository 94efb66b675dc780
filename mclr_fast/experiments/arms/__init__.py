"""One training of a run: its marks, what it keeps and begins anew at them, and how it is watched."""
