"""Our numbers beside those of the packages that people compare with, on the same input.

    python benchmarks/parity.py            # runs every peer that is installed, writes benchmarks/results/parity.json
    python benchmarks/tables.py            # puts the table into docs/metrics/parity.md

`tests/test_parity.py` runs every row again and holds it to its tolerance.
"""

from __future__ import annotations

import importlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtrust import Intensity, ops, stats

OUT = Path(__file__).parent / "results" / "parity.json"
Numbers = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """One metric in one convention.

    Args:
        metric: What is measured.
        convention: Whose rule.
        peer: Distribution that is run.
        module: What of it is imported.
        run: Given that module, returns our number and theirs.
        tolerance: Largest relative difference (absolute for resized pixels), and why it is not 0.
        because: That reason.
    """

    metric: str
    convention: str
    peer: str
    module: str
    run: Callable[[Any], Numbers]
    tolerance: float
    because: str

    @property
    def name(self) -> str:
        """Unique name of the row."""
        return f"{self.metric} | {self.convention}"


@cache
def features(n: int = 300, d: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Two correlated, shifted sets of features, float64."""
    rng = np.random.default_rng(20)
    mix = rng.normal(size=(d, d)) / math.sqrt(d)
    return (
        torch.from_numpy(rng.normal(size=(n, d)) @ mix),
        torch.from_numpy(1.1 * rng.normal(size=(n, d)) @ mix + 0.2),
    )


def moments() -> list[Any]:
    """Mean and covariance (divisor n - 1) of both sets, as numpy."""
    return [part for x in features() for part in (x.numpy().mean(0), np.cov(x.numpy(), rowvar=False))]


@cache
def logits() -> torch.Tensor:
    """Class logits of 500 images in 40 classes."""
    return torch.from_numpy(3 * np.random.default_rng(21).normal(size=(500, 40)))


@cache
def photographs(side: int = 176) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures and noisy versions of them, uint8 [4, 1, side, side]."""
    rng = np.random.default_rng(22)
    coarse = torch.from_numpy(rng.uniform(0, 255, (4, 1, 12, 12)))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").numpy()
    noisy = smooth + rng.normal(0, 15, smooth.shape)
    return tuple(torch.from_numpy(np.rint(x).clip(0, 255).astype(np.uint8)) for x in (smooth, noisy))  # type: ignore[return-value]


def fd(convention: str = "pytorch-fid") -> float:
    return stats.frechet_distance(*features(), convention=convention)


def of_moments(function: str) -> Callable[[Any], Numbers]:
    def run(peer: Any) -> Numbers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # sqrtm(disp=) of their making
            return fd(), float(getattr(peer, function)(*moments()))

    return run


def fd_torch_fidelity(peer: Any) -> Numbers:
    a, b = (dict(zip(("mu", "sigma"), moments()[i : i + 2], strict=True)) for i in (0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = peer.fid_statistics_to_metric(a, b, False)
    return fd("torch-fidelity"), float(found["frechet_inception_distance"])


def fd_torchmetrics(peer: Any) -> Numbers:
    return fd("torchmetrics"), float(peer._compute_fid(*(torch.from_numpy(part) for part in moments())))


def fd_monai(peer: Any) -> Numbers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return fd("monai"), float(peer.get_fid_score(*features()))


def fd_stylegan(peer: Any) -> Numbers:
    """The few lines of stylegan3's frechet_inception_distance.py, with its divisor n, through SciPy."""
    (mu_a, cov_a), (mu_b, cov_b) = ((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False, ddof=0)) for x in features())
    root = peer.sqrtm(cov_a @ cov_b)
    return fd("stylegan"), float(((mu_a - mu_b) ** 2).sum() + np.real(np.trace(cov_a + cov_b - 2 * root)))


def kid_torch_fidelity(peer: Any) -> Numbers:
    a, b = features(1200, 8)
    theirs = peer.kid_features_to_metric(a, b, kid_subsets=10, kid_subset_size=1000, verbose=False, rng_seed=2020)
    ours = stats.kid(a, b, convention="torch-fidelity", subsets=10)
    return ours, theirs["kernel_inception_distance_mean"]


def kid_clean_fid(peer: Any) -> Numbers:
    a, b = features()
    return stats.kid(a, b), peer.kernel_distance(a.numpy(), b.numpy(), num_subsets=1)


def kid_torchmetrics(peer: Any) -> Numbers:
    return stats.kid(*features()), float(peer.poly_mmd(*features()))


def rbf_torch_fidelity(peer: Any) -> Numbers:
    a, b = features()
    theirs = peer.kid_features_to_metric(
        a, b, kid_subsets=1, kid_subset_size=len(a), kid_kernel="rbf", kid_kernel_rbf_sigma=3.0, verbose=False
    )
    return stats.mmd_rbf(a, b, bandwidth=3.0), theirs["kernel_inception_distance_mean"]


def cmmd(peer: Any) -> Numbers:
    a, b = (3 * x for x in features())  # so that the fixed width of 10 is of the size of their distances
    return stats.mmd_rbf(a, b, convention="cmmd"), float(peer.mmd(a, b))


def score_torch_fidelity(peer: Any) -> Numbers:
    theirs = peer.isc_features_to_metric(logits(), 10, True, 2020)["inception_score_mean"]
    return stats.inception_score(logits(), splits=10, shuffle_seed=2020), theirs


def score_torchmetrics(peer: Any) -> Numbers:
    metric = peer.InceptionScore(feature=torch.nn.Flatten(), splits=1)
    metric.update(logits()[:, :, None, None])
    return stats.inception_score(logits()), float(metric.compute()[0])


def shares(name: str) -> Callable[[Any], Numbers]:
    def run(peer: Any) -> Numbers:
        a, b = features()
        return getattr(stats.manifold(a, b), name), float(peer.compute_prdc(a.numpy(), b.numpy(), 5)[name])

    return run


def kynkaanniemi(name: str) -> Callable[[Any], Numbers]:
    def run(peer: Any) -> Numbers:
        a, b = features()
        theirs = peer.prc_features_to_metric(b, a, verbose=False, save_cpu_ram=False)
        return getattr(stats.manifold(a, b, convention="kynkaanniemi"), name), theirs[name]

    return run


def vendi(peer: Any) -> Numbers:
    # its score_K asks SciPy for a class that SciPy has moved: the eigenvalues are taken of the matrix it builds
    x = features()[0]
    return stats.vendi_score(x), float(peer.score_dual(x.numpy()))


def frd(peer: Any) -> Numbers:
    from medtrust_fidelity.frd import frd_v1

    a, b = (x.numpy() for x in features())
    z = [peer.z_score_normalize(x, base_distribution=a, replace_nan=False, handle_std_zero=False) for x in (a, b)]
    parts = [part for x in z for part in (x.mean(0), np.cov(x, rowvar=False))]
    return frd_v1(*features()), float(np.log(peer.calculate_frechet_distance(*parts)))


def likeness(ours: Callable[..., torch.Tensor], convention: str, theirs: Callable[[Any, Any, Any], Any]) -> Any:
    def run(peer: Any) -> Numbers:
        x, y = photographs()
        return float(ours(x, y, data_range=255, convention=convention).mean()), float(
            theirs(peer, x.float(), y.float())
        )

    return run


def skimage_ssim(peer: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    pairs = zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True)
    return float(np.mean([peer.structural_similarity(a, b, data_range=255) for a, b in pairs]))


def paired(name: str, theirs: Callable[[Any, Any, Any], float]) -> Callable[[Any], Numbers]:
    """A measure of the paired metric on one pair."""

    def run(peer: Any) -> Numbers:
        from medtrust import MetricInput
        from medtrust.types import SetData
        from medtrust_fidelity.paired import measure_pair

        x, y = (image[:1] for image in photographs())
        empty = SetData("train", (), (), ())
        data = MetricInput(empty, empty, None, Intensity(0, 255, "level"))
        return float(measure_pair(data, x, y)[name]), theirs(peer, x[0, 0].numpy(), y[0, 0].numpy())

    return run


def resized(convention: str, theirs: Callable[[Any, torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> Any:
    """Largest value of both networks' input; the row's difference is the largest over all its pixels."""

    def run(peer: Any) -> Numbers:
        from medtrust_features.inception_prepare import prepare

        x = torch.from_numpy(np.random.default_rng(23).integers(0, 256, (2, *shape), dtype=np.uint8))
        ours = prepare(x, Intensity(0, 255, "level"), convention)
        gap = float((ours - theirs(peer, x.float().expand(-1, 3, -1, -1))).abs().max())
        return gap, 0.0

    return run


def by_pytorch_fid(peer: Any, x: torch.Tensor) -> torch.Tensor:
    """What its InceptionV3 hands to the first block."""
    network = peer.InceptionV3.__new__(peer.InceptionV3)
    torch.nn.Module.__init__(network)
    network.resize_input = network.normalize_input = True
    network.output_blocks, network.last_needed_block = [0], 0
    network.blocks = torch.nn.ModuleList([torch.nn.Identity()])
    return network(x / 255)[0]


def by_clean_fid(peer: Any, x: torch.Tensor) -> torch.Tensor:
    resize = peer.build_resizer("clean")
    planes = [resize(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1) for image in x]
    return (torch.from_numpy(np.stack(planes)) - 128) / 128


def by_torch_fidelity(peer: Any, x: torch.Tensor) -> torch.Tensor:
    return (peer.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False) - 128) / 128


def by_torchmetrics(antialias: bool) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def run(peer: Any, x: torch.Tensor) -> torch.Tensor:
        """What its network hands to the first convolution."""

        class Caught(Exception):  # noqa: N818 it is no error
            pass

        def catch(given: torch.Tensor) -> torch.Tensor:
            raise Caught(given)

        network = peer.NoTrainInceptionV3.__new__(peer.NoTrainInceptionV3)
        torch.nn.Module.__init__(network)
        network.use_antialias, network.features_list = antialias, []
        network.__dict__["Conv2d_1a_3x3"] = catch
        try:
            network._torch_fidelity_forward(x.to(torch.uint8))
        except Caught as caught:
            found: torch.Tensor = caught.args[0]
            return found
        raise AssertionError("torchmetrics no longer calls Conv2d_1a_3x3 first")

    return run


ROOT = "theirs takes the root of a matrix product"
ORDER = "order of summation"
SINGLE = "theirs is in float32"
SHAPES = {"RGB 64 x 80": (3, 64, 80), "grey 32 x 32": (1, 32, 32), "RGB 400 x 350": (3, 400, 350)}

PAIRS: tuple[Pair, ...] = (
    Pair(
        "Fréchet distance",
        "pytorch-fid",
        "pytorch-fid",
        "pytorch_fid.fid_score",
        of_moments("calculate_frechet_distance"),
        1e-6,
        ROOT,
    ),
    Pair("Fréchet distance", "clean-fid", "clean-fid", "cleanfid.fid", of_moments("frechet_distance"), 1e-6, ROOT),
    Pair(
        "Fréchet distance",
        "torch-fidelity",
        "torch-fidelity",
        "torch_fidelity.metric_fid",
        fd_torch_fidelity,
        1e-6,
        ROOT,
    ),
    Pair("Fréchet distance", "torchmetrics", "torchmetrics", "torchmetrics.image.fid", fd_torchmetrics, 1e-6, ROOT),
    Pair("Fréchet distance", "MONAI", "monai", "monai.metrics.fid", fd_monai, 1e-6, ROOT),
    Pair("Fréchet distance", "stylegan (ddof 0)", "scipy", "scipy.linalg", fd_stylegan, 1e-6, ROOT),
    Pair(
        "Kernel distance",
        "torch-fidelity, 10 x 1000",
        "torch-fidelity",
        "torch_fidelity.metric_kid",
        kid_torch_fidelity,
        1e-9,
        ORDER,
    ),
    Pair("Kernel distance", "clean-fid, all rows", "clean-fid", "cleanfid.fid", kid_clean_fid, 1e-9, ORDER),
    Pair(
        "Kernel distance",
        "torchmetrics, all rows",
        "torchmetrics",
        "torchmetrics.image.kid",
        kid_torchmetrics,
        1e-9,
        ORDER,
    ),
    Pair(
        "Gaussian kernel distance",
        "torch-fidelity, rbf",
        "torch-fidelity",
        "torch_fidelity.metric_kid",
        rbf_torch_fidelity,
        1e-6,
        ORDER,
    ),
    Pair("Gaussian kernel distance", "CMMD", "clip-mmd", "clip_mmd.calculation", cmmd, 1e-9, ORDER),
    Pair(
        "Inception Score",
        "torch-fidelity, 10 splits",
        "torch-fidelity",
        "torch_fidelity.metric_isc",
        score_torch_fidelity,
        1e-9,
        ORDER,
    ),
    Pair(
        "Inception Score",
        "torchmetrics, 1 split",
        "torchmetrics",
        "torchmetrics.image.inception",
        score_torchmetrics,
        1e-5,
        SINGLE,
    ),
    *(
        Pair(name.capitalize(), "prdc, k = 5", "prdc", "prdc", shares(name), 1e-9, ORDER)
        for name in ("precision", "recall", "density", "coverage")
    ),
    *(
        Pair(
            name.capitalize(),
            "Kynkäänniemi, k = 3",
            "torch-fidelity",
            "torch_fidelity.metric_prc",
            kynkaanniemi(name),
            1e-6,
            SINGLE,
        )
        for name in ("precision", "recall")
    ),
    Pair("Vendi score", "vendi-score", "vendi-score", "vendi_score.vendi", vendi, 1e-9, ORDER),
    Pair("Radiomics Fréchet distance", "frd-v1, same features", "frd-score", "frd_score.frd", frd, 1e-6, ROOT),
    Pair(
        "SSIM", "skimage", "scikit-image", "skimage.metrics", likeness(ops.ssim, "skimage", skimage_ssim), 1e-5, SINGLE
    ),
    Pair(
        "SSIM",
        "pytorch-msssim",
        "pytorch-msssim",
        "pytorch_msssim",
        likeness(ops.ssim, "pytorch-msssim", lambda p, x, y: p.ssim(x, y, data_range=255)),
        1e-4,
        SINGLE,
    ),
    Pair(
        "SSIM",
        "torchmetrics",
        "torchmetrics",
        "torchmetrics.functional.image",
        likeness(
            ops.ssim, "torchmetrics", lambda p, x, y: p.structural_similarity_index_measure(x, y, data_range=255.0)
        ),
        1e-4,
        SINGLE,
    ),
    Pair(
        "SSIM",
        "MONAI",
        "monai",
        "monai.metrics",
        likeness(ops.ssim, "monai", lambda p, x, y: p.SSIMMetric(2, data_range=255.0)(x, y).mean()),
        1e-4,
        SINGLE,
    ),
    Pair(
        "MS-SSIM",
        "pytorch-msssim",
        "pytorch-msssim",
        "pytorch_msssim",
        likeness(ops.ms_ssim, "pytorch-msssim", lambda p, x, y: p.ms_ssim(x, y, data_range=255)),
        1e-4,
        SINGLE,
    ),
    Pair(
        "MS-SSIM",
        "torchmetrics",
        "torchmetrics",
        "torchmetrics.functional.image",
        likeness(
            ops.ms_ssim,
            "torchmetrics",
            lambda p, x, y: p.multiscale_structural_similarity_index_measure(x, y, data_range=255.0),
        ),
        1e-4,
        SINGLE,
    ),
    Pair(
        "PSNR",
        "skimage",
        "scikit-image",
        "skimage.metrics",
        paired("psnr", lambda p, x, y: p.peak_signal_noise_ratio(x, y, data_range=255)),
        1e-9,
        ORDER,
    ),
    Pair(
        "MAE",
        "scikit-learn",
        "scikit-learn",
        "sklearn.metrics",
        paired("mae", lambda p, x, y: p.mean_absolute_error(x.astype(float), y.astype(float))),
        1e-9,
        ORDER,
    ),
    Pair(
        "NCC",
        "SciPy's pearsonr",
        "scipy",
        "scipy.stats",
        paired("ncc", lambda p, x, y: p.pearsonr(x.ravel().astype(float), y.ravel().astype(float))[0]),
        1e-9,
        ORDER,
    ),
    *(
        Pair(
            f"Inception's input, {shown}",
            convention,
            peer,
            module,
            resized(ours, theirs, shape),
            2e-5,
            "float32 pixels of -1 … 1",
        )
        for convention, ours, peer, module, theirs in (
            ("pytorch-fid", "pytorch-fid", "pytorch-fid", "pytorch_fid.inception", by_pytorch_fid),
            ("clean-fid", "clean-fid", "clean-fid", "cleanfid.resize", by_clean_fid),
            (
                "torch-fidelity",
                "torch-fidelity",
                "torch-fidelity",
                "torch_fidelity.interpolate_compat_tensorflow",
                by_torch_fidelity,
            ),
            ("torchmetrics ≥ 1.8", "torchmetrics", "torchmetrics", "torchmetrics.image.fid", by_torchmetrics(True)),
            ("torchmetrics < 1.8", "torch-fidelity", "torchmetrics", "torchmetrics.image.fid", by_torchmetrics(False)),
        )
        for shown, shape in SHAPES.items()
    ),
)


def difference(pair: Pair, ours: float, theirs: float) -> float:
    """Relative difference; for resized pixels the largest absolute one, which is what `run` returned."""
    return abs(ours) if pair.metric.startswith("Inception's") else abs(ours - theirs) / max(abs(theirs), 1e-300)


def main() -> None:
    """Run every peer and record what both say."""
    torch.set_num_threads(1)
    rows = []
    for pair in PAIRS:
        ours, theirs = pair.run(importlib.import_module(pair.module))
        gap = difference(pair, ours, theirs)
        pixels = pair.metric.startswith("Inception's")
        rows.append(
            {
                "metric": pair.metric,
                "convention": pair.convention,
                "peer": f"{pair.peer} {metadata.version(pair.peer)}",
                "ours": None if pixels else ours,
                "theirs": None if pixels else theirs,
                "difference": gap,
                "tolerance": pair.tolerance,
                "because": pair.because,
            }
        )
        print(f"{pair.name:50s} {rows[-1]['peer']:22s} {ours:12.7g} {theirs:12.7g} {gap:.1e}")
    OUT.write_text(json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
