"""Neighbor GRPO (arXiv 2511.16955): reward fine-tuning of FLUX LoRAs. Plain PyTorch and diffusers, no ComfyUI."""

__version__ = "0.1.0"
