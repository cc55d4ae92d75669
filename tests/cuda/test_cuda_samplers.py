"""Noise, latents and sampler steps on a device have the CPU kernels' bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medtrust import ops

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize(("shape", "first"), [((1, 1), 0), ((0, 7), 0), ((3, 7), 1), ((5, 3, 64, 65), 2)])
def test_noise(on_side_stream, shape, first):
    """Uniforms and normals equal the CPU's, from any first sample on."""
    for draw in (ops.philox_uniform, ops.philox_normal):
        got = on_side_stream(lambda d=draw: d(shape, 77, 5, "cuda", first=first))
        assert torch.equal(got.cpu(), draw(shape, 77, 5, first=first))


def test_reparameterise(on_side_stream):
    """Latents equal the CPU's, strided means too."""
    mu, logvar = ops.philox_normal((9, 4, 31), 1), ops.philox_normal((9, 4, 31), 2)
    expected = ops.reparameterise(mu, logvar, 7, 3, first=2)
    device = mu.cuda().transpose(1, 2).contiguous().transpose(1, 2), logvar.cuda()
    assert torch.equal(on_side_stream(lambda: ops.reparameterise(*device, 7, 3, first=2)).cpu(), expected)


@pytest.mark.parametrize("kind", ["ddim", "ddpm", "dpmpp2m_sde", "heun"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1, 7, 5), (4, 3, 64, 64)])
def test_step(on_side_stream, kind, dtype, shape):
    """Every row of a schedule equals the CPU's bits: guidance, clamp, memory, noise and uint8."""
    schedule = ops.schedule(kind, 4)
    x, memory = ops.philox_normal(shape, 1) * schedule.init_scale, ops.philox_normal(shape, 2)
    eps, uncond = (ops.philox_normal(shape, seed).to(dtype) for seed in (3, 4))
    options = {"schedule": schedule, "scale": 2.5, "clamp": (-1.0, 1.0), "seed": 9, "first": 1}
    for row in range(len(schedule)):
        for quantise in (None, (-1, 1)):

            def step(place: str, row: int = row, quantise: tuple[int, int] | None = quantise) -> Any:
                a, b, c, d = (t.to(place) for t in (x, eps, uncond, memory))
                return ops.diffusion_step(kind, a, b, eps_uncond=c, memory=d, step=row, quantise=quantise, **options)

            expected, got = step("cpu"), on_side_stream(lambda step=step: step("cuda"))
            assert torch.equal(got.x.cpu(), expected.x)
            assert (got.memory is None) == (expected.memory is None)
            if expected.memory is not None:
                assert torch.equal(got.memory.cpu(), expected.memory)


def test_captured_loop():
    """A captured graph that counts its own row gives the loop's bits."""
    schedule = ops.schedule("ddpm", 5)
    start, eps = (
        ops.philox_normal((2, 3, 16, 17), 1, device="cuda"),
        ops.philox_normal((2, 3, 16, 17), 2, device="cuda"),
    )
    expected = start
    for row in range(len(schedule)):
        expected = ops.diffusion_step("ddpm", expected, eps, schedule=schedule, step=row, seed=3).x
    x, row = start.clone(), torch.zeros((), dtype=torch.int64, device="cuda")

    def step() -> None:
        ops.diffusion_step("ddpm", x, eps, schedule=schedule, step=row, seed=3, inplace=True)
        row.add_(1)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    x.copy_(start)
    row.zero_()
    for _ in range(len(schedule)):
        graph.replay()
    assert torch.equal(x, expected)
