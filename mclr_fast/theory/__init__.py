"""The paper's theorems, computed: `python -m mclr_fast.theory` writes their numbers and pictures.

Every result is checked the same way. The expected value of an objective of `mclr_fast.objectives` is
written as a sum over a grid, it is optimised by a solver that knows nothing of the claimed solution,
and what comes out is compared with that solution in closed form. docs/theory.md tells what was found.
"""
