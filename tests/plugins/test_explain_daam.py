"""Cross-attention of a tiny diffusers network: recorded without changing the answer, one map per word."""

from __future__ import annotations

import pytest
import torch

from medtrust import ConfigError
from medtrust_explain.daam import CrossAttention

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    ).eval()  # fmt: skip


def test_the_answer_stays_and_each_pixel_is_shared_among_the_words(unet):
    """Same output within rounding; maps over words add up to 1; the processors come back."""
    x, text = torch.randn(2, 1, 8, 8), torch.randn(2, 5, 8)
    before = unet.attn_processors
    with torch.no_grad():
        plain = unet(x, 3, text).sample
        with CrossAttention(unet) as recorded:
            for step in (3, 2):
                seen = unet(x, step, text).sample
        again = unet(x, 2, text).sample
    assert torch.allclose(again, seen, atol=1e-5)
    assert not torch.equal(plain, seen)
    maps = recorded.maps((16, 16))
    assert maps.shape == (2, 5, 16, 16)
    assert torch.allclose(maps.sum(1), torch.ones(2, 16, 16), atol=1e-5)
    assert {type(p) for p in unet.attn_processors.values()} == {type(p) for p in before.values()}


def test_with_guidance_only_the_prompted_half_counts(unet):
    """The first half of the batch has no prompt."""
    x, text = torch.randn(2, 1, 8, 8), torch.randn(2, 5, 8)
    with torch.no_grad():
        with CrossAttention(unet, guided=True) as half:
            unet(x, 1, text)
        with CrossAttention(unet) as whole:
            unet(x, 1, text)
    assert torch.allclose(half.maps((8, 8)), whole.maps((8, 8))[1:], atol=1e-6)


def test_refusals(unet):
    """Nothing recorded; a network without prompts."""
    with pytest.raises(ConfigError, match="inside the `with`"):
        CrossAttention(unet).maps((8, 8))
    plain = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",), attention_head_dim=4,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="attention"):
        CrossAttention(plain)
    with pytest.raises(ConfigError, match="no attention"):
        CrossAttention(torch.nn.Linear(1, 1))
