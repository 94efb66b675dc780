"""What a training run is made of: the loop and the parts that it drives."""
