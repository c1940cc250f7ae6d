"""The LoRA of any model: attached, exported, gone on from."""
