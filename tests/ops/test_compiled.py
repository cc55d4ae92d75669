"""Every op inside torch.compile(fullgraph=True): one graph, the same values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.ops import copies, discrepancy, neighbours, texture  # noqa: F401 - registers the ops
from medtrust.ops.sampling import placed

REGISTERED = torch.ops.medtrust


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stepped(kind: str):
    schedule = ops.schedule(kind, 4)

    def run(x: Tensor, eps: Tensor) -> Tensor:
        return ops.diffusion_step(kind, x, eps, schedule=schedule, step=1, memory=0.5 * x, seed=3).x

    placed(schedule, torch.device("cpu"))  # the table is copied to its device outside of the graph
    return run


CASES = {
    "ssim": (lambda x, y: ops.ssim(x, y, data_range=2.0), (2, 1, 15, 18)),
    "ms_ssim": (lambda x, y: ops.ms_ssim(x, y, data_range=2.0, weights=(0.4, 0.6)), (2, 1, 25, 31)),
    "ddim": (stepped("ddim"), (2, 1, 5, 7)),
    "ddpm": (stepped("ddpm"), (2, 1, 5, 7)),
    "dpmpp2m_sde": (stepped("dpmpp2m_sde"), (2, 1, 5, 7)),
    "reparameterise": (lambda x, y: ops.reparameterise(x, y, 7), (3, 11)),
    "philox": (lambda x, y: x + ops.philox_normal(y.shape, 7), (3, 11)),
    "radiomics": (lambda x, y: REGISTERED.radiomics(x + y, None, [-9.0, 8.0, 18.0], 8, False, "glcm")[0], (2, 1, 9, 8)),
    "nearest": (lambda x, y: REGISTERED.nearest(x, y, 2, None, None)[0], (7, 5)),
    "balls": (lambda x, y: REGISTERED.balls(x, y, x[:, 0].double() ** 2, y[:, 0].double() ** 2, False)[0], (7, 5)),
    "kernel_sums": (lambda x, y: REGISTERED.kernel_sums(x, y, "poly3", 0.2), (7, 5)),
    "max_ncc": (lambda x, y: REGISTERED.max_ncc(x, y, 1), (2, 1, 9, 8)),
    "tile_l2": (lambda x, y: REGISTERED.tile_l2(x, y, 4), (2, 1, 9, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_one_graph_with_the_same_values(name):
    """The op compiles without a graph break and gives what it gives uncompiled, twice, so that the guards hold."""
    run, shape = CASES[name]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for seed in (1, 2):
        x, y = random(shape, seed), random(shape, seed + 10)
        torch.testing.assert_close(compiled(x, y), run(x, y), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "reparameterise"])
def test_gradients_survive(name):
    """Where an op has a gradient, the compiled one has the same."""
    run, shape = CASES[name]
    found = []
    for call in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        x, y = random(shape, 3).requires_grad_(), random(shape, 4).requires_grad_()
        found.append(torch.autograd.grad(call(x, y).sum(), (x, y)))
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-9)


def test_every_registered_op_is_here():
    """An op that is registered later must be added to the cases."""
    names = {name.partition("::")[2].partition(".")[0] for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("medtrust::")}  # fmt: skip
    covered = {"ssim", "diffusion_step", "reparameterise", "philox", "radiomics", "nearest", "balls", "kernel_sums"}
    covered |= {"max_ncc", "tile_l2", "ssim_gradient"}
    assert names - covered <= {"diffusion_step_"}, "its in-place form is checked by opcheck"
