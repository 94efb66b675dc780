"""What every room may use; it knows no model.

Here: errors, options out of range, files and their formats, locks, and what a run says. `process`: this
process among others, from its place to its end. `device`: what computes. `remote`: what comes from elsewhere.
"""
