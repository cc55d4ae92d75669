"""The sampling loop is its rows one after the other, whatever the batch, and refuses what it cannot capture."""

from __future__ import annotations

import pytest
import torch

from medtrust import ops
from medtrust.errors import DataError

SHAPE = (3, 2, 5, 7)
KINDS = ["ddpm", "ddim", "dpmpp2m", "dpmpp2m_sde", "euler", "heun", "flow_euler", "flow_heun"]


def network(x: torch.Tensor, row: int) -> torch.Tensor:
    return torch.sin(2 * x + 0.1 * row) * 0.6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clamp", [None, (-1.0, 1.0)])
def test_the_loop_is_its_rows(kind, clamp):
    """Bit for bit what stepping by hand gives, and the noise it starts from is left as it was."""
    schedule = ops.schedule(kind, 6)
    start = ops.start_noise(schedule, SHAPE, 5, 2, "cpu")
    assert torch.equal(start, ops.philox_normal(SHAPE, 5, first=2) * schedule.init_scale)
    kept = start.clone()
    made = ops.sampling_loop(network, schedule, start, seed=9, first=2, clamp=clamp)
    assert torch.equal(start, kept)
    x, memory = start, None
    for row, factor in enumerate(schedule.input_scale):
        output = network(x * float(factor) if factor != 1 else x, row)
        x, memory = ops.diffusion_step(
            kind, x, output, schedule=schedule, step=row, memory=memory, seed=9, first=2, clamp=clamp
        )
    assert torch.equal(made, x)
    assert bool(made.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_is_one_call_with_both_halves(kind):
    """A guided loop calls the network once per row with x twice and mixes its answers."""
    schedule = ops.schedule(kind, 4)
    start = ops.start_noise(schedule, SHAPE, 1, 0, "cpu")
    sizes = []

    def halves(x, row):
        sizes.append(len(x))
        asked, free = x.chunk(2)
        assert torch.equal(asked, free)
        return torch.cat([network(asked, row), 0.5 * network(free, row)])

    guided = ops.sampling_loop(halves, schedule, start, seed=3, scale=2.0)
    assert sizes == [2 * SHAPE[0]] * len(schedule)
    mixed = ops.sampling_loop(lambda x, row: 1.5 * network(x, row), schedule, start, seed=3)
    assert torch.allclose(guided, mixed, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_continue_one_series(kind):
    """Samples 2 … 4 of a batch of five are the batch of three that starts at 2, noise on the way included."""
    schedule = ops.schedule(kind, 5)
    whole = ops.sampling_loop(network, schedule, ops.start_noise(schedule, (5, 2, 4, 4), 7, 0, "cpu"), seed=7)
    part = ops.sampling_loop(network, schedule, ops.start_noise(schedule, (3, 2, 4, 4), 7, 2, "cpu"), seed=7, first=2)
    assert torch.equal(part, whole[2:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_in_memory_changes_no_bit(kind, scale, dtype):
    """A network that answers channels_last, with gaps, or by turns gets the images of one that answers contiguously."""
    schedule = ops.schedule(kind, 5)

    def last(answer, row):
        return answer.contiguous(memory_format=torch.channels_last)

    def gaps(answer, row):
        return torch.stack([answer, answer], -1)[..., 0]

    def turns(answer, row):
        return (last if row % 2 else gaps)(answer, row)

    for shape in (SHAPE, (1, 2, 5, 7), (3, 1, 5, 7), (2, 3, 1, 1)):
        start = ops.start_noise(schedule, shape, 5, 0, "cpu")
        plain, *others = (
            ops.sampling_loop(
                lambda x, row, lay=lay: lay(network(x.contiguous(), row).to(dtype), row),
                schedule,
                start,
                seed=3,
                scale=scale,
            )
            for lay in (lambda answer, row: answer, last, gaps, turns)
        )
        assert all(torch.equal(plain, other) for other in others)


def test_what_a_network_answers_is_checked():
    """Another shape or dtype is refused with a sentence, as are noise without a seed and a falling clamp."""
    schedule, start = ops.schedule("ddim", 3), ops.philox_normal(SHAPE, 1)
    with pytest.raises(DataError, match=r"answered \[3, 2, 5\] on cpu to \[3, 2, 5, 7\]"):
        ops.sampling_loop(lambda x, row: x[..., 0], schedule, start)
    with pytest.raises(DataError, match="float32, float16 or bfloat16"):
        ops.sampling_loop(lambda x, row: x.double(), schedule, start)
    with pytest.raises(DataError, match="give seed"):
        ops.sampling_loop(network, ops.schedule("ddpm", 3), start)
    with pytest.raises(DataError, match="rising pair"):
        ops.sampling_loop(network, schedule, start, clamp=(1.0, -1.0))


def test_an_empty_batch_and_one_image():
    """No images give no images; one is one."""
    schedule = ops.schedule("ddim", 3)
    for n in (0, 1):
        start = ops.start_noise(schedule, (n, 1, 3, 3), 0, 0, "cpu")
        assert ops.sampling_loop(network, schedule, start).shape == (n, 1, 3, 3)


def test_what_cannot_be_captured_is_said():
    """A CPU has no graphs, and a graph would repeat the noise of a schedule that draws some."""
    with pytest.raises(DataError, match="cpu has no CUDA graphs"):
        ops.SamplingGraph(network, ops.schedule("ddim", 3), SHAPE, "cpu")
    with pytest.raises(DataError, match="ddpm draws noise on the way"):
        ops.SamplingGraph(network, ops.schedule("ddpm", 3), SHAPE, "cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["ddim", "dpmpp2m", "euler", "heun", "flow_euler", "flow_heun"])
def test_a_graph_gives_the_loop(kind):
    """One launch gives the bits of the loop, for each batch of noise."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU is available")
    schedule = ops.schedule(kind, 5)
    graph = ops.SamplingGraph(network, schedule, SHAPE, "cuda")
    for seed in (1, 2):
        start = ops.start_noise(schedule, SHAPE, seed, 0, "cuda")
        assert torch.equal(graph(start), ops.sampling_loop(network, schedule, start))
