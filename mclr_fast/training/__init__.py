"""One arm: the loop, the step, and what a step changes."""
