"""Heat maps over images: one colour scale for all, even in brightness and safe for colour-blind readers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medtrust.errors import DataError

__all__ = ["cividis", "heat_map", "strip"]

_KNOTS = (
    "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c788381798b8778"
    "928d789a9376a29975aaa073b3a670bbad6dc3b369ccba64d4c15fddc858e6d051efd748f8df3cfee838"
)
_TABLE = np.array([int(_KNOTS[i : i + 2], 16) for i in range(0, len(_KNOTS), 2)], np.float64).reshape(-1, 3)
_BAR, _GAP, _LABEL = 10, 4, 34  # pixels: width of the scale bar, space beside it, room for its numbers
_WEAKEST, _STRONGEST = 0.15, 0.75  # how much of the image the map covers, at the ends of the scale


def cividis(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Colour numbers: dark blue for 0, yellow for 1, even steps in lightness between.

    Args:
        values: Any shape; below 0 counts as 0, above 1 as 1.

    Returns:
        [..., 3] uint8.

    Reference:
        Nuñez, Anderton, Renslow 2018, doi:10.1371/journal.pone.0199239; 33 colours of its scale, linear between.
    """
    at = np.clip(np.asarray(values, np.float64), 0, 1)
    knots = np.linspace(0, 1, len(_TABLE))
    return np.stack([np.rint(np.interp(at, knots, channel)) for channel in _TABLE.T], axis=-1).astype(np.uint8)


def heat_map(picture: bytes | None, heat: npt.NDArray[Any], top: float, size: int) -> bytes:
    """Draw a heat map, over a picture if there is one, with a scale bar beside it.

    Args:
        picture: PNG of the image that the map belongs to; None draws the map alone.
        heat: [h, w], 0 where nothing is; need not have the picture's size.
        top: Value at the top of the scale.
        size: Longest side of the map in pixels.

    Returns:
        PNG bytes without metadata, the same for the same input.

    Raises:
        DataError: The map is no finite [h, w] array, or `top` is not above 0.
    """
    heat = np.asarray(heat, np.float64)
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all():
        raise DataError(f"a heat map must be finite numbers [h, w], this one is {list(heat.shape)}.")
    if not top > 0:
        raise DataError(f"the top of a scale must be above 0, it is {top}.")
    below = Image.open(io.BytesIO(picture)).convert("L") if picture is not None else None
    width, height = below.size if below is not None else _fit(heat.shape[1], heat.shape[0], size)
    unit = Image.fromarray((np.clip(heat / top, 0, 1)).astype(np.float32))
    spread = np.asarray(unit.resize((width, height), Image.Resampling.BILINEAR if below else Image.Resampling.NEAREST))
    colours = cividis(spread).astype(np.float64)
    if below is not None:
        # the image stays visible where the map says little
        grey = np.asarray(below, np.float64)[..., None].repeat(3, -1)
        cover = (_WEAKEST + (_STRONGEST - _WEAKEST) * np.clip(spread, 0, 1))[..., None]
        colours = grey * (1 - cover) + colours * cover
    canvas = Image.new("RGB", (width + _GAP + _BAR + _LABEL, height), "white")
    canvas.paste(Image.fromarray(np.rint(colours).astype(np.uint8)), (0, 0))
    bar = cividis(np.linspace(1, 0, height))[:, None].repeat(_BAR, 1)
    canvas.paste(Image.fromarray(bar), (width + _GAP, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(10)
    at = width + _GAP + _BAR + 3
    draw.text((at, 0), f"{top:.2g}", fill="black", font=font)
    draw.text((at, height - 12), "0", fill="black", font=font)
    return _bytes(canvas)


def strip(images: npt.NDArray[Any], size: int) -> bytes:
    """Draw images side by side, first to last.

    Args:
        images: [n, C, H, W] in [0, 1], with one or three channels.
        size: Height of the strip in pixels.
    """
    levels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    if levels.ndim != 4 or levels.shape[1] not in (1, 3) or not levels.size:
        raise DataError(f"a strip is made of [n, 1 or 3, H, W] images, not {list(levels.shape)}.")
    width = max(1, round(size * levels.shape[3] / levels.shape[2]))
    canvas = Image.new("RGB", (len(levels) * (width + _GAP) - _GAP, size), "white")
    for i, image in enumerate(levels):
        drawn = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0).repeat(3 // len(image), -1)))
        canvas.paste(drawn.resize((width, size), Image.Resampling.NEAREST), (i * (width + _GAP), 0))
    return _bytes(canvas)


def _fit(width: int, height: int, size: int) -> tuple[int, int]:
    longest = max(width, height)
    return max(1, round(width * size / longest)), max(1, round(height * size / longest))


def _bytes(canvas: Image.Image) -> bytes:
    out = io.BytesIO()
    canvas.save(out, "PNG", compress_level=6)
    return out.getvalue()
