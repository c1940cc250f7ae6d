"""Files of weights, of any model: what is in them, read one tensor at a time."""
