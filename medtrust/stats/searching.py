"""Versions of an image in which a copy of it still counts as one: what the search for copies may be widened to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch

__all__ = ["DEFAULT_SEARCH", "SEARCHES", "VIEW_CROP", "align", "image_versions"]

VIEW_CROP = 0.9
DEFAULT_SEARCH = ("mirror", "crops")
SEARCHES = (*DEFAULT_SEARCH, "flips", "rotations", "window")
_ANGLES = (-9.0, -6.0, -3.0, 3.0, 6.0, 9.0)  # a copy turned by up to 10° is within 2° of one of these
_GAMMAS = (0.6, 1.6)
_TAIL = 0.1  # share of the pixels that a narrower window saturates at one end


def image_versions(images: torch.Tensor, kinds: Iterable[str]) -> Iterator[torch.Tensor]:
    """Make the versions of images that a search for copies looks at beside the images themselves.

    Args:
        images: [N, C, H, W], any real dtype.
        kinds: Any of `SEARCHES`: "mirror" swaps left and right, "crops" scales 90 % of each side back to full size
            (four corners and the centre), "flips" turns upside down with and without a mirror, "rotations" turns by
            quarter turns (square images) and by ±3°, ±6°, ±9°, "window" saturates the darkest or brightest tenth of the
            pixels and bends the grey scale by gammas of 0.6 and 1.6 (linear changes of brightness need no search in an
            embedding that ignores them).

    Yields:
        [N, C, H, W] float64, one version at a time.

    Raises:
        ValueError: A kind has another name.
    """
    kinds = tuple(kinds)
    for kind in kinds:
        if kind not in SEARCHES:
            raise ValueError(f"search {kind!r} is unknown; use any of {', '.join(SEARCHES)}")
    x = images.double()
    if "mirror" in kinds:
        yield x.flip(3)
    if "crops" in kinds:
        for down, right in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)):
            yield _zoom(x.shape[2], down) @ x @ _zoom(x.shape[3], right).T
    if "flips" in kinds:
        yield x.flip(2)
        yield x.flip(2, 3)
    if "rotations" in kinds:
        if x.shape[2] == x.shape[3]:
            for quarter in (1, 2, 3):
                yield torch.rot90(x, quarter, (2, 3))
        for angle in _ANGLES:
            yield _turn(x, angle)
    if "window" in kinds:
        yield from _windows(x)


def _zoom(side: int, start: float) -> torch.Tensor:
    """Linear interpolation [side, side] scaling a 90 % stretch, from the first (0) to the last (1), to full size."""
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * VIEW_CROP + start * (1 - VIEW_CROP) * side - 0.5
    return (1 - (centres.clamp(0, side - 1)[:, None] - torch.arange(side)).abs()).clamp_min(0)


def _turn(x: torch.Tensor, angle: float) -> torch.Tensor:
    """Rotate about the centre, bilinear; beyond the edge the nearest pixel of the image is repeated."""
    if not len(x):
        return x.clone()
    height, width = x.shape[2:]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    ratio = height / width
    theta = x.new_tensor([[c, -s * ratio, 0.0], [s / ratio, c, 0.0]]).expand(len(x), 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _windows(x: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = x.flatten(1)
    if not flat.numel():
        yield from (x.clone() for _ in range(2 + len(_GAMMAS)))
        return
    ordered = flat.sort(dim=1).values
    at = max(0, min(flat.shape[1] - 1, round(_TAIL * flat.shape[1])))
    low, high = (ordered[:, i].view(-1, 1, 1, 1) for i in (at, flat.shape[1] - 1 - at))
    yield x.maximum(low)
    yield x.minimum(high)
    least, most = (ordered[:, i].view(-1, 1, 1, 1) for i in (0, -1))
    unit = (x - least) / (most - least).clamp_min(1e-300)
    for gamma in _GAMMAS:
        yield unit.pow(gamma) * (most - least) + least


def align(image: torch.Tensor, onto: torch.Tensor, radius: int = 2) -> torch.Tensor:
    """Bring an image over another one, so that their difference shows what differs and not how the copy was turned.

    The version (itself, mirrored, flipped, turned, cropped) and the shift of at most `radius` pixels that correlate
    best are taken; then the brightness and contrast that fit best, by least squares.

    Args:
        image: [C, H, W].
        onto: [C, H, W], the image to lie over.
        radius: Largest shift along each axis in pixels.

    Returns:
        [C, H, W] float64 in the unit of `onto`; the image as it is where either is constant.
    """
    target, moved = onto.double(), image.double()[None]
    wanted = target - target.mean()
    reach = min(radius, *(side - 1 for side in target.shape[1:]))
    best, correlation = moved[0], -math.inf

    if any(float(each.max() - each.min()) <= 1e-9 * float(each.abs().max()) for each in (target, moved)):
        return moved[0]

    def likeness(candidate: torch.Tensor) -> float:
        centred = candidate - candidate.mean()
        norm = float(centred.norm() * wanted.norm())
        return float((centred * wanted).sum()) / norm if norm > 0 else -1.0

    for version in (moved, *image_versions(moved, ("mirror", "flips", "rotations", "crops"))):
        found = likeness(version[0])
        if found > correlation + 1e-12:
            best, correlation = version[0], found
    for still in (moved[0], best):
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                shifted = still.roll((down, right), (1, 2))
                found = likeness(shifted)
                if found > correlation + 1e-12:
                    best, correlation = shifted, found
    if correlation <= 0:
        return moved[0]
    centred = best - best.mean()
    gain = (centred * wanted).sum() / centred.square().sum()
    aligned: torch.Tensor = centred * gain + target.mean()
    return aligned
