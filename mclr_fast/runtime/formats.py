"""Formats of the files that a run leaves, by number, and how older ones are read.

A file without a number is of format 1.
"""

from __future__ import annotations

CONFIG_FORMAT = SUMMARY_FORMAT = EVALUATION_FORMAT = CFG_FORMAT = STATE_FORMAT = 2
