"""A flow over maps of proton density, T1 and T2, and a spin-echo or inversion-recovery scanner that images them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from medtrust.errors import ConfigError, DataError
from medtrust.types import ConditionSpec
from medtrust_generators.conditions import Condition
from medtrust_generators.flow import FlowModel
from medtrust_generators.options import Options
from medtrust_physics.background import corners_of, darkest_corner
from medtrust_physics.hybrid import HybridFactory, HybridGenerator, positive, smoothed
from medtrust_physics.relaxation import fit_maps, signal

if TYPE_CHECKING:
    from medtrust.types import ImageRecord

__all__ = ["MrGenerator", "MrPhysics"]

_FITTED = 3  # contrasts from which T1 and T2 can be told
_T1, _T2 = (50.0, 10_000.0), (5.0, 5_000.0)


class ScanTimes(Condition):
    """TR, TE and TI in ms, of each channel; what is not asked for is as in training. Codes are [N, 3 C]."""

    def __init__(self, protocol: Tensor) -> None:
        super().__init__({}, (0, 0, 0), 0)
        self.protocol = protocol  # [3, C]

    @property
    def spec(self) -> ConditionSpec:
        """The names of the times."""
        return ConditionSpec("tabular", self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """tr, te, ti; of several channels tr_1, tr_2, …"""
        count = self.protocol.shape[1]
        return tuple(f"{n}_{c + 1}" if count > 1 else n for n in ("tr", "te", "ti") for c in range(count))

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Turn mappings from names to ms into codes."""
        codes = self.absent(len(values))
        for row, value in enumerate(values):
            if not isinstance(value, Mapping) or set(value) - set(self.names):
                raise ConfigError(f"{value!r} are no times of a scan; give some of {', '.join(self.names)}, in ms")
            for name, time in value.items():
                codes[row, self.names.index(name)] = float(time)
            tr, te, ti = codes[row].view(3, -1)
            if not bool(((tr > 0) & (te >= 0) & (ti >= 0) & (te + ti <= tr)).all()):
                raise ConfigError(f"{value!r}: echo and inversion must lie within the repetition time")
        return codes

    def absent(self, n: int) -> Tensor:
        """The times of the training images."""
        return self.protocol.flatten().expand(n, -1).clone()


class MrGenerator(HybridGenerator):
    """Draws maps and scans them at the times that are asked for."""

    def scan(self, maps: Tensor, noise: Sequence[torch.Generator], codes: Tensor) -> Tensor:
        """The signal equation, complex noise in k-space, and the magnitude."""
        physics = self.card["physics"]
        pd = maps[:, :1].clamp(min=0) * physics["pd_scale"]
        if maps.shape[1] == _FITTED:
            t1, t2 = maps[:, 1:2].exp().clamp(*_T1), maps[:, 2:].exp().clamp(*_T2)
        else:
            t1, t2 = torch.full_like(pd, physics["t1"]), torch.full_like(pd, physics["t2"])
        tr, te, ti = codes.float().unflatten(1, (3, -1))[..., None, None].unbind(1)
        images = signal(pd, torch.maximum(t1, t2), t2, tr, te, ti)
        size = images.shape[1:]
        drawn = torch.stack([torch.randn((2, *size), generator=source) for source in noise])
        # white in k-space, at the level that the unitary transform carries over to the image
        spectrum = torch.fft.fft2(images, norm="ortho") + physics["noise"] * torch.complex(drawn[:, 0], drawn[:, 1])
        return torch.fft.ifft2(spectrum, norm="ortho").abs()


class MrPhysics(HybridFactory):
    """The `factory` of the spec `mr-physics`.

    From three contrasts on, the maps are fitted to each pixel. From one or two, T1 and T2 cannot be told: they are the
    constants `t1` and `t2`, and proton density takes up all contrast. The card says which was done.
    """

    kind = "mr-physics"
    generator = MrGenerator
    own: ClassVar[Mapping[str, str | int | float]] = {
        "tr": "", "te": "", "ti": "", "noise": "measured", "smooth": 0.7, "t1": 900.0, "t2": 90.0,
    }  # fmt: skip

    def prepare(self, pixels: Tensor, images: Sequence[ImageRecord], recipe: Options) -> tuple[Tensor, dict[str, Any]]:
        """Fit maps to the contrasts."""
        if float(pixels.min()) < 0:
            raise DataError("a magnitude image has no negative values, these images have; is this MR?")
        protocol = _protocol(recipe, pixels.shape[1])
        noise = positive(recipe, "noise", 1e9) or _noise_of(images)
        smooth = recipe.number("smooth", lo=0, hi=10)
        # the mean square of a magnitude is the signal's and twice the noise's (Gudbjartsson and Patz 1995)
        clean = (smoothed(pixels.square(), smooth) - 2 * noise**2).clamp(min=0).sqrt()
        tissue = clean.square().sum(1, keepdim=True).sqrt() > 2 * noise * math.sqrt(pixels.shape[1])
        facts: dict[str, Any] = {"noise": noise, "tr": protocol[0].tolist(), "te": protocol[1].tolist()}
        facts["ti"] = protocol[2].tolist()
        if pixels.shape[1] >= _FITTED:
            pd, t1, t2 = fit_maps(clean, tissue[:, 0], protocol)
            facts["maps"] = f"proton density, T1 and T2 fitted to {pixels.shape[1]} contrasts"
            channels = [pd, t1.log(), t2.log()]
        else:
            t1, t2 = (recipe.number(name, lo=lo, hi=hi) for name, (lo, hi) in (("t1", _T1), ("t2", _T2)))
            each = signal(torch.ones(()), torch.tensor(t1), torch.tensor(t2), *protocol[:, :, None, None])
            if t2 > t1 or float(each.abs().min()) < 1e-3:
                raise ConfigError("with these times and t1, t2 there is no signal to invert; t2 must not exceed t1")
            pd = (clean / each).mean(1) * tissue[:, 0]
            channels = [pd]
            facts |= {"t1": t1, "t2": t2}
            facts["maps"] = (
                f"proton density inverted from {pixels.shape[1]} contrast(s), T1 = {t1:g} ms and T2 = {t2:g} ms "
                "assumed everywhere: at other times of the scan the contrast between tissues is not to be believed"
            )
        bright = channels[0][tissue[:, 0]]
        if not len(bright):
            raise DataError(f"no pixel is brighter than the noise ({noise:.3g}); name its level by the option noise")
        facts["pd_scale"] = float(bright.mean())
        channels[0] = channels[0] / facts["pd_scale"]
        return torch.stack(channels, 1), facts

    def build(
        self, shape: tuple[int, int, int], recipe: Options, sampling: Options, condition: dict[str, Any]
    ) -> FlowModel:
        """Make an untrained flow, conditioned on nothing: the times belong to the scanner."""
        model = super().build(shape, recipe, sampling, {})
        channels = len(str(recipe.values["tr"]).split("/"))
        model.condition = ScanTimes(_protocol(recipe, channels))
        return model


def _protocol(recipe: Options, channels: int) -> Tensor:
    """Times [3, C] in ms: tr=500/4000 te=15/80, and ti where a channel is inverted; ti=0 is a plain spin echo."""
    rows = []
    for name in ("tr", "te", "ti"):
        text = str(recipe.values[name]) or ("/".join(["0"] * channels) if name == "ti" else "")
        try:
            row = [float(part) for part in text.split("/")]
        except ValueError:
            row = []
        if len(row) != channels or not all(0 <= value < 1e6 for value in row):
            raise ConfigError(
                f"option {name}={text} of generator {recipe.kind} must state the time of each of the {channels} "
                f"channel(s) in ms, as {name}={'/'.join(['500', '2500', '4000', '4000', '4000'][:channels])}"
            )
        rows.append(row)
    times = torch.tensor(rows)
    if bool((times[0] <= 0).any() or (times[1] + times[2] > times[0]).any()):
        raise ConfigError(f"generator {recipe.kind}: te and ti must lie within tr, which is above 0")
    return times


def _noise_of(images: Sequence[ImageRecord]) -> float:
    """Standard deviation of the noise in one channel of the receiver, from the corners that show air alone."""
    levels = []
    for record in images:
        for channel in np.asarray(record.pixels, np.float64):
            if min(channel.shape) < 32 or darkest_corner(channel) is None:
                continue
            squares = sorted(float(np.mean(corner**2)) for corner in corners_of(channel))
            # the darkest alone would be too dark: it was chosen
            levels.append(np.mean([square for square in squares if square < 2 * squares[0]]) / 2)
    if len(levels) < max(1, len(images) // 2):
        raise DataError(
            "the background of these images holds no noise to measure (blanked, or no air in the corners); state the "
            "standard deviation of the scan's noise by the option noise, in the unit of the images"
        )
    return math.sqrt(float(np.median(levels)))
