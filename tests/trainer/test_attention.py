"""Attention is never cuDNN's where the policy computes, and the flag is back afterwards."""

import pytest
import torch
import torch.nn.functional as F
from small_step import GEOMETRY, policy_of

from trainer.models.flux1.checkpointing import checkpoint_blocks
from trainer.models.flux1.conditions import conditioning
from trainer.models.storage.attention import sound_attention

allowed = torch.backends.cuda.cudnn_sdp_enabled


@pytest.fixture(params=[True, False])
def before(request):
    """What the process allows beforehand: ComfyUI or the user may have said no already."""
    kept = allowed()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(kept)


def test_the_flag_is_as_before_whatever_happens_inside(before):
    with sound_attention():
        assert not allowed()
    assert allowed() is before
    with pytest.raises(ZeroDivisionError), sound_attention():
        raise ZeroDivisionError
    assert allowed() is before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_cudnn_is_out_in_forward_passes_and_where_blocks_are_computed_again(before, checkpointing, monkeypatch):
    policy, _ = policy_of(None)
    if checkpointing:
        checkpoint_blocks(policy.network)
    seen, original = [], F.scaled_dot_product_attention

    def attention(*args, **options):
        seen.append(allowed())
        return original(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    velocity = policy.velocity(conditioning(torch.zeros(1, 5, 32), torch.zeros(1, 32)), GEOMETRY)
    v = velocity(torch.zeros(1, GEOMETRY.tokens, 64), torch.tensor([0.5]), torch.tensor([0]))
    forward = len(seen)
    assert forward > 0
    assert allowed() is before
    v.sum().backward()
    assert len(seen) == forward * (1 + checkpointing)
    assert not any(seen)
    assert allowed() is before
