"""Do synthetic images lie where their masks say, as far as a segmenter of real ones can tell?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medtrust import Insufficient, MetricInput, Result
from medtrust.errors import ConfigError
from medtrust.seeding import derive_seed
from medtrust.types import SetData
from medtrust_fidelity.conditional import LEAST, Discriminant, Kept, against_ceiling
from medtrust_fidelity.options import option
from medtrust_generators.pairing import read_beside

__all__ = ["MaskConsistency", "pixel_features"]

_METRIC = "mask_consistency"
_SCALES = (1.0, 2.0, 4.0)
_PIXELS = 40_000  # of train that the segmenter is fitted on


class MaskConsistency:
    """Dice of a segmenter of real images against the masks that synthetic ones were made from."""

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Fit on train; the Dice on holdout is the ceiling, what a mask of another patient costs the sensitivity.

        The option `masks` names a folder per set, with a file of each image's name (.npy, .npz, .png; 0 is background).
        An image whose manifest names a `condition` is held against that mask.
        """
        assert data.holdout is not None  # the spec asks for it
        folders = option(data, _METRIC, "masks", {})
        given = (data.train, data.holdout, data.synthetic)
        if not isinstance(folders, Mapping) or any(one.name not in folders for one in given):
            raise Insufficient(
                "nobody has said where the masks are: write [plugins.fidelity.mask_consistency.masks] with a folder "
                "for each of train, holdout and synthetic"
            )
        classes = 1 + max(int(mask.max()) for one in given for _, mask in _pairs(one, Path(folders[one.name])))
        if classes < 2:
            raise ConfigError("every mask is 0 everywhere; 0 is background, so nothing was asked for")
        segmenter = _segmenter(data, Path(folders["train"]), classes)
        synthetic, holdout = (_dice(data, one, Path(folders[one.name]), segmenter, classes) for one in given[:0:-1])
        facts = {"classes": classes, "segmenter": "linear discriminant of pixel features"}
        results = {}
        for name, title, what in (
            ("mask_dice", "Dice of masks found again", "a Dice"),
            ("mask_swap", "Dice lost when masks are swapped", "a loss of Dice when masks are swapped"),
        ):
            results[f"fidelity.{name}"] = against_ceiling(data, synthetic[name], holdout[name], what, title, facts)
        ceiling = results["fidelity.mask_swap"].null
        assert ceiling is not None
        assert ceiling.interval is not None
        if ceiling.interval.lo <= 0:
            raise Insufficient(
                f"on holdout the segmenter's Dice is not surely higher for an image's own mask than for another's "
                f"(by {ceiling.value:.2f}): it cannot judge the synthetic ones"
            )
        return results


def pixel_features(pixels: np.ndarray) -> np.ndarray:
    """Describe each pixel by its value, smoothed values, slopes and place.

    Args:
        pixels: [C, H, W] of any dtype.

    Returns:
        [H * W, C * 7 + 5] float64.
    """
    planes = []
    for channel in pixels.astype(np.float64):
        planes.append(channel)
        for scale in _SCALES:
            planes += [
                ndimage.gaussian_filter(channel, scale, mode="nearest"),
                ndimage.gaussian_gradient_magnitude(channel, scale, mode="nearest"),
            ]
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in pixels.shape[1:]), indexing="ij")
    return np.stack([*planes, y, x, y * y, x * x, y * x], -1).reshape(y.size, -1)


def _pairs(one: SetData, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images [C, H, W] with their masks [H, W]."""
    for record in one.images:
        asked = record.header.attributes.get("condition", "")
        mask = read_beside(folder, asked or record.name, record.name, f"masks.{one.name}")
        if record.pixels.ndim != 3 or mask.shape != (1, *record.pixels.shape[1:]) or mask.dtype.kind not in "biu":
            raise Insufficient(
                f"the mask of {record.name} in {folder} is {mask.dtype} {list(mask.shape)}; give whole numbers "
                f"{list(record.pixels.shape[-2:])}, one per pixel of a two-dimensional image"
            )
        if int(mask.min()) < 0:
            raise Insufficient(f"the mask of {record.name} in {folder} holds negative numbers; classes count from 0")
        yield record.pixels, mask[0].astype(np.int64)


def _segmenter(data: MetricInput, folder: Path, classes: int) -> Discriminant:
    rng = np.random.default_rng(derive_seed(data.seed, "pixels"))
    share = max(50, _PIXELS // max(len(data.train), 1))
    rows, codes = [], []
    for pixels, mask in _pairs(data.train, folder):
        chosen = rng.permutation(mask.size)[:share]
        rows.append(pixel_features(pixels)[chosen])
        codes.append(mask.ravel()[chosen])
    found = np.concatenate(codes)
    absent = sorted(set(range(classes)) - set(found.tolist()))
    if absent:
        raise Insufficient(f"train shows no pixel of class {absent[0]}, so no segmenter of it can be fitted")
    return Discriminant(torch.from_numpy(np.concatenate(rows)), torch.from_numpy(found), classes, equal=False)


def _dice(data: MetricInput, one: SetData, folder: Path, segmenter: Discriminant, classes: int) -> dict[str, Kept]:
    """Dice of each image with its own mask, and what is lost with the mask of another patient."""
    found, masks = [], []
    for pixels, mask in _pairs(one, folder):
        rows = torch.from_numpy(pixel_features(pixels))
        found.append(segmenter.classify(rows).numpy().reshape(mask.shape))
        masks.append(mask)
    if len(set(one.patients)) < LEAST:
        raise Insufficient(f"needs {LEAST} patients in each set; {one.name} has {len(set(one.patients))}")
    rng = np.random.default_rng(derive_seed(data.seed, "swap", one.name))
    own, lost = [], []
    for i, segmented in enumerate(found):
        own.append(_overlap(segmented, masks[i], classes))
        others = [
            j for j in range(len(masks)) if one.patients[j] != one.patients[i] and masks[j].shape == masks[i].shape
        ]
        other = masks[int(rng.choice(others))] if others else None
        lost.append(np.nan if other is None else own[-1] - _overlap(segmented, other, classes))
    return {"mask_dice": (np.array(own), one.patients), "mask_swap": (np.array(lost), one.patients)}


def _overlap(found: np.ndarray, mask: np.ndarray, classes: int) -> float:
    """Mean Dice of the classes but background that are in either; NaN where none is."""
    values = []
    for k in range(1, classes):
        a, b = found == k, mask == k
        if a.any() or b.any():
            values.append(2 * int((a & b).sum()) / int(a.sum() + b.sum()))
    return float(np.mean(values)) if values else float("nan")
