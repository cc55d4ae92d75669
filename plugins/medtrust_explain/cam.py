"""Class activation maps for any scalar of any torch network: Grad-CAM, HiResCAM, LayerCAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtrust.classifier import layers
from medtrust.errors import ConfigError
from medtrust.types import Score

__all__ = ["activation_maps", "gradcam", "hirescam", "layercam"]

CHUNK = 64  # images of one pass
Combine = Callable[[Tensor, Tensor], Tensor]


def gradcam(score: Score, images: Tensor) -> Tensor:
    """Weigh each activation map by its mean gradient.

    Args:
        score: What to explain; must have a network. Its layer is chosen when it names none.
        images: [N, C, H, W].

    Returns:
        [N, H, W], at least 0, at the images' size.

    Raises:
        ConfigError: The score has no network, or the layer does not exist or has no spatial map.

    Reference:
        Selvaraju et al. 2017, arXiv:1610.02391. Agrees with captum's LayerGradCam and with pytorch-grad-cam before its
        rescaling.
    """
    return activation_maps(score, images, lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum(1))


def hirescam(score: Score, images: Tensor) -> Tensor:
    """Weigh each activation by its own gradient; points only at places that raise the score, for a linear head.

    Arguments, returns and errors are those of `gradcam`.

    Reference:
        Draelos and Carin 2020, arXiv:2011.08891.
    """
    return activation_maps(score, images, lambda a, g: (g * a).sum(1))


def layercam(score: Score, images: Tensor) -> Tensor:
    """Weigh each activation by its own gradient where that is positive; of use at early, fine layers.

    Arguments, returns and errors are those of `gradcam`.

    Reference:
        Jiang et al. 2021, doi:10.1109/TIP.2021.3089943.
    """
    return activation_maps(score, images, lambda a, g: (g.clamp_min(0) * a).sum(1))


def activation_maps(score: Score, images: Tensor, combine: Combine, *, resize: bool = True) -> Tensor:
    """Combine activations and gradients of one layer into maps, in chunks of 64 images.

    Args:
        score: What to explain.
        images: [N, C, H, W].
        combine: Maps activations and gradients [N, K, h, w] to [N, h, w].
        resize: Bring the maps to the images' size, bilinear; otherwise they keep that of the layer.
    """
    if not isinstance(score.network, nn.Module):
        raise ConfigError("a class activation map needs a torch network behind the score; use expected_gradients")
    name = score.layer or _last(score, images)
    layer = dict(score.network.named_modules()).get(name)
    if layer is None:
        raise ConfigError(f"the network has no layer {name!r}; it has {', '.join(layers(score, images)) or 'no maps'}")
    parts = [_chunk(score, part, layer, name, combine) for part in images.split(CHUNK)]
    if not parts:
        return images.new_zeros(0, *images.shape[-2:])
    maps = torch.cat(parts).clamp_min(0)
    if not resize:
        return maps
    return functional.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _chunk(score: Score, images: Tensor, layer: nn.Module, name: str, combine: Combine) -> Tensor:
    held: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            return None
        # a leaf of its own: the gradient stops here, and a network whose parameters are frozen has one all the same
        held.append(output if output.requires_grad else output.detach().requires_grad_())
        return held[-1].clone()  # an in-place module after this one must not change what was kept

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            values = score(images.detach())
        if len(held) != 1 or held[0].ndim != 4:
            raise ConfigError(f"layer {name!r} ran {len(held)} times or gives no [N, K, h, w] map; choose another")
        (gradient,) = torch.autograd.grad(values.sum(), held[0])
    finally:
        handle.remove()
    return combine(held[0].detach(), gradient)


def _last(score: Score, images: Tensor) -> str:
    """The last layer whose map has the images' proportions; a transposed map [h, w, K] has not."""
    found = layers(score, images)
    height, width = images.shape[-2:]
    fitting = [name for name, (_, h, w) in found.items() if 0.7 < (h / height) / (w / width) < 1.43]
    if not fitting:
        raise ConfigError("the network has no layer with a spatial map; use expected_gradients")
    return fitting[-1]
