"""Pictures and masks to begin from."""

import numpy as np
from PIL import Image


def gradient_picture(width: int, height: int) -> Image.Image:
    """Red rises to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x + 128], -1).astype(np.uint8))


def square(width: int, height: int, edge: int) -> Image.Image:
    """White in the middle of black."""
    mask = Image.new("L", (width, height))
    mask.paste(255, ((width - edge) // 2, (height - edge) // 2, (width + edge) // 2, (height + edge) // 2))
    return mask
