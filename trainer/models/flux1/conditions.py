"""What FLUX.1 is told beside x: the names in its Conditioning."""

from torch import Tensor

from ..conditioning import Conditioning

EMBEDDINGS = "embeddings"  # T5's, [n, tokens, joint_attention_dim]
POOLED = "pooled"  # CLIP's, [n, pooled_projection_dim]
FILL = "fill"  # what FLUX.1-Fill sees in each token of x, [n, tokens of the picture, 320]
REFERENCE = "reference"  # what FLUX.1-Kontext sees in tokens beside those of x, [n, tokens, 64]


def conditioning(embeddings: Tensor, pooled: Tensor) -> Conditioning:
    """Of n prompts."""
    return Conditioning({EMBEDDINGS: embeddings, POOLED: pooled})
