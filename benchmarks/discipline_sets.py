"""Patches of 32 x 32 from one public source for each medical discipline, so that all are looked at through one window.

Dermoscopy comes as patches of that size. From the others, tiles that do not overlap are cut, those with no tissue left
out, and up to `TILES` of them drawn. A tile is then the unit: CT and MR come from a handful of people, and pathology
and ophthalmology from one picture each, so what is found holds for the look of a discipline, not for its patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.host import build_host
from medtrust.images import ImageSet, open_set, write_set
from medtrust.progress import make_progress
from medtrust.recipes import cache_folder, get_recipe
from medtrust.sources import readers_of
from medtrust.types import Intensity

__all__ = ["DISCIPLINES", "discipline"]

SIDE = 32
TILES = 1500
EMPTY = 0.25  # a tile counts as tissue where its spread is at least this share of the median tile's
Array = np.ndarray[Any, Any]


def _opened(recipe: str, part: str = "", **options: Any) -> ImageSet:
    place = get_recipe(recipe, cache=cache_folder(), progress=make_progress())
    return open_set(place / part, "train", readers_of(build_host()), patients=".+", **options)


def _slices(recipe: str, part: str, step: int) -> Iterator[Array]:
    images = _opened(recipe, part)
    for row in range(0, len(images), step):
        yield np.asarray(images[row].pixels)


def _picture(name: str) -> Iterator[Array]:
    from PIL import Image

    place = get_recipe("retina-ihc", cache=cache_folder(), progress=make_progress())
    with Image.open(place / name) as image:
        yield np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _coarser(pixels: Array, factor: int) -> Array:
    """Average blocks, so that a tile shows anatomy rather than the grain of a large image."""
    c, h, w = (len(pixels), *(n // factor * factor for n in pixels.shape[1:]))
    blocks = pixels[:, :h, :w].reshape(c, h // factor, factor, w // factor, factor).astype(np.float64)
    return np.asarray(np.rint(blocks.mean((2, 4))).astype(pixels.dtype))


def _ct() -> Iterator[Array]:
    for pixels in (*_slices("ct-rider", "", 6), *_slices("ct-visible-human", "Head", 20)):
        yield pixels.clip(-1024, 3071).astype(np.int16)


def _mr() -> Iterator[Array]:
    for part in ("BrainExample", "LumbarDicomExample"):
        yield from _slices("ct-visible-human", part, 1)


def _xray() -> Iterator[Array]:
    for pixels in _slices("cxr-pneumonia", "datasets", 1):
        yield _coarser(pixels[:1], 4)


LEVELS, HU = Intensity(0, 255, "level"), Intensity(-1024, 3071, "HU")
DISCIPLINES: dict[str, tuple[str, Callable[[], Iterator[Array]] | None, Intensity | None]] = {
    "dermatology": ("dermoscopy", None, LEVELS),
    "pathology": ("immunohistochemistry", lambda: _picture("ihc.png"), LEVELS),
    "ophthalmology": ("fundus photograph", lambda: (_coarser(p, 2) for p in _picture("retina.jpg")), LEVELS),
    "radiology, CT": ("chest and head CT, HU", _ct, HU),
    "radiology, MR": ("brain and spine MR", _mr, None),
    "radiology, X-ray": ("chest X-ray of children", _xray, LEVELS),
}


def discipline(name: str, work: Path, seed: int = 0) -> ImageSet:
    """Cut the patches of a discipline, or open those that are there.

    Args:
        name: One of DISCIPLINES.
        work: Folder for the patches.
        seed: Draws them.
    """
    _, source, intensity = DISCIPLINES[name]
    if source is None:
        return open_set(
            get_recipe("derm-patches", cache=cache_folder(), progress=make_progress()),
            "train",
            readers_of(build_host()),
        )
    folder = work / name.replace(", ", "-")
    if not folder.is_dir():
        tiles = _tissue([tile for pixels in source() for tile in _tiles(pixels)])
        drawn = np.sort(np.random.default_rng(seed).permutation(len(tiles))[:TILES])
        if intensity is None:  # MR has no unit of its own
            intensity = Intensity(0, float(max(tile.max() for tile in tiles)), "arbitrary")
        partial = folder.with_name(f"{folder.name}.partial")
        write_set(partial, ((f"tile-{i:05d}", tiles[i]) for i in drawn), intensity)
        partial.rename(folder)
    return open_set(folder, "train", readers_of(build_host()), patients=".+")


def _tiles(pixels: Array) -> Iterator[Array]:
    for top in range(0, pixels.shape[1] - SIDE + 1, SIDE):
        for left in range(0, pixels.shape[2] - SIDE + 1, SIDE):
            yield np.ascontiguousarray(pixels[:, top : top + SIDE, left : left + SIDE])


def _tissue(tiles: list[Array]) -> list[Array]:
    spread = np.array([tile.std(dtype=np.float64) for tile in tiles])
    return [tile for tile, s in zip(tiles, spread, strict=True) if s >= EMPTY * np.median(spread[spread > 0])]
