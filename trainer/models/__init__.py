"""FLUX as a policy: loading, prompt encoding, the LoRA."""
