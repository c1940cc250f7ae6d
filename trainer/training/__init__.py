"""A run: what a loaded model can do, one iteration after the other, saved and stopped in good order."""
