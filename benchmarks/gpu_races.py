"""The ops and their peers on one device: cases, inputs and the float64 value that errors are measured from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import reference
from peers import Contender, module


@dataclass(frozen=True)
class Race:
    """A case: its float64 value, and who computes it, ours first."""

    case: str
    oracle: float
    contenders: list[Contender]


def mean(values: Tensor) -> float:
    return float(values.double().mean())


def features(n: int, d: int, seed: int, device: str) -> Tensor:
    """Rows with the decaying spectrum and the positive offset of network features, `[n, d]` float32."""
    scale = torch.arange(1, d + 1, dtype=torch.float32, device=device) ** -0.5
    return 0.4 + ops.philox_normal((n, d), seed, device=device) * scale


def both_precisions(name: str, run: Callable[[], Any], value: Callable[[Any], float]) -> list[Contender]:
    """A peer with float32 products in full and in TF32."""

    def with_tf32() -> Any:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return run()
        finally:
            torch.set_float32_matmul_precision(before)

    return [Contender(name, run, value, "float32"), Contender(name, with_tf32, value, "TF32")]


def structural(device: str, small: bool) -> list[Race]:
    """SSIM and MS-SSIM of 16 images of 512 x 512 in 8-bit range."""
    shape = (1, 1, 192, 192) if small else (16, 1, 512, 512)
    x = (128 + 40 * ops.philox_normal(shape, 1, device=device)).round().clamp(0, 255)
    y = (x + 16 * ops.philox_normal(shape, 2, device=device)).round().clamp(0, 255)
    size = f"{shape[0]} x {shape[2]} px"
    single = [Contender("medtrust", lambda: ops.ssim(x, y, data_range=255), mean, "float32")]
    mirrored = [
        Contender("medtrust", lambda: ops.ssim(x, y, data_range=255, convention="torchmetrics"), mean, "float32")
    ]
    multi = [Contender("medtrust", lambda: ops.ms_ssim(x, y, data_range=255), mean, "float32")]
    if peer := module("pytorch_msssim"):
        single.append(Contender("pytorch-msssim", lambda: peer.ssim(x, y, data_range=255), mean))
        multi.append(Contender("pytorch-msssim", lambda: peer.ms_ssim(x, y, data_range=255), mean))
    if fussim := module("fussim"):
        if device == "cpu":
            print("left out: fussim needs a CUDA device")
        else:
            unit = x / 255, y / 255  # it takes images of range 1
            single.append(Contender("fussim", lambda: fussim.fused_ssim(*unit, padding="valid", train=False), mean))
    if metrics := module("torchmetrics.functional.image"):
        mirrored.append(
            Contender("torchmetrics", lambda: metrics.structural_similarity_index_measure(x, y, data_range=255.0), mean)
        )
    a, b = x.double(), y.double()
    return [
        Race(f"SSIM Gauss 11, {size}", mean(ops.ssim(a, b, data_range=255)), single),
        Race(
            f"SSIM Gauss 11 mirrored, {size}",
            mean(ops.ssim(a, b, data_range=255, convention="torchmetrics")),
            mirrored,
        ),
        Race(f"MS-SSIM, {size}", mean(ops.ms_ssim(a, b, data_range=255)), multi),
    ]


def sampling(device: str, small: bool) -> list[Race]:
    """A step of DDIM with guidance, and a latent of a VAE; the value is one pixel that all must agree on."""
    shape = (2, 3, 16, 16) if small else (64, 3, 256, 256)
    x, eps, uncond = (ops.philox_normal(shape, seed, device=device) for seed in (1, 2, 3))
    schedule, row, scale = ops.schedule("ddim", 20), 10, 7.5
    scratch = x.clone()
    options: dict[str, Any] = {"schedule": schedule, "step": row, "eps_uncond": uncond, "scale": scale}

    def pixel(images: Tensor) -> float:
        return float(images.flatten()[77])

    def in_place(images: Tensor = scratch) -> Tensor:
        return ops.diffusion_step("ddim", images, eps, inplace=True, **options).x

    kx, km, cx, cc, _, _ = (float(number) for number in schedule.table[row])
    output = float(uncond.flatten()[77]) + scale * (float(eps.flatten()[77]) - float(uncond.flatten()[77]))
    start = float(x.flatten()[77])
    oracle = cx * start + cc * (kx * start + km * output)
    steps = [
        Contender("medtrust", lambda: ops.diffusion_step("ddim", x, eps, **options).x, pixel),
        Contender("medtrust", in_place, lambda _: pixel(in_place(x.clone())), "in place"),
    ]
    if diffusers := module("diffusers"):
        scheduler = diffusers.DDIMScheduler(clip_sample=False)
        scheduler.set_timesteps(20)

        def theirs() -> Tensor:
            guided = uncond + scale * (eps - uncond)
            return scheduler.step(guided, int(scheduler.timesteps[row]), x).prev_sample  # type: ignore[no-any-return]

        steps.append(Contender("diffusers", theirs, pixel))
    noise = ops.philox_normal(shape, 7, device=device)
    latent = float(x.flatten()[77]) + 2.718281828459045 ** (float(eps.flatten()[77]) / 2) * float(noise.flatten()[77])
    latents = [
        Contender("medtrust", lambda: ops.reparameterise(x, eps, 7), pixel),
        Contender(
            "torch",
            lambda: x + torch.exp(0.5 * eps) * torch.randn_like(x),
            lambda _: pixel(x + torch.exp(0.5 * eps) * noise),
        ),
    ]
    size = " x ".join(map(str, shape))
    return [Race(f"DDIM + guidance, {size}", oracle, steps), Race(f"VAE latent, {size}", latent, latents)]


def neighbours(device: str, small: bool) -> list[Race]:
    """The 5 nearest, and precision, recall, density and coverage."""
    n, m, d = (40, 300, 64) if small else (10000, 100000, 2048)
    queries, points = features(n, d, 1, device), features(m, d, 2, device)
    part = min(n, 100)
    oracle = mean(reference.nearest(queries[:part], points, 5, None, None)[0][:, 4].sqrt())
    contenders = [
        Contender("medtrust", lambda: ops.nearest(queries, points, 5), lambda r: mean(r.distances[:part, 4]), "exact")
    ]

    def expanded() -> Tensor:
        parts = [torch.cdist(q, points).topk(5, largest=False).values for q in queries.split(4096)]
        return torch.cat(parts)

    contenders += both_precisions("torch.cdist + topk", expanded, lambda r: mean(r[:part, 4]))
    if device != "cpu" and (cuvs := module("cuvs.neighbors.brute_force")):
        index = cuvs.build(points, metric="sqeuclidean")
        contenders.append(
            Contender(
                "cuVS",
                lambda: torch.as_tensor(cuvs.search(index, queries, 5)[0], device=device),
                lambda r: mean(r[:part, 4].double().clamp_min(0).sqrt()),
                "float32, expanded, index built before",
            )
        )
    races = [Race(f"nearest 5, {n} x {m}, d={d}", oracle, contenders)]
    count = 150 if small else 10000
    real, fake = features(count, d, 3, device), 1.02 * features(count, d, 4, device)
    radii = [reference.nearest(rows, rows, 6, None, None)[0][:, 5].contiguous() for rows in (fake, real)]
    density = mean(reference.balls(fake, real, *radii, False)[0]) / 5

    def by_cdist() -> float:
        own = torch.cdist(real, real).kthvalue(6).values
        return float((torch.cdist(fake, real) < own).sum(1).double().mean()) / 5

    run = [Contender("medtrust", lambda: ops.prdc(real, fake), lambda r: r.density)]
    run += both_precisions("torch.cdist (n x n memory, density alone)", by_cdist, float)
    return [*races, Race(f"PRDC, {count} + {count}, d={d}", density, run)]


def distances(device: str, small: bool) -> list[Race]:
    """One KID subset, and a covariance from batches."""
    n, d = (70, 64) if small else (1000, 2048)
    real, fake = features(n, d, 5, device), features(n, d, 6, device) + 0.01

    def twin(real: Tensor, fake: Tensor) -> float:
        a, b, c = reference.kernel_sums(real, fake, "poly3", 1 / d).tolist()
        return float((a + b) / (n * (n - 1)) - 2 * c / n**2)

    oracle = twin(real, fake)
    kid = [
        Contender("medtrust", lambda: ops.mmd(real, fake), float, "float64 inside"),
        Contender("torch GEMM", lambda: twin(real, fake), float, "float64, the twin"),
    ]
    if peer := module("torchmetrics.image.kid"):
        kid += both_precisions("torchmetrics", lambda: peer.poly_mmd(real, fake), float)
    rows = features(500 if small else 50000, d, 7, device)

    def ours() -> Tensor:
        stream = ops.Moments(d)
        for batch in rows.split(64):
            stream.update(batch)
        return stream.cov

    def per_batch() -> Tensor:  # what torchmetrics' FrechetInceptionDistance does with each batch
        total = torch.zeros(d, dtype=torch.float64, device=device)
        outer = torch.zeros((d, d), dtype=torch.float64, device=device)
        for batch in rows.split(64):
            exact = batch.double()
            total += exact.sum(0)
            outer += exact.T @ exact
        centre = total / len(rows)
        return (outer - len(rows) * torch.outer(centre, centre)) / (len(rows) - 1)

    trace = float(rows.double().var(0).sum())
    moments = [
        Contender("medtrust", ours, lambda r: float(r.trace())),
        Contender("float64 sums per batch", per_batch, lambda r: float(r.trace()), "torchmetrics' way"),
    ]
    return [
        Race(f"MMD poly3, {n} + {n}, d={d}", oracle, kid),
        Race(f"covariance, {len(rows)} x {d}", trace, moments),
    ]


FAMILIES = (structural, sampling, neighbours, distances)
