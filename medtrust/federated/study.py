"""The study: what all sites agree upon before any of them computes anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.federated.noise import Privacy
from medtrust.federated.packing import Arrays, pack, unpack
from medtrust.federated.rules import Rules
from medtrust.types import FeatureMatrix, Intensity

__all__ = ["BINS", "FORMAT", "RATES", "REPETITIONS", "RESULTS", "PublicSpace", "Study", "make_study"]

FORMAT = "medtrust.study/1"
RESULTS = (  # what sums can answer
    "fidelity.fd", "fidelity.mmd", "fidelity.intensity", "fidelity.precision", "fidelity.density", "privacy.cpm",
    "privacy.ct",
)  # fmt: skip
RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)  # shares of planted copies in the copy test's self-test
REPETITIONS = (
    400  # experiments for each of them: a size of .05 is then seen above .09 three times in ten thousand studies
)
BINS = 128  # of the histograms of intensities
_NAME = re.compile(r"[\w][\w .-]{0,63}")
_DIMS = (2, 256)
_FLAT = 1e-6  # share of its magnitude below which a column's spread is rounding


@dataclass(frozen=True, slots=True)
class PublicSpace:
    """One feature space as the study fixes it; everything in it is public.

    Args:
        name: The feature space.
        digest: Digest of its extractor.
        synthetic: [m, d] float32 features of the synthetic images, as extracted.
        centre: [d] float64 that is subtracted from every row.
        scale: [d] float64, positive, that every row is divided by.
        projection: [d, k] of -1 and 1, or None where d is small enough; rows are divided by √k after it.
        frequencies: [q, k] float64 of the random Fourier features, in units of projected features.
    """

    name: str
    digest: str
    synthetic: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    projection: npt.NDArray[np.int8] | None
    frequencies: npt.NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Dimensions of projected rows."""
        return len(self.centre) if self.projection is None else int(self.projection.shape[1])

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Centre, scale and project features [n, d] to [n, k] float64.

        Raises:
            DataError: The width is another, or a value is not finite.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.centre):
            raise DataError(
                f"space {self.name}: features are {list(rows.shape)}, the study has {len(self.centre)} columns"
            )
        if not bool(rows.isfinite().all()):
            raise DataError(f"space {self.name}: features hold values that are not finite: look for broken images")
        scaled = (rows.double() - torch.from_numpy(self.centre)) / torch.from_numpy(self.scale)
        if self.projection is None:
            return scaled
        projected: torch.Tensor = scaled @ torch.from_numpy(self.projection).double() / self.dim**0.5
        return projected


@dataclass(frozen=True)
class Study:
    """A study: its header and its public arrays. Two studies with one digest are the same.

    Args:
        header: Plain data, see `make_study`.
        arrays: Features of the synthetic images and the seeded draws.
    """

    header: Mapping[str, Any]
    arrays: Arrays

    def to_bytes(self) -> bytes:
        """The study as one file."""
        return pack(self.header, self.arrays)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `to_bytes`, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, content: bytes) -> Study:
        """Read a study and check that its random draws are what its seed gives.

        Raises:
            DataError: It is no study.
            SafetyError: It holds arrays that its seed does not give, which could have been chosen to expose patients.
            ConfigError: A rule is lowered without a reason.
        """
        header, arrays = unpack(content, "the study")
        study = cls(header, arrays)
        try:
            if header["format"] != FORMAT:
                raise DataError(f"the study has format {str(header['format'])[:40]!r}, this medtrust reads {FORMAT}")
            _check_header(header)
            for name in header["spaces"]:
                study._check_draws(name)
            if study.asks("fidelity.intensity") and arrays["intensity/synthetic"].shape != (
                header["synthetic"]["images"], study.bins,
            ):  # fmt: skip
                raise DataError("the study's histograms are not one row per synthetic image: make the study anew")
            if header["copies"] and len(arrays["copies/synthetic"]) != header["synthetic"]["images"]:
                raise DataError("the study's copy features are not one row per synthetic image: make the study anew")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the study lacks or garbles {error}: make it with `medtrust federated study`") from error
        return study

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.header["name"])

    @property
    def keys(self) -> dict[str, str]:
        """Public key by site."""
        return dict(self.header["sites"])

    @property
    def rules(self) -> Rules:
        """Disclosure rules."""
        return Rules.of(self.header["rules"])

    @property
    def seed(self) -> int:
        """Root seed."""
        return int(self.header["seed"])

    @property
    def level(self) -> float:
        """Confidence level."""
        return float(self.header["level"])

    @property
    def folds(self) -> int:
        """Folds of patients at most per set and site; in a study of secure sums, exactly."""
        return int(self.header["folds"])

    @property
    def secure_sums(self) -> bool:
        """Only the sum over all sites will be known, never a single statement."""
        return bool(self.header["release"] == "sums")

    def asks(self, result: str) -> bool:
        """Whether the study asks for a result, by its id without the feature space."""
        return result in self.header["results"]

    @property
    def bins(self) -> int:
        """Bins of the histograms of intensities."""
        return int(self.header["bins"])

    @property
    def privacy(self) -> Privacy | None:
        """Differential privacy of what sites reveal; None where nothing is added."""
        given = self.header["privacy"]
        return Privacy(**given) if given else None

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape of the rows of medtrust's own pixel embedding, where copies are looked for in it."""
        shape = self.header["copies"].get("shape")
        return (int(shape[0]), int(shape[1]), int(shape[2])) if shape else None

    @property
    def intensity(self) -> Intensity:
        """Declared range of all sets."""
        return Intensity(**self.header["intensity"])

    @cached_property
    def spaces(self) -> dict[str, PublicSpace]:
        """Feature spaces by name."""
        return {name: self._space(name) for name in self.header["spaces"]}

    def _space(self, name: str) -> PublicSpace:
        def array(part: str) -> Any:
            return self.arrays[f"{name}/{part}"]

        projection = self.arrays.get(f"{name}/projection")
        return PublicSpace(
            name, self.header["spaces"][name]["digest"], array("synthetic"), array("centre"), array("scale"),
            projection, array("frequencies"),
        )  # fmt: skip

    def _check_draws(self, name: str) -> None:
        space = self._space(name)
        facts = self.header["spaces"][name]
        width = len(space.centre)
        if space.synthetic.ndim != 2 or space.synthetic.shape[1] != width or space.scale.shape != (width,):
            raise DataError(f"the study's arrays of the space {name} do not fit together: make the study anew")
        if not (space.scale > 0).all():
            raise DataError(f"the study divides the space {name} by a scale that is not positive: make the study anew")
        expected = _projection(width, int(facts["dim"]), self.seed, name)
        if space.projection is None or expected is None:
            same = space.projection is expected
        else:
            same = np.array_equal(space.projection, expected)
        waves = _frequencies(space.dim, int(facts["fourier"]), float(facts["bandwidth"]), self.seed, name)
        if not same or not np.allclose(space.frequencies, waves, rtol=1e-9, atol=0):
            raise SafetyError(
                f"the study's projection or frequencies in the space {name} are not what its seed {self.seed} gives; "
                "they could have been chosen to expose patients: refuse it"
            )


def make_study(
    name: str,
    *,
    sites: Mapping[str, str],
    synthetic: Sequence[FeatureMatrix],
    intensity: Intensity,
    reference: Sequence[FeatureMatrix] = (),
    results: Sequence[str] = ("fidelity.fd", "fidelity.mmd"),
    copies: FeatureMatrix | None = None,
    copies_shape: Sequence[int] | None = None,
    histograms: torch.Tensor | None = None,
    reveal: str = "counts",
    privacy: Mapping[str, float] | None = None,
    seed: int = 0,
    level: float = 0.95,
    dim: int = 64,
    fourier: int = 128,
    folds: int = 10,
    release: str = "statements",
    rules: Mapping[str, Any] | None = None,
    subject: Mapping[str, Any] | None = None,
) -> Study:
    """Write a study down.

    Args:
        name: Its name.
        sites: Public key (`ed25519:…`) by name of site.
        synthetic: Features of the public synthetic images, one matrix per space, as extracted.
        intensity: Declared range of all sets.
        reference: Features of public real images whose mean and spread centre and scale the spaces; the synthetic
            images stand in where there are none.
        results: What shall be computed, any of `RESULTS`.
        copies: Features of the synthetic images in the space in which copies are looked for.
        copies_shape: Its shape (C, h, w) where that is medtrust's own pixel embedding.
        histograms: [m, bins] share of each synthetic image's pixels in each bin of the declared range.
        reveal: "counts", or "distances" where each site tells how near its patients come to every synthetic image: then
            the copy test is that of all patients in one pool.
        privacy: Epsilon, delta and clip of differential privacy, see `Privacy`; None adds no noise.
        seed: Root of the projection, the Fourier features and everything else that is drawn.
        level: Confidence level.
        dim: Dimensions that wider spaces are projected to, 2 to 256.
        fourier: Random frequencies; each gives a cosine and a sine.
        folds: Folds of patients at most per set and site, at least 2.
        release: "statements", or "sums" where only the sum over all sites will be known.
        rules: Disclosure rules, see `Rules`.
        subject: What is evaluated: plain data with kind and name.

    Raises:
        ConfigError: A setting is impossible.
    """
    spaces: dict[str, Any] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    others = {matrix.space: matrix for matrix in reference}
    for matrix in synthetic:
        values = matrix.values.float().numpy()
        base = others[matrix.space].values.double() if matrix.space in others else matrix.values.double()
        named = bool(matrix.names)
        centre, scale = base.mean(0).numpy(), _scale(base, named)
        drawn = _projection(values.shape[1], dim, seed, matrix.space)
        half = PublicSpace(matrix.space, matrix.space_digest, values, centre, scale, drawn, np.zeros((0, 1)))
        width = _median_distance(half.project(base))
        spaces[matrix.space] = {
            "digest": matrix.space_digest, "dim": dim, "fourier": fourier, "bandwidth": width,
            "standardised": named, "scaled_by": "reference" if matrix.space in others else "synthetic",
        }  # fmt: skip
        arrays |= {f"{matrix.space}/{part}": getattr(half, part) for part in ("synthetic", "centre", "scale")}
        if drawn is not None:
            arrays[f"{matrix.space}/projection"] = drawn
        arrays[f"{matrix.space}/frequencies"] = _frequencies(half.dim, fourier, width, seed, matrix.space)
    about: dict[str, Any] = {}
    if copies is not None:
        arrays["copies/synthetic"] = copies.values.float().numpy()
        about = {"space": copies.space, "digest": copies.space_digest, "reveal": reveal}
        about |= {"shape": list(copies_shape)} if copies_shape else {}
    if histograms is not None:
        arrays["intensity/synthetic"] = histograms.double().numpy()
    first = synthetic[0]
    header = {
        "format": FORMAT, "name": name, "seed": seed, "level": level, "folds": folds, "release": release,
        "results": [each for each in RESULTS if each in {*results, "fidelity.fd"}], "copies": about, "bins": BINS,
        "privacy": Privacy.of(privacy).as_dict() if privacy else None, "spaces": spaces,
        "sites": dict(sorted(sites.items())),
        "intensity": {"lo": intensity.lo, "hi": intensity.hi, "unit": intensity.unit},
        "rules": Rules.of(rules or {}).as_dict(), "subject": dict(subject or {"kind": "folder", "name": "synthetic"}),
        "synthetic": {"images": len(first), "sha256": _digest_of(first.digests)},
    }  # fmt: skip
    unknown = sorted(set(results) - set(RESULTS))
    if unknown:
        raise ConfigError(f"{unknown[0]} cannot be had from sums; what can is {', '.join(RESULTS)}")
    _check_header(header)
    return Study.from_bytes(pack(header, arrays))


def _check_header(header: Mapping[str, Any]) -> None:
    Rules.of(header["rules"])
    balls = {"fidelity.precision", "fidelity.density"} & set(header["results"])
    copying = {"privacy.cpm", "privacy.ct"} & set(header["results"])
    dims = {space["dim"] for space in header["spaces"].values()}
    for bad, sentence in (
        (not _NAME.fullmatch(header["name"]), "the study's name has 1 to 64 letters, digits, spaces, dots and dashes"),
        (not header["sites"], "a study names the public key of every site: --site NAME=FILE.pub"),
        (not all(_NAME.fullmatch(site) for site in header["sites"]), "a site's name has 1 to 64 letters and digits"),
        (not header["spaces"], "a study needs a feature space"),
        (any(not _DIMS[0] <= dim <= _DIMS[1] for dim in dims), f"dim must lie from {_DIMS[0]} to {_DIMS[1]}"),
        (not 2 <= header["folds"] <= 100, "folds must lie from 2 to 100"),
        (not 0.5 <= header["level"] < 1, "level is a confidence level from 0.5 up to, not including, 1"),
        (copying and not header["copies"], "to look for copies a study needs the synthetic images' copy features"),
        (
            copying and header["privacy"],
            "counts of closest patients cannot be given with noise: leave cpm and diagnostics out of a study "
            "with privacy",
        ),
        (
            balls and (header["privacy"] or header["release"] == "sums"),
            "counts in balls are each site's own: leave prdc out of a study with privacy or secure sums",
        ),
        (header["copies"].get("reveal", "counts") not in ("counts", "distances"), 'reveal is "counts" or "distances"'),
        (
            header["copies"].get("reveal") == "distances" and header["release"] == "sums",
            'reveal = "distances" tells each site apart: it needs release = "statements"',
        ),
        (header["release"] not in ("statements", "sums"), 'release is "statements" or "sums"'),
    ):
        if bad:
            raise ConfigError(sentence)


def _digest_of(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _scale(base: torch.Tensor, named: bool) -> npt.NDArray[np.float64]:
    """Spread of each measured column; 1 for columns of one embedding, whose relative spread means something."""
    if not named:
        return np.ones(base.shape[1])
    spread = base.std(0)
    flat = spread <= _FLAT * base.abs().amax(0).clamp_min(1e-300)
    return torch.where(flat, torch.ones_like(spread), spread).numpy()


def _median_distance(rows: torch.Tensor) -> float:
    from medtrust.stats import median_distance

    return median_distance(rows)


def _stream(seed: int, purpose: str, count: int) -> bytes:
    """Random bytes that depend on nothing but this text: the same on every machine and for ever."""
    return hashlib.shake_256(f"medtrust:{seed}:{purpose}".encode()).digest(count)


def _projection(width: int, dim: int, seed: int, space: str) -> npt.NDArray[np.int8] | None:
    """Random signs [d, k]; distances keep their size on average.

    Reference: Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4.
    """
    if width <= dim:
        return None
    bits = np.unpackbits(np.frombuffer(_stream(seed, f"projection:{space}", (width * dim + 7) // 8), np.uint8))
    return (2 * bits[: width * dim].astype(np.int8) - 1).reshape(width, dim)


def _frequencies(dim: int, count: int, bandwidth: float, seed: int, space: str) -> npt.NDArray[np.float64]:
    """Normal draws [q, k] over the bandwidth: the spectrum of a Gaussian kernel.

    Reference: Rahimi and Recht 2007, Random features for large-scale kernel machines, NIPS 20.
    """
    from scipy.special import ndtri

    words = np.frombuffer(_stream(seed, f"fourier:{space}", 8 * count * dim), "<u8")
    normal: npt.NDArray[np.float64] = ndtri(((words >> np.uint64(11)) + 0.5) * 2.0**-53).reshape(count, dim)
    return normal / bandwidth
