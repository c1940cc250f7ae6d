"""How rollouts become a loss: an objective a file."""
