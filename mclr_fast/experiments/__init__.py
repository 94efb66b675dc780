"""What a run is made of: its arms, who judges them, its report; proofs, and checks before the start.

`arms`: one training. `identity`: which run a folder is of. `tables`: many runs. `estimates`: what a run will
take. `one_model`: what the doors do with a saved model.
"""
