"""What each training image is conditioned on: a column of the manifest, a measured caption, or a file beside it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medtrust.errors import ConfigError, DataError
from medtrust_generators.captions import MAX_WORDS, describe, words_of
from medtrust_generators.options import Options

if TYPE_CHECKING:
    from medtrust.types import ImageRecord

__all__ = ["pair_up", "read_beside"]

_MOST_CLASSES = 256
_MOST_BYTES = 1024**3


def pair_up(recipe: Options, images: Sequence[ImageRecord]) -> tuple[dict[str, Any], list[Any]]:
    """Find the condition of each training image, as the recipe's options say.

    Args:
        recipe: May hold `label` (a manifest column), `captions` ("measured" or a column), `masks` (a folder), `cuts`
            (rising thresholds that make masks of the images themselves) or `source` (a folder).
        images: Training images.

    Returns:
        What the card says of the condition, and its value for each image; both empty where there is none.

    Raises:
        ConfigError: More than one condition, or none where this kind needs one.
        DataError: An image without its condition.
    """
    values = {name: str(recipe.values.get(name, "")) for name in ("label", "captions", "masks", "cuts", "source")}
    asked = {name: value for name, value in values.items() if value}
    known = [name for name in values if name in recipe.values]
    if len(asked) > 1:
        raise ConfigError(f"options {' and '.join(asked)} of generator {recipe.kind} exclude each other; give one")
    if not asked:
        if "label" not in known and known:
            raise ConfigError(f"generator {recipe.kind} needs the option {' or '.join(known)}")
        return {}, []
    ((name, value),) = asked.items()
    if name == "label":
        return _labels(value, images)
    if name == "captions":
        return _captions(value, images)
    if name == "cuts":
        return _cuts(value, recipe.kind, images)
    arrays = [read_beside(Path(value), record.name, record.name, name) for record in images]
    return _masks(arrays, images) if name == "masks" else _sources(arrays)


def _column(column: str, images: Sequence[ImageRecord]) -> list[str]:
    found = []
    for record in images:
        if column not in record.header.attributes:
            raise DataError(f"{record.name} has no {column!r}; list the images in a manifest.csv with that column")
        found.append(record.header.attributes[column])
    return found


def _labels(column: str, images: Sequence[ImageRecord]) -> tuple[dict[str, Any], list[Any]]:
    found = _column(column, images)
    counts = Counter(found)
    if len(counts) > _MOST_CLASSES:
        raise DataError(f"column {column!r} has {len(counts)} values; a label has at most {_MOST_CLASSES}")
    classes = sorted(counts)
    shares = [counts[name] / len(found) for name in classes]
    return {"kind": "label", "column": column, "classes": classes, "shares": shares}, list(found)


def _captions(source: str, images: Sequence[ImageRecord]) -> tuple[dict[str, Any], list[Any]]:
    if source == "measured":
        found = describe([record.pixels.astype(np.float32) for record in images])
    else:
        found = _column(source, images)
    for record, sentence in zip(images, found, strict=True):
        if not 0 < len(words_of(sentence)) <= MAX_WORDS:
            raise DataError(f"the caption of {record.name} has not 1 to {MAX_WORDS} words; shorten it")
    vocabulary = sorted({word for sentence in found for word in words_of(sentence)})
    return {"kind": "text", "source": source, "vocabulary": vocabulary}, list(found)


def _cuts(text: str, kind: str, images: Sequence[ImageRecord]) -> tuple[dict[str, Any], list[Any]]:
    try:
        cuts = [float(cut) for cut in text.split(",")]
    except ValueError:
        cuts = []
    if not cuts or any(b <= a for a, b in itertools.pairwise(cuts)) or not np.isfinite(cuts).all():
        raise ConfigError(f"option cuts={text} of generator {kind} must be rising numbers such as -500,-150,150")
    names = [f"below {cuts[0]:g}", *(f"{cut:g} and above" for cut in cuts)]
    found = [np.digitize(record.pixels.astype(np.float64).mean(0, keepdims=True), cuts) for record in images]
    return {"kind": "mask", "classes": names, "cuts": cuts}, list(found)


def _masks(arrays: list[npt.NDArray[Any]], images: Sequence[ImageRecord]) -> tuple[dict[str, Any], list[Any]]:
    for record, array in zip(images, arrays, strict=True):
        if array.shape != (1, *record.pixels.shape[1:]) or array.dtype.kind not in "biu" or int(array.min()) < 0:
            raise DataError(
                f"the mask of {record.name} is {array.dtype} {list(array.shape)}; give whole numbers from 0 on, "
                f"{list(record.pixels.shape[1:])}"
            )
    highest = max(int(array.max()) for array in arrays)
    if highest >= _MOST_CLASSES:
        raise DataError(f"a mask holds the class {highest}; renumber the classes below {_MOST_CLASSES}")
    return {"kind": "mask", "classes": [str(i) for i in range(highest + 1)]}, list(arrays)


def _sources(arrays: list[npt.NDArray[Any]]) -> tuple[dict[str, Any], list[Any]]:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise DataError(f"source images have the shapes {sorted(map(list, shapes))}; bring them to one")
    stacked = np.stack(arrays).astype(np.float64)
    facts = {"kind": "image", "channels": stacked.shape[1], "mean": float(stacked.mean())}
    return {**facts, "spread": float(stacked.std()) or 1.0}, list(arrays)


def read_beside(folder: Path, name: str, image: str, option: str) -> npt.NDArray[Any]:
    """Read FOLDER/NAME.npy, .npz (its first array) or .png; never a pickle.

    Args:
        folder: Where the files are.
        name: NAME, with any suffix.
        image: Which image it is for, in messages.
        option: Which option named the folder, in messages.

    Returns:
        [C, H, W].

    Raises:
        DataError: There is none, or it cannot be read.
    """
    stem = PurePosixPath(name.partition("#")[0]).with_suffix("")
    for suffix in (".npy", ".npz", ".png"):
        path = folder / f"{stem}{suffix}"
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path} leaves {folder}")
        if not path.is_file():
            continue
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES} bytes")
        try:
            return _planes(path)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}); give a .npy, .npz or .png of numbers") from error
    raise DataError(f"{image} has no {stem}.npy, .npz or .png in {folder} (option {option})")


def _planes(path: Path) -> npt.NDArray[Any]:
    if path.suffix == ".png":
        with Image.open(path) as image:
            array = np.asarray(image)
        array = array.transpose(2, 0, 1) if array.ndim == 3 else array
    else:
        loaded = np.load(path, allow_pickle=False)
        array = loaded[loaded.files[0]] if path.suffix == ".npz" else loaded
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"{array.dtype} {list(array.shape)}")
    return array[None] if array.ndim == 2 else array
