"""From an objective and a family to the gradient of one micro-batch."""
