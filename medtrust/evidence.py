"""Turn the pictures that metrics point at into PNG files, as far as the evidence policy allows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from medtrust.errors import ConfigError
from medtrust.images import difference, heat_map, render
from medtrust.types import Evidence, ImageRecord, Intensity, Picture, Result, SetName
from medtrust.writing import write_atomically

if TYPE_CHECKING:
    import numpy as np

    from medtrust.pseudonyms import Pseudonyms

__all__ = ["EvidencePolicy", "check_policy", "illustrate"]

EvidencePolicy = Literal["none", "blur", "full"]
BLUR_CELLS = 8
THUMBNAIL = 160


def check_policy(policy: str) -> EvidencePolicy:
    """Check `--evidence`."""
    for known in get_args(EvidencePolicy):
        if policy == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"--evidence {policy} is unknown; use none, blur or full")


def illustrate(
    results: Sequence[Result],
    sets: Mapping[SetName, Sequence[ImageRecord]],
    intensity: Intensity,
    policy: EvidencePolicy,
    folder: Path | None,
    pseudonyms: Pseudonyms,
) -> tuple[list[Result], dict[str, str]]:
    """Fill in name, path and digest of every evidence picture.

    A suspected copy shows a real patient as much as the original does, so `none` draws nothing at all and `blur`
    blurs synthetic images too.

    Args:
        results: Results whose evidence names its sources.
        sets: The image sets that the sources point into.
        intensity: Declared range, for rendering.
        policy: none, blur or full.
        folder: Where `evidence/` goes; None draws nothing.
        pseudonyms: Names for real images.

    Returns:
        The results with evidence filled in, and the pseudonym of each real image with its name.
    """
    known: dict[str, str] = {}
    drawn = []
    for result in results:
        items = tuple(_item(item, sets, intensity, policy, folder, pseudonyms, known) for item in result.evidence)
        drawn.append(replace(result, evidence=items))
    return drawn, dict(sorted(known.items()))


def _item(
    item: Evidence,
    sets: Mapping[SetName, Sequence[ImageRecord]],
    intensity: Intensity,
    policy: EvidencePolicy,
    folder: Path | None,
    pseudonyms: Pseudonyms,
    known: dict[str, str],
) -> Evidence:
    pictures = []
    for picture in item.pictures:
        records = [(name, sets[name][index]) for name, index in picture.sources]
        names = []
        for name, record in records:
            if name == "synthetic":
                names.append(record.name)
            else:
                pseudonym = pseudonyms.of(f"{name}/{record.name}")
                known[pseudonym] = f"{name}/{record.name}"
                names.append(pseudonym)
        png = _draw(picture, [record for _, record in records], intensity, policy)
        real = picture.contains_real or any(name != "synthetic" for name, _ in records)
        picture = replace(picture, name=" − ".join(names), contains_real=real, png=None, heat=None)
        if png is not None and folder is not None:
            digest = hashlib.sha256(png).hexdigest()
            path = f"evidence/{digest[:24]}.png"
            write_atomically(folder / path, png)
            picture = replace(picture, path=path, sha256=digest)
        pictures.append(picture)
    return replace(item, pictures=tuple(pictures))


def _draw(
    picture: Picture, records: Sequence[ImageRecord], intensity: Intensity, policy: EvidencePolicy
) -> bytes | None:
    if policy == "none":
        return None
    if picture.heat is not None:
        return _warm(picture, records, intensity, policy)
    if picture.png is not None:
        # a drawing of real pixels cannot be blurred here, so it is shown only when everything may be
        return picture.png if policy == "full" or not picture.contains_real else None
    pixels = [_blur(record.pixels) if policy == "blur" else record.pixels for record in records]
    if len(pixels) == 1:
        return render(pixels[0], intensity, size=THUMBNAIL)
    if len(pixels) == 2 and pixels[0].shape == pixels[1].shape:
        return difference(pixels[0], _aligned(pixels[1], pixels[0]), intensity, size=THUMBNAIL)
    return None


def _aligned(pixels: np.ndarray[Any, Any], onto: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Undo what a copy may have undergone, so that the difference shows the rest."""
    import numpy as np
    import torch

    from medtrust.stats import align

    if pixels.ndim != 3:
        return pixels
    image, target = (torch.from_numpy(np.ascontiguousarray(each, dtype=np.float64)) for each in (pixels, onto))
    aligned: np.ndarray[Any, Any] = align(image, target).numpy()
    return aligned


def _warm(picture: Picture, records: Sequence[ImageRecord], intensity: Intensity, policy: EvidencePolicy) -> bytes:
    import numpy as np

    heat = np.asarray(picture.heat, dtype=np.float32)
    if policy == "blur":
        heat = _blur(heat[None])[0]  # a fine map may outline what it lies over
    below = None
    if records:
        pixels = _blur(records[0].pixels) if policy == "blur" else records[0].pixels
        below = render(pixels, intensity, size=THUMBNAIL)
    return heat_map(below, heat, picture.heat_top, THUMBNAIL)


def _blur(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keep an 8 by 8 average of each channel, too coarse to recognise anybody by."""
    import numpy as np
    import torch

    image = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None]
    coarse = torch.nn.functional.adaptive_avg_pool2d(image, BLUR_CELLS)
    smooth = torch.nn.functional.interpolate(coarse, size=image.shape[-2:], mode="bilinear", align_corners=False)
    blurred: np.ndarray[Any, Any] = smooth[0].numpy()
    return blurred
