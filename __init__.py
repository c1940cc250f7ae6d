"""What ComfyUI looks for in a pack's folder: the frontend's folder, and the entry to the nodes."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
