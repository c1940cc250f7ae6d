"""Measurements of the engine, as ratios or tables taken in one run."""
