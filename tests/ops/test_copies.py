"""ops.max_ncc and ops.tile_l2 against their float64 twins and against what they promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrust import ops
from medtrust.errors import DataError, NativeError
from medtrust.ops import reference

DTYPES = [torch.uint8, torch.uint16, torch.float32, torch.float64]


def images(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = 200 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "radius"), [((1, 1, 1, 1), 0), ((3, 2, 9, 17), 3), ((2, 3, 33, 20), 2)])
def test_max_ncc_equals_twin(shape, radius, dtype):
    """Every size, dtype and radius gives the twin's value, also where the images resemble each other."""
    x, y = images(shape, 1, dtype), images(shape, 2, dtype)
    close = (x.double() + 0.2 * y.double()).clamp(0, 250).to(dtype)
    for other in (y, close):
        got = ops.max_ncc(x, other, radius)
        torch.testing.assert_close(got, reference.max_ncc(x, other, radius), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "tile"), [((1, 1, 1, 1), 3), ((3, 2, 9, 17), 4), ((2, 3, 33, 20), 64), ((2, 1, 8, 8), 1)]
)
def test_tile_l2_equals_twin(shape, tile, dtype):
    """Every size, dtype and tile gives the twin's value, smaller tiles at the border included."""
    x, y = images(shape, 3, dtype), images(shape, 4, dtype)
    torch.testing.assert_close(ops.tile_l2(x, y, tile), reference.tile_l2(x, y, tile), rtol=1e-12, atol=0)


def test_moved_copy_is_found():
    """A copy moved within the radius, brighter and of less contrast, correlates 1; beyond the radius it does not."""
    wide = images((2, 1, 40, 44), 5)
    x, y = wide[:, :, 4:36, 4:36], 17 + 0.4 * wide[:, :, 2:34, 7:39]
    assert ops.max_ncc(x, y, 3).min() > 1 - 1e-9
    assert ops.max_ncc(x, y, 2).max() < 0.5
    assert ops.max_ncc(x, -x, 0).max() < -1 + 1e-9


def test_flat_images_correlate_zero():
    """Flat images and flat parts give 0, not a NaN."""
    flat = torch.full((1, 1, 8, 8), 7.3)
    assert ops.max_ncc(flat, images((1, 1, 8, 8), 6), 2).tolist() == [0.0]
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 0] = 1
    assert ops.max_ncc(edge, edge, 2).tolist() == pytest.approx([1.0])


def test_one_changed_pixel_decides():
    """The distance of the worst tile is that of the one pixel that differs; equal images are at 0."""
    x = images((1, 2, 16, 16), 7)
    y = x.clone()
    assert ops.tile_l2(x, y, 5).tolist() == [0.0]
    y[0, 1, 15, 3] += 8
    assert ops.tile_l2(x, y, 5).tolist() == pytest.approx([8.0], rel=1e-6)


def test_layout_threads_and_batches_change_nothing():
    """Strides, the number of threads and the batch change no bit; an empty batch gives none."""
    x, y = images((5, 3, 12, 13), 8), images((5, 3, 12, 13), 9)
    before = torch.get_num_threads()
    for op, size in ((ops.max_ncc, 2), (ops.tile_l2, 5)):
        whole = op(x, y, size)
        assert torch.equal(op(x.to(memory_format=torch.channels_last), y, size), whole)
        assert torch.equal(torch.cat([op(x[i : i + 1], y[i : i + 1], size) for i in range(5)]), whole)
        try:
            torch.set_num_threads(3)
            assert torch.equal(op(x, y, size), whole)
        finally:
            torch.set_num_threads(before)
        assert op(x[:0], y[:0], size).shape == (0,)


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_every_instruction_set(isa, monkeypatch):
    """Each instruction set that is here gives the twins' values."""
    monkeypatch.setenv("MEDTRUST_CPU", isa)
    try:
        ops.info()
    except NativeError as error:
        pytest.skip(f"cannot be forced here: {error}")
    x, y = images((2, 2, 19, 37), 10), images((2, 2, 19, 37), 11)
    torch.testing.assert_close(ops.max_ncc(x, y, 2), reference.max_ncc(x, y, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(ops.tile_l2(x, y, 6), reference.tile_l2(x, y, 6), rtol=1e-12, atol=0)


def test_refusals():
    """What cannot be compared is refused with a reason."""
    x = images((2, 1, 6, 9), 12)
    with pytest.raises(DataError, match="radius 6 does not fit"):
        ops.max_ncc(x, x, 6)
    with pytest.raises(DataError, match="tile is 0"):
        ops.tile_l2(x, x, 0)
    with pytest.raises(DataError, match="differ in shape"):
        ops.tile_l2(x, x[:1], 2)
    with pytest.raises(DataError, match=r"give \[N, C, H, W\]"):
        ops.max_ncc(x[None], x[None], 1)
    bad = x.clone()
    bad[1, 0, 2, 3] = torch.nan
    with pytest.raises(DataError, match="image 1 holds a NaN"):
        ops.max_ncc(x, bad, 1)


def test_registered_ops_are_sound():
    """torch's own checks of schema and fake tensors pass."""
    x, y = images((2, 1, 5, 6), 13), images((2, 1, 5, 6), 14)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.medtrust.max_ncc, (x, y, 1), test_utils=tests)
    torch.library.opcheck(torch.ops.medtrust.tile_l2, (x, y, 2), test_utils=tests)
