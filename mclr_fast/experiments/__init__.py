"""What a run is made of: arms, evaluations between them, proofs and tables."""
