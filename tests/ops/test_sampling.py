"""ops.diffusion_step against its float64 twin, in every form it can be called."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import DataError, NativeError
from medtrust.ops import _native
from medtrust.ops import reference_sampling as twin
from medtrust.ops.sampling import placed
from medtrust.ops.schedules import KINDS, Schedule

SHAPES = [(1, 1), (2, 3), (3, 1, 5, 7), (2, 3, 33, 31), (1, 1, 1, 2049)]


def random(shape: tuple[int, ...], seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def expected(
    schedule: Schedule, row: int, x: Tensor, eps: Tensor, memory=None, uncond=None, scale=1.0, clamp=None, **place
) -> tuple[Tensor, Tensor]:
    """The twin's next x and clean image; place: seed and first."""
    table = torch.from_numpy(schedule.table).float()[row]
    noise = None
    if schedule.adds_noise(row):
        offset = place.get("first", 0) * math.prod(x.shape[1:])
        noise = twin.normals(x.numel(), place["seed"], row + 1, offset, x.device).reshape(x.shape)
    memory = memory if schedule.reads_memory(row) else None
    return twin.diffusion_step(x, eps, uncond, memory, table, noise, scale, clamp or (-math.inf, math.inf))


def magnitudes(schedule: Schedule, row: int, x: Tensor, eps: Tensor, memory, uncond, scale) -> tuple[Tensor, Tensor]:
    """Sums of the absolute terms of the next x and of the clean image: what float32 rounding is relative to."""
    kx, km, cx, cc, cm, cn = np.abs(schedule.table[row])
    output = eps.abs().double() if uncond is None else uncond.abs() + scale * (eps.abs() + uncond.abs()).double()
    clean = kx * x.abs() + km * output
    return cx * x.abs() + cc * clean + (cm * memory.abs() if cm else 0) + 7 * cn, clean


def close(got: Tensor, exact: Tensor, magnitude: Tensor | float) -> None:
    """Within 8 float32 roundings of the sum of the absolute terms."""
    assert got.shape == exact.shape
    assert bool(((got.double() - exact).abs() <= 8 * 2.0**-24 * magnitude).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("guided", "clamp"), [(False, None), (False, (-1.5, 1.5)), (True, None), (True, (-1.5, 1.5))])
def test_every_row_equals_the_twin(kind, shape, guided, clamp):
    """Each row of each sampler gives the float64 value, with its memory and noise, from the middle of a sequence."""
    schedule = ops.schedule(kind, 5, **({"eta": 0.7} if kind == "ddim" else {}))
    x, memory = random(shape, 1, schedule.init_scale), None
    for row in range(len(schedule)):
        eps, uncond = random(shape, 10 + row), random(shape, 50 + row) if guided else None
        options = {"memory": memory, "clamp": clamp, "scale": 4.0 if guided else 1.0, "seed": 3, "first": 5}
        exact, clean = expected(schedule, row, x, eps, uncond=uncond, **options)
        old, before = x, memory
        x, memory = ops.diffusion_step(kind, x, eps, schedule=schedule, step=row, eps_uncond=uncond, **options)
        of_next, of_clean = magnitudes(schedule, row, old, eps, before, uncond, options["scale"])
        close(x, exact, of_next)
        if memory is not None and schedule.remembers == "x0":
            close(memory, clean, of_clean)
        if memory is not None and schedule.remembers == "x":
            assert torch.equal(memory, old)
        assert (memory is None) == (not schedule.reads_memory(row + 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs(dtype):
    """Half-precision model outputs give what their float32 values give, subnormals and infinities included."""
    schedule = ops.schedule("ddim", 4)
    eps = random((3, 1, 21, 5), 1)
    eps.view(-1)[:8] = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 3e-5, 65504.0, float("inf"), -float("inf")])
    eps = eps.to(dtype)
    uncond, x = random(eps.shape, 2).to(dtype), random(eps.shape, 3)
    options = {"schedule": schedule, "step": 1, "scale": 2.0}
    got = ops.diffusion_step("ddim", x, eps, eps_uncond=uncond, **options).x
    wide = ops.diffusion_step("ddim", x, eps.float(), eps_uncond=uncond.float(), **options).x
    assert torch.equal(got, wide)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_split_changes_no_bit(kind):
    """A trajectory has the same bits in one batch and in three."""
    schedule = ops.schedule(kind, 4, **({"eta": 1.0} if kind == "ddim" else {}))

    def trajectory(first: int, count: int) -> Tensor:
        shape = (count, 1, 5, 7)
        x, memory = ops.philox_normal(shape, 11, first=first) * schedule.init_scale, None
        for row in range(len(schedule)):
            eps = torch.sin(3 * x)  # elementwise, so that the split shows in the step alone
            x, memory = ops.diffusion_step(
                kind, x, eps, schedule=schedule, step=row, memory=memory, seed=11, first=first
            )
        return x

    assert torch.equal(trajectory(0, 9), torch.cat([trajectory(0, 2), trajectory(2, 3), trajectory(5, 4)]))


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_and_counted_steps(kind):
    """In place, and with the row in a tensor as a CUDA graph counts it, the bits are the same."""
    schedule = ops.schedule(kind, 4)
    shape = (2, 1, 33, 35)
    x, memory = random(shape, 1, schedule.init_scale), None
    here, kept, counter = x.clone(), None, torch.zeros((), dtype=torch.int64)
    counted, buffer = x.clone(), torch.full(shape, float("nan"))
    for row in range(len(schedule)):
        eps = random(shape, 20 + row)
        x, memory = ops.diffusion_step(kind, x, eps, schedule=schedule, step=row, memory=memory, seed=5)
        following, kept = ops.diffusion_step(
            kind, here, eps, schedule=schedule, step=row, memory=kept, seed=5, inplace=True
        )
        assert following is here
        ops.diffusion_step(kind, counted, eps, schedule=schedule, step=counter, memory=buffer, seed=5, inplace=True)
        counter += 1
        assert torch.equal(x, here)
        assert torch.equal(x, counted)


def test_strided_and_empty_images():
    """Strided images and outputs are read as they lie, and an empty batch stays empty."""
    schedule = ops.schedule("dpmpp2m", 3)
    x, eps, memory = (random((3, 9, 4, 2), s).permute(0, 2, 3, 1) for s in (1, 2, 3))
    got = ops.diffusion_step("dpmpp2m", x, eps, schedule=schedule, step=1, memory=memory)
    plain = ops.diffusion_step(
        "dpmpp2m", x.contiguous(), eps.contiguous(), schedule=schedule, step=1, memory=memory.contiguous()
    )
    assert torch.equal(got.x, plain.x)
    empty = torch.zeros(0, 3, 4)
    got = ops.diffusion_step("dpmpp2m", empty, empty, schedule=schedule, step=0)
    assert got.x.shape == (0, 3, 4)
    assert got.memory is not None
    assert got.memory.shape == (0, 3, 4)


def test_quantised_images():
    """uint8 images are the float images rounded to the nearest level of the declared range, clipped at its ends."""
    schedule = ops.schedule("ddim", 3)
    x, eps = random((2, 3, 31, 37), 1), random((2, 3, 31, 37), 2)
    image = ops.diffusion_step("ddim", x, eps, schedule=schedule, step=2).x
    levels = ops.diffusion_step("ddim", x, eps, schedule=schedule, step=2, quantise=(-1.0, 1.5)).x
    assert levels.dtype == torch.uint8
    exact = (image.double() + 1) * (255 / 2.5)
    assert int(levels.min()) == 0
    assert int(levels.max()) == 255
    away = (exact - exact.floor() - 0.5).abs() > 1e-4  # from a tie
    assert torch.equal(levels[away].double(), (exact.clamp(0, 255) + 0.5).floor()[away])


def test_nan_is_not_quantised():
    """A NaN passes through float images and is an error for uint8 images."""
    schedule = ops.schedule("ddim", 3)
    x, eps = random((1, 1, 5, 5), 1), random((1, 1, 5, 5), 2)
    eps[0, 0, 4, 4] = float("nan")
    image = ops.diffusion_step("ddim", x, eps, schedule=schedule, step=1, clamp=(-1, 1)).x
    assert int(image.isnan().sum()) == 1
    with pytest.raises(DataError, match="NaN reached the images"):
        ops.diffusion_step("ddim", x, eps, schedule=schedule, step=1, clamp=(-1, 1), quantise=(-1, 1))


def test_guidance_moves_between_the_outputs():
    """Scale 0 is the unconditional output and scale 1 the conditional one."""
    schedule = ops.schedule("flow_euler", 3)
    x, eps, uncond = (random((1, 2, 9, 9), s) for s in (1, 2, 3))

    def step(output, **options) -> Tensor:
        return ops.diffusion_step("flow_euler", x, output, schedule=schedule, step=0, **options).x

    torch.testing.assert_close(step(eps, eps_uncond=uncond, scale=0.0), step(uncond))
    torch.testing.assert_close(step(eps, eps_uncond=uncond, scale=1.0), step(eps))


IMAGES = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("ddpm", {}, "draws noise at step 0; give seed"),
        ("ddpm", {"seed": -1}, "seed is -1"),
        ("ddim", {"step": 4}, "rows 0..3"),
        ("ddim", {"step": -1}, "rows 0..3"),
        ("ddim", {"step": torch.zeros(2, dtype=torch.int64)}, "one int64 number"),
        ("dpmpp2m", {"step": 1}, "needs the memory that step 0 returned"),
        ("ddim", {"scale": 2.0}, "without eps_uncond"),
        ("ddim", {"clamp": (1, -1)}, "rising pair"),
        ("ddim", {"quantise": (1, 1)}, "rising pair"),
        ("ddim", {"quantise": (0, 1), "inplace": True}, "not in place"),
        ("ddim", {"x": IMAGES.double()}, "x is torch.float64; convert it to torch.float32"),
        ("ddim", {"eps": IMAGES[:1]}, "eps is .* give all the same shape"),
        ("ddim", {"eps": IMAGES.int()}, "eps is torch.int32"),
        ("ddim", {"eps_uncond": IMAGES.half()}, "bring both to one"),
        ("ddim", {"x": IMAGES.to_sparse()}, "strided"),
        ("ddim", {"kind": "ddpm"}, "the schedule was made for 'ddim'"),
        ("ddim", {"kind": "nothing"}, "kind is 'nothing'"),
    ],
)
def test_refusals(kind, change, words):
    """What does not fit is refused with a sentence that says what to do."""
    arguments = {"kind": kind, "x": IMAGES, "eps": IMAGES, "schedule": ops.schedule(kind, 4), "step": 0} | change
    with pytest.raises(DataError, match=words):
        ops.diffusion_step(arguments.pop("kind"), arguments.pop("x"), arguments.pop("eps"), **arguments)


@pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")
def test_counter_off_the_table_is_refused():
    """A counter beyond the schedule is an error on the CPU, not an image."""
    schedule = ops.schedule("ddim", 4)
    with pytest.raises(NativeError, match="row 4 of a schedule with 4"):
        ops.diffusion_step("ddim", IMAGES, IMAGES, schedule=schedule, step=torch.tensor(4))


def test_in_place_needs_contiguous_images():
    """A strided x cannot be written in place and is not silently copied."""
    schedule = ops.schedule("ddim", 4)
    x = torch.zeros(2, 4, 3).transpose(1, 2)
    with pytest.raises(DataError, match="x is not contiguous"):
        ops.diffusion_step("ddim", x, x.clone(), schedule=schedule, step=0, inplace=True)


def test_registered_ops_are_sound():
    """torch's own checks of schema, fake tensor and mutation pass."""
    schedule = ops.schedule("dpmpp2m_sde", 3)
    (table, _), row = placed(schedule, torch.device("cpu")), torch.tensor(1)
    x, memory, eps, uncond = (random((2, 1, 5, 3), s) for s in range(4))
    for levels in ([0.0, 0.0], [-1.0, 1.0]):
        fixed = (eps, uncond, table, row, [2.0, -1.0, 1.0, *levels], 7, 3)
        torch.library.opcheck(torch.ops.medtrust.diffusion_step, (x, memory, *fixed, 1))
    torch.library.opcheck(
        torch.ops.medtrust.diffusion_step, (x, None, eps, None, table, row * 0, [1, -1, 1, 0, 0], 7, 3, 0)
    )
    fixed = (eps, uncond, table, row, [2.0, -1.0, 1.0, 0.0, 0.0], 7, 3)
    torch.library.opcheck(torch.ops.medtrust.diffusion_step_, (x, memory, *fixed, 1))


@pytest.mark.parametrize("kind", ["heun", "dpmpp2m_sde"])
def test_twin_serves_without_the_extension(monkeypatch, kind):
    """Without the extension the values stay, in place and quantised too, and one warning says why."""
    schedule = ops.schedule(kind, 3)
    shape = (2, 1, 6, 5)

    def run(inplace: bool) -> list[Tensor]:
        x, memory, seen = random(shape, 1, schedule.init_scale), None, []
        for row in range(len(schedule)):
            last = row == len(schedule) - 1
            x, memory = ops.diffusion_step(
                kind,
                x,
                random(shape, 9 + row),
                schedule=schedule,
                step=row,
                memory=memory,
                seed=2,
                inplace=inplace,
                quantise=(-2, 2) if last and not inplace else None,
            )
            seen.append(x.clone())
        return seen

    native = [run(False), run(True)]
    monkeypatch.setattr(_native, "extension", None)
    monkeypatch.setattr(_native, "absence", "it was not built")
    monkeypatch.setattr(_native, "_warned", set())
    with pytest.warns(RuntimeWarning, match="ops.diffusion_step runs on its float64 torch twin.*not built"):
        got = [run(False), run(True)]
    for ours, theirs in zip(itertools.chain(*native), itertools.chain(*got), strict=True):
        if ours.dtype == torch.uint8:
            assert int((ours.int() - theirs.int()).abs().max()) <= 1
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
