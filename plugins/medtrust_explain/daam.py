"""Which part of an image each word of the prompt made: cross-attention of a diffusers network, added up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medtrust.errors import ConfigError

__all__ = ["CrossAttention"]

_NEEDED = ("head_to_batch_dim", "batch_to_head_dim", "get_attention_scores", "prepare_attention_mask")


class CrossAttention:
    """Records the cross-attention of a network while it is used as a context manager; its answers stay the same.

    Args:
        unet: A diffusers network with cross-attention, such as `pipeline.unet`.
        guided: Each batch holds the images without prompt first and those with it last, as classifier-free guidance
            does; only the latter are kept.

    Raises:
        ConfigError: The network has no cross-attention, or this version of diffusers builds it otherwise.

    Reference:
        Tang et al. 2023, arXiv:2210.04885 (DAAM): maps are upscaled, then averaged over heads, layers and steps.
    """

    def __init__(self, unet: Any, *, guided: bool = False) -> None:
        self._unet, self._guided = unet, guided
        self._before: dict[str, Any] = {}
        self._sum: Tensor | None = None
        self._count = 0
        processors = getattr(unet, "attn_processors", None)
        if not processors:
            raise ConfigError("the network has no attention that can be recorded; give a diffusers UNet with prompts")
        self._names = [name for name in processors if name.endswith("attn2.processor")]
        if not self._names:
            raise ConfigError("the network has no cross-attention (attn2): it is not guided by a text")
        for name in self._names:
            module = unet.get_submodule(name.removesuffix(".processor"))
            lacking = [method for method in _NEEDED if not hasattr(module, method)]
            if lacking:
                raise ConfigError(
                    f"this diffusers has no {', '.join(lacking)} in its attention; use a version from 0.30 to 0.42"
                )

    def __enter__(self) -> CrossAttention:
        self._before = dict(self._unet.attn_processors)
        recording = {n: _Recorder(self) if n in self._names else p for n, p in self._before.items()}
        self._unet.set_attn_processor(recording)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unet.set_attn_processor(self._before)

    def maps(self, size: tuple[int, int]) -> Tensor:
        """What was recorded, [N, tokens, H, W] at the given size; over the tokens each pixel adds up to 1.

        Raises:
            ConfigError: Nothing was recorded.
        """
        if self._sum is None:
            raise ConfigError("no cross-attention was recorded: run the network inside the `with` block")
        found = self._sum / self._count
        return functional.interpolate(found, size=size, mode="bilinear", align_corners=False)

    def _add(self, probabilities: Tensor, heads: int) -> None:
        """Add [N·heads, pixels, tokens] of one layer at one step."""
        rows, pixels, tokens = probabilities.shape
        side = round(pixels**0.5)
        if side * side != pixels:
            raise ConfigError(f"cross-attention over {pixels} positions is no square; only square images are explained")
        mean = probabilities.detach().float().view(rows // heads, heads, pixels, tokens).mean(1)
        mean = mean[len(mean) // 2 :] if self._guided else mean
        maps = mean.transpose(1, 2).reshape(len(mean), tokens, side, side)
        if self._sum is None:
            self._sum = maps
        else:
            large = max(self._sum.shape[-1], side)
            self._sum, maps = (
                functional.interpolate(m, size=(large, large), mode="bilinear", align_corners=False)
                for m in (self._sum, maps)
            )
            self._sum = self._sum + maps
        self._count += 1


class _Recorder:
    """The attention of diffusers' AttnProcessor, with its probabilities kept."""

    def __init__(self, owner: CrossAttention) -> None:
        self._owner = owner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *_args: object,
        **_kwargs: object,
    ) -> Tensor:
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        mask = attn.prepare_attention_mask(attention_mask, text.shape[1], len(text))
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        query, key, value = (
            attn.head_to_batch_dim(project(x))
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, text), (attn.to_v, text))
        )
        probabilities = attn.get_attention_scores(query, key, mask)
        self._owner._add(probabilities, attn.heads)
        answer = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value))))
        if len(shape) == 4:
            answer = answer.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            answer = answer + residual
        return answer / attn.rescale_output_factor
