"""Whatever does not fit is a medtrust error that names the op and the argument, for every op: never a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import DataError


@dataclass(frozen=True)
class Case:
    """An op with tensors that fit.

    Args:
        call: Runs the op on tensors by name.
        shapes: Shape of each tensor, none of which fits when an axis is dropped or a side grows.
        finite: The op refuses a NaN itself; samplers and latents hand it on instead.
    """

    call: Callable[..., object]
    shapes: dict[str, tuple[int, ...]]
    finite: bool = True


LATENT = {"mu": (2, 6), "logvar": (2, 6)}
STEP = {"x": (2, 1, 4, 4), "eps": (2, 1, 4, 4), "eps_uncond": (2, 1, 4, 4), "memory": (2, 1, 4, 4)}
IMAGES = {"x": (2, 1, 24, 26), "y": (2, 1, 24, 26)}
NEIGHBOURS = {"queries": (9, 4), "reference": (8, 4)}
SETS = {"real": (9, 4), "fake": (8, 4)}


def step(x: Tensor, eps: Tensor, eps_uncond: Tensor, memory: Tensor) -> object:
    schedule = ops.schedule("dpmpp2m", 4)
    options = {"eps_uncond": eps_uncond, "memory": memory, "scale": 2.0, "step": 1}
    return ops.diffusion_step("dpmpp2m", x, eps, schedule=schedule, **options)


CASES = {
    "ssim": Case(lambda x, y: ops.ssim(x, y, data_range=1), IMAGES),
    "ms_ssim": Case(lambda x, y: ops.ms_ssim(x, y, data_range=1, weights=(0.5, 0.5)), IMAGES),
    "ssim_map": Case(lambda x, y: ops.ssim_map(x, y, data_range=1), IMAGES),
    "max_ncc": Case(lambda x, y: ops.max_ncc(x, y, 2), IMAGES),
    "tile_l2": Case(lambda x, y: ops.tile_l2(x, y, 8), IMAGES),
    "nearest": Case(lambda queries, reference: ops.nearest(queries, reference, 2), NEIGHBOURS),
    "prdc": Case(lambda real, fake: ops.prdc(real, fake, 2), SETS),
    "mmd": Case(lambda real, fake: ops.mmd(real, fake), SETS),
    "Moments": Case(lambda rows: ops.Moments(4).update(rows), {"rows": (9, 4)}),
    "radiomics": Case(lambda images: ops.radiomics(images, lo=-3, hi=3), {"images": (2, 1, 7, 8)}),
    "reparameterise": Case(lambda mu, logvar: ops.reparameterise(mu, logvar, 1), LATENT, finite=False),
    "diffusion_step": Case(step, STEP, finite=False),
}  # fmt: skip
ARGUMENTS = [(op, name) for op, case in CASES.items() for name in case.shapes]


def tensors(op: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(shape, generator=generator) for name, shape in CASES[op].shapes.items()}


def refused(op: str, name: str, tensor: object) -> str:
    """The sentence with which the op refuses this value of one argument."""
    with pytest.raises(DataError) as caught:
        CASES[op].call(**(tensors(op) | {name: tensor}))
    sentence = str(caught.value)
    assert sentence.startswith(f"ops.{op}: ")
    return sentence


@pytest.mark.parametrize("op", CASES)
def test_what_fits_is_accepted(op):
    """The input that the other tests spoil is good."""
    CASES[op].call(**tensors(op))


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_dtype(op, name, dtype):
    """A dtype without a kernel is refused by its name and the argument's."""
    sentence = refused(op, name, tensors(op)[name].to(dtype))
    assert name in sentence
    assert str(dtype) in sentence or op == "reparameterise"


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_axes(op, name):
    """A tensor with two axes too few or one too many is refused with the shape that was given."""
    good = tensors(op)[name]
    for bad in (good.flatten()[0], good[None, None]):
        sentence = refused(op, name, bad)
        assert str(list(bad.shape)) in sentence
        assert name in sentence


@pytest.mark.parametrize(("op", "name"), [pair for pair in ARGUMENTS if len(CASES[pair[0]].shapes) > 1])
def test_sizes_that_differ(op, name):
    """A last axis unlike that of the other tensors is refused with the sizes."""
    good = tensors(op)[name]
    bad = torch.cat([good, good[..., :1]], -1)
    assert str(bad.shape[-1]) in refused(op, name, bad)


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_device(op, name):
    """A tensor on a device without a kernel, here one without any data, is refused."""
    sentence = refused(op, name, tensors(op)[name].to("meta"))
    assert "meta" in sentence


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_not_a_tensor(op, name):
    """A list or an array is refused before anything reads it."""
    for wrong in (tensors(op)[name].tolist(), tensors(op)[name].numpy()):
        assert name in refused(op, name, wrong)


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_sparse(op, name):
    """A sparse tensor is refused rather than read as if it were dense."""
    assert name in refused(op, name, tensors(op)[name].to_sparse())


@pytest.mark.parametrize(("op", "name"), [pair for pair in ARGUMENTS if CASES[pair[0]].finite])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(op, name, value):
    """A NaN or an infinity is refused, with the row or image that holds it."""
    bad = tensors(op)[name]
    bad.view(-1)[-1] = value
    sentence = refused(op, name, bad)
    assert "NaN or an infinity" in sentence
    assert f" {len(bad) - 1} " in sentence


@pytest.mark.parametrize("op", [op for op in CASES if not CASES[op].finite])
def test_values_that_are_handed_on(op):
    """A NaN stays where it is in a sampler's step or a latent, as in plain torch; its neighbours are untouched."""
    name = next(iter(CASES[op].shapes))
    clean, dirty = tensors(op), tensors(op)
    dirty[name].view(-1)[3] = float("nan")
    results = [CASES[op].call(**given) for given in (clean, dirty)]
    good, bad = ((r if isinstance(r, Tensor) else r[0]).flatten() for r in results)
    assert bad.isnan().nonzero().flatten().tolist() == [3]
    assert torch.equal(good[4:], bad[4:])


@pytest.mark.parametrize("draw", [ops.philox_normal, ops.philox_uniform, ops.truncated_normal])
@pytest.mark.parametrize(
    ("shape", "seed", "options", "word"),
    [
        ((), 1, {}, "shape"),
        ((-1, 2), 1, {}, "shape"),
        ((2,), -1, {}, "seed"),
        ((2,), 2**63, {}, "seed"),
        ((2,), 0.5, {}, "seed"),
        ((2,), 1, {"step": -1}, "step"),
        ((2,), 1, {"first": 2**63 - 1}, "first"),
        ((2,), 1, {"device": "meta"}, "meta"),
    ],
)
def test_noise(draw, shape, seed, options, word):
    """Noise that cannot be placed in the sequence is refused by the argument's name."""
    with pytest.raises(DataError, match=rf"^ops\.\w+: .*{word}"):
        draw(shape, seed, **options)


def test_every_op_is_here():
    """An op that is added later must be added to the cases."""
    noise = {"philox_normal", "philox_uniform", "truncated_normal"}
    loops = {
        "SamplingGraph",
        "sampling_loop",
        "start_noise",
    }  # they call ops that are here
    assert set(ops.__all__) - set(CASES) == noise | loops | {"info", "schedule"}
