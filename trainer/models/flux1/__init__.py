"""FLUX.1: its latents, parts, files and names. What the published model's folder says is beside the code."""
