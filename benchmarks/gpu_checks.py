"""What every op must meet on the device: the float64 twin, on poisoned memory, a side stream, and odd sizes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import reference, reference_sampling, structural

GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One claim.

    Args:
        name: What is compared.
        error: Computes the largest difference on a device; `small` asks for sizes that a dry run can bear.
        limit: Largest difference allowed.
        memory: Bytes of device memory needed.
    """

    name: str
    error: Callable[[str, bool], float]
    limit: float
    memory: int = GIB


@contextlib.contextmanager
def rough_conditions(device: str) -> Iterator[None]:
    """Fresh memory is poison, and the work runs on a busy stream of its own."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        if device == "cpu":
            yield
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)
            yield
        torch.cuda.synchronize()
    finally:
        torch.use_deterministic_algorithms(before)


def cloud(n: int, d: int, seed: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 + torch.randn((n, d), generator=generator)).to(device)


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference; infinite where one holds a NaN."""
    gap = (a.double() - b.double()).abs()
    return math.inf if bool(gap.isnan().any()) else float(gap.max()) if gap.numel() else 0.0


def of_ssim(device: str, small: bool) -> float:
    worst = 0.0
    for shape in ((2, 3, 43, 141), (1, 1, 11, 11)) if small else ((2, 3, 43, 141), (1, 1, 11, 11), (4, 1, 1023, 769)):
        for centre, spread, data_range in ((1064, 5, 80.0), (128, 40, 255.0)):
            x = centre + spread * ops.philox_normal(shape, 1, device=device)
            y = x + spread * ops.philox_normal(shape, 2, device=device)
            for convention in ("wang", "torchmetrics"):
                got = ops.ssim(x, y, data_range=data_range, convention=convention)
                twin = ops.ssim(x.double(), y.double(), data_range=data_range, convention=convention)
                worst = max(worst, far(got, twin))
    return worst


def of_ms_ssim(device: str, small: bool) -> float:
    x, noise = (100 + 30 * ops.philox_normal((2, 1, 191, 202), seed, device=device) for seed in (1, 2))
    return far(ops.ms_ssim(x, noise, data_range=255), ops.ms_ssim(x.double(), noise.double(), data_range=255))


def of_nearest(device: str, small: bool) -> float:
    queries, points = cloud(33 if small else 5000, 65, 3, device), cloud(301 if small else 40001, 65, 4, device)
    queries[:5] = points[:5] + 1e-6
    got = ops.nearest(queries, points, 5)
    squared, indices = reference.nearest(queries, points, 5, None, None)
    return far(got.distances, squared.sqrt()) if torch.equal(got.indices, indices) else math.inf


def of_prdc(device: str, small: bool) -> float:
    real, fake = cloud(201 if small else 9001, 64, 5, device), 0.9 * cloud(150 if small else 5003, 64, 6, device) + 0.3
    got = ops.prdc(real, fake)
    radii = [reference.nearest(rows, rows, 6, None, None)[0][:, 5].contiguous() for rows in (fake, real)]
    counts, recalled, covered = reference.balls(fake, real, *radii, False)
    means = [(counts > 0), recalled, counts / 5, covered]
    expected = torch.tensor([float(values.double().mean()) for values in means])
    return far(torch.tensor(got)[[0, 1, 2, 3]], expected)


def of_mmd(device: str, small: bool) -> float:
    real, fake = cloud(131, 100 if small else 2048, 7, device), cloud(70, 100 if small else 2048, 8, device)
    worst = 0.0
    for kernel, bandwidth, scale in (("poly3", None, 1 / real.shape[1]), ("rbf", 20.0, 0.5 / 20**2)):
        a, b, c = reference.kernel_sums(real, fake, kernel, scale).tolist()
        n, m = len(real), len(fake)
        # the kernels' values are of the size of the mean one; MMD^2 is a small difference of them
        twin, size = a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m), c / (n * m)
        worst = max(worst, abs(ops.mmd(real, fake, kernel, bandwidth) - twin) / size)
    return worst


def of_moments(device: str, small: bool) -> float:
    rows = cloud(2500, 70, 9, device)
    stream = ops.Moments(70)
    for batch in rows.split(97):
        stream.update(batch)
    return far(stream.cov, torch.cov(rows.double().T))


def of_radiomics(device: str, small: bool) -> float:
    """All 98 features, relative to their size; masks, channels and one plane of a large batch."""
    worst = 0.0
    for side, count, levels in ((37, 3, 16), (64, 2, 256)) if small else ((37, 3, 16), (64, 2, 256), (512, 40, 32)):
        x = 50 + 20 * ops.philox_normal((count, 2, side, side + 3), 3, device=device)
        mask = ops.philox_uniform((count, side, side + 3), 4, device=device) < 0.8
        options = {"lo": 0, "hi": 100, "bins": levels, "dtype": torch.float64}
        got = ops.radiomics(x, mask, **options).values[-1:].cpu()
        twin = ops.radiomics(x[-1:].double().cpu(), mask[-1:].cpu(), **options).values
        worst = max(worst, far(got / (1 + twin.abs()), twin / (1 + twin.abs())))
    return worst


def of_copies(device: str, small: bool) -> float:
    x, y = (ops.philox_normal((3, 2, 21, 18), seed, device=device) for seed in (5, 6))
    correlation = far(ops.max_ncc(x, y, 3), reference.max_ncc(x.double(), y.double(), 3))
    return max(correlation, far(ops.tile_l2(x, y, 8), reference.tile_l2(x.double(), y.double(), 8)))


def of_ssim_gradient(device: str, small: bool) -> float:
    """Of SSIM and MS-SSIM, relative to the largest component."""
    worst = 0.0
    for run, centre in (
        (lambda a, b: ops.ssim(a, b, data_range=80.0), 1064),
        (lambda a, b: ops.ms_ssim(a, b, data_range=80.0, weights=(0.4, 0.6)), 0),  # its 2x2 means round to float32
    ):
        found = []
        for dtype in (torch.float32, torch.float64):
            x = centre + 5 * ops.philox_normal((2, 1, 41, 53), 1, device=device)
            pair = [t.to(dtype).requires_grad_() for t in (x, x + 5 * ops.philox_normal(x.shape, 2, device=device))]
            found.append(torch.autograd.grad(run(*pair).sum(), pair))
        for got, twin in zip(*found, strict=True):
            worst = max(worst, far(got, twin) / float(twin.abs().max()))
    return worst


def of_noise(device: str, small: bool) -> float:
    shape = (3, 5, 77)
    return far(ops.philox_normal(shape, 7, 2, device, first=1).cpu(), ops.philox_normal(shape, 7, 2, first=1))


def of_sampler(device: str, small: bool) -> float:
    worst = 0.0
    for kind in ("ddim", "ddpm", "dpmpp2m_sde", "heun"):
        schedule = ops.schedule(kind, 4)
        x, eps, uncond, memory = (ops.philox_normal((3, 1, 7, 5), seed, device=device) for seed in range(4))
        for row in range(len(schedule)):
            got = ops.diffusion_step(
                kind, x, eps, schedule=schedule, step=row, eps_uncond=uncond, scale=2.5, memory=memory, seed=9
            )
            noise = reference_sampling.normals(x.numel(), 9, row + 1, 0, x.device).reshape(x.shape)
            table = torch.from_numpy(schedule.table)[row, :6].to(device)
            past = memory if schedule.reads_memory(row) else None
            limits = (-torch.inf, torch.inf)
            twin, _ = reference_sampling.diffusion_step(x, eps, uncond, past, table, noise, 2.5, limits)
            worst = max(worst, far(got.x, twin) / max(1.0, float(twin.abs().max())))
    return worst


def of_latents(device: str, small: bool) -> float:
    mu, logvar = (ops.philox_normal((3, 77), seed, device=device) for seed in (1, 2))
    noise = reference_sampling.normals(mu.numel(), 7, 0, 0, mu.device).reshape(mu.shape)
    return far(ops.reparameterise(mu, logvar, 7), mu.double() + torch.exp(logvar.double() / 2) * noise)


def of_huge_noise(device: str, small: bool) -> float:
    """The last elements of more than 2^31 equal those of the same numbers drawn alone."""
    rows = 1000 if small else 2**20 + 1
    whole = ops.philox_normal((rows, 2048), 5, device=device)
    return far(whole[-3:], ops.philox_normal((3, 2048), 5, device=device, first=rows - 3))


def of_huge_images(device: str, small: bool) -> float:
    """The last planes of more than 2^31 pixels equal those planes alone."""
    planes = 3 if small else 2**31 // 1024**2 + 5
    side = 64 if small else 1024
    x = torch.randint(0, 256, (planes, 1, side, side), dtype=torch.uint8, device=device)
    y = x.roll(1, 0)
    whole, last = ops.ssim(x, y, data_range=255), ops.ssim(x[-2:], y[-2:], data_range=255)
    rules = structural.CONVENTIONS["wang"]
    return max(far(whole[-2:], last), far(structural._halved(x, rules)[-2:], structural._halved(x[-2:], rules)))


def of_huge_features(device: str, small: bool) -> float:
    """Neighbours among more than 2^31 numbers: planted copies in the last rows are found at their distance."""
    rows = 500 if small else 2**20 + 77
    points = ops.philox_normal((rows, 2048), 5, device=device)
    queries = points[-5:] + 1e-3
    got = ops.nearest(queries, points, 1)
    expected = (queries.double() - points[-5:].double()).norm(dim=1)
    return far(got.distances[:, 0], expected) if got.indices[:, 0].tolist() == [*range(rows - 5, rows)] else math.inf


CHECKS = [
    Check("ssim against its twin", of_ssim, 2e-6),
    Check("ms_ssim against its twin", of_ms_ssim, 2e-6),
    Check("nearest against its twin", of_nearest, 1e-12, 8 * GIB),
    Check("prdc against its twin", of_prdc, 1e-12, 2 * GIB),
    Check("mmd against its twin, relative", of_mmd, 1e-8),
    Check("Moments against torch.cov", of_moments, 1e-10),
    Check("radiomics against its twin, relative", of_radiomics, 1e-9, 4 * GIB),
    Check("max_ncc and tile_l2 against their twins", of_copies, 1e-10),
    Check("gradients of ssim and ms_ssim against the twin's, relative", of_ssim_gradient, 1e-6),
    Check("philox_normal, device against CPU", of_noise, 0),
    Check("diffusion_step against its twin, relative", of_sampler, 1e-6),
    Check("reparameterise against its twin", of_latents, 1e-5),
    Check("philox_normal beyond 2^31 elements", of_huge_noise, 0, 10 * GIB),
    Check("ssim and halving beyond 2^31 pixels", of_huge_images, 0, 20 * GIB),
    Check("nearest beyond 2^31 numbers", of_huge_features, 1e-12, 16 * GIB),
]
