"""What a loaded model can do, and one iteration of the training with it."""
