"""SSIM and MS-SSIM against the packages people use: `python benchmarks/bench_ssim.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from medtrust import ops
from peers import Contender, Row, compare, main, module


def images(side: int, centre: float, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """A smooth picture and its noisy copy, `[1, 1, side, side]` float32 of whole numbers."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 1, side // 16, side // 16), generator=generator)
    x = centre + spread * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    y = x + 0.4 * spread * torch.randn(x.shape, generator=generator)
    return x.round(), y.round()


def gaussian(rounds: int) -> list[Row]:
    """Gaussian window of 11 at 512 x 512, in 8-bit range and in a soft-tissue window of CT."""
    rows = []
    for case, centre, spread, data_range in (("8-bit", 128, 40, 255.0), ("CT 1064 +- 5", 1064, 5, 80.0)):
        x, y = images(512, centre, spread, 1)
        if data_range == 255:
            x, y = x.clamp(0, 255), y.clamp(0, 255)
        a, b = x[0, 0].numpy(), y[0, 0].numpy()
        oracle = float(ops.ssim(x.double(), y.double(), data_range=data_range))
        contenders = [
            Contender("medtrust", lambda x=x, y=y, r=data_range: ops.ssim(x, y, data_range=r), note="float32")
        ]
        if data_range == 255:
            u, v = x.to(torch.uint8), y.to(torch.uint8)
            contenders.append(Contender("medtrust", lambda u=u, v=v: ops.ssim(u, v, data_range=255), note="uint8"))
        if peer := module("pytorch_msssim"):
            contenders.append(
                Contender("pytorch-msssim", lambda p=peer, x=x, y=y, r=data_range: p.ssim(x, y, data_range=r))
            )
        if peer := module("kornia.metrics"):
            contenders.append(
                Contender(
                    "kornia",
                    lambda p=peer, x=x, y=y, r=data_range: p.ssim(x, y, 11, max_val=r, padding="valid").mean(),
                )
            )
        # piq refuses intensities above the data range, so it takes part in the first case only.
        if data_range == 255 and (peer := module("piq")):
            contenders.append(
                Contender("piq", lambda p=peer, x=x, y=y, r=data_range: p.ssim(x, y, data_range=r, downsample=False))
            )
        if peer := module("skimage.metrics"):
            options = {"gaussian_weights": True, "use_sample_covariance": False}
            contenders.append(
                Contender(
                    "scikit-image",
                    lambda p=peer, a=a, b=b, r=data_range, o=options: p.structural_similarity(a, b, data_range=r, **o),
                )
            )
        rows += compare(f"SSIM Gauss 11, 512 px, {case}", oracle, contenders, rounds)
        # torchmetrics mirrors the border: another value, hence a case of its own.
        if peer := module("torchmetrics.functional.image"):
            oracle = float(ops.ssim(x.double(), y.double(), data_range=data_range, convention="torchmetrics"))
            contenders = [
                Contender(
                    "medtrust",
                    lambda x=x, y=y, r=data_range: ops.ssim(x, y, data_range=r, convention="torchmetrics"),
                    note="float32",
                ),
                Contender(
                    "torchmetrics",
                    lambda p=peer, x=x, y=y, r=data_range: p.structural_similarity_index_measure(x, y, data_range=r),
                ),
            ]
            rows += compare(f"SSIM Gauss 11 mirrored, 512 px, {case}", oracle, contenders, rounds)
    return rows


def uniform(rounds: int) -> list[Row]:
    """scikit-image's default: uniform window of 7, sample covariance, at 2048 x 2048 uint8."""
    x, y = (t.clamp(0, 255).to(torch.uint8) for t in images(2048, 128, 40, 2))
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    oracle = float(ops.ssim(x.double(), y.double(), data_range=255, convention="skimage"))
    contenders = [Contender("medtrust", lambda: ops.ssim(x, y, data_range=255, convention="skimage"), note="uint8")]
    if peer := module("skimage.metrics"):
        contenders.append(
            Contender("scikit-image", lambda p=peer: p.structural_similarity(a, b, data_range=255), note="uint8")
        )
    if peer := module("fast_ssim"):
        contenders.append(Contender("Fast-SSIM", lambda p=peer: p.ssim(a, b, data_range=255), note="uint8"))
    return compare("SSIM uniform 7, 2048 px", oracle, contenders, max(3, rounds // 4))


def multi_scale(rounds: int) -> list[Row]:
    """MS-SSIM over five scales at 512 x 512."""
    x, y = (t.clamp(0, 255) for t in images(512, 128, 40, 3))
    oracle = float(ops.ms_ssim(x.double(), y.double(), data_range=255))
    contenders = [Contender("medtrust", lambda: ops.ms_ssim(x, y, data_range=255), note="float32")]
    if peer := module("pytorch_msssim"):
        contenders.append(Contender("pytorch-msssim", lambda p=peer: p.ms_ssim(x, y, data_range=255)))
    if peer := module("piq"):
        contenders.append(Contender("piq", lambda p=peer: p.multi_scale_ssim(x, y, data_range=255.0)))
    return compare("MS-SSIM, 512 px", oracle, contenders, rounds)


if __name__ == "__main__":
    main("ssim", lambda rounds: gaussian(rounds) + uniform(rounds) + multi_scale(rounds), rounds=30)
