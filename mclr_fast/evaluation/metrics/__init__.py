"""Arithmetic on features, in float64: distances, scores, manifolds."""
