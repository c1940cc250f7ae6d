"""Stage 4b: how much of what tells pictures apart is the picture, and how much the reward's own noise."""

import torch
from torch import Tensor


def signal_share(repeats: Tensor) -> Tensor:
    """The share of the variance within groups that scoring again would bring again, a scalar in 0 .. 1.

    Args:
        repeats: scores of the same pictures, [n, P, G] with n at least 2. Groups with a bad number do not count.

    The mean of n scores has the noise's variance over n; what is left of its variance is the pictures'. All groups are
    taken together, as one says too little.
    """
    n, finite = len(repeats), repeats.isfinite().all(0).all(-1)
    known = repeats[:, finite].double()
    if not known.numel():
        return repeats.new_zeros(())
    noise = known.var(0).mean() / n
    total = known.mean(0).var(-1).mean()
    return torch.where(total > 0, 1 - noise / total, 0).clamp(0, 1).float()


def shifted(images: Tensor, times: int) -> Tensor:
    """Pictures [N, 3, H, W] moved to one of four sides by a pixel, the edge repeated: as good, and not the same."""
    if times == 0:
        return images
    dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[(times - 1) % 4]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    height, width = images.shape[-2:]
    return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
