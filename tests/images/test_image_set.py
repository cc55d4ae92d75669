from __future__ import annotations

import json
import threading
import tracemalloc

import numpy as np
import pytest

from medtrust.errors import DataError, PluginError
from medtrust.images import Readers, open_set, write_set
from medtrust.types import FormatSpec, ImageHeader, Intensity

LEVEL = Intensity(0.0, 255.0, "level")


class MemoryReader:
    """Serves arrays that a test put in, and counts what is decoded."""

    def __init__(self, arrays, intensity=LEVEL, wrong=None):
        self.arrays, self.intensity, self.wrong = arrays, intensity, wrong
        self.decoded: list[int] = []
        self.lock = threading.Lock()

    def scan(self, path, limits):
        return [ImageHeader(a.shape, a.dtype.name, i, self.intensity) for i, a in enumerate(self.arrays)]

    def read(self, path, header, limits):
        with self.lock:
            self.decoded.append(header.index)
        if self.wrong is not None:
            return self.wrong(self.arrays[header.index])
        return self.arrays[header.index]


def opened(tmp_path, arrays, name="train", **options):
    reader = MemoryReader(arrays, **options)
    spec = FormatSpec(name="memory", version="1", factory="m:R", suffixes=(".mem",))
    (tmp_path / "x.mem").write_bytes(b"x")
    return open_set(tmp_path / "x.mem", name, Readers([(spec, lambda: reader)])), reader


@pytest.fixture
def arrays(rng):
    return [rng.integers(0, 256, (1, 4, 6), dtype=np.uint8) for _ in range(53)]


def test_opening_decodes_nothing_and_indexing_decodes_one(tmp_path, arrays):
    """A set is lazy."""
    images, reader = opened(tmp_path, arrays)
    assert reader.decoded == []
    np.testing.assert_array_equal(images[-1].pixels, arrays[-1])
    assert reader.decoded == [52]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 7, 53, 100])
def test_batches_come_in_order_whatever_the_workers(tmp_path, arrays, size, workers):
    """Parallel decoding changes neither content nor order."""
    images, _ = opened(tmp_path, arrays)
    batches = list(images.batches(size, workers=workers))
    assert [i for batch in batches for i in batch.indices] == list(range(53))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), np.stack(arrays))
    assert [r.name for batch in batches for r in batch.records] == list(images.names)


def test_a_batch_ends_where_shape_or_dtype_changes(tmp_path, rng):
    """All images of one batch can be stacked."""
    arrays = [np.zeros(shape, dtype) for shape, dtype in [((1, 2, 2), "uint16")] * 2 + [((1, 2, 3), "uint16")]]
    arrays += [np.zeros((1, 2, 3), "float32"), np.zeros((1, 2, 3), "float32")]
    images, _ = opened(tmp_path, arrays)
    assert [batch.indices for batch in images.batches(8)] == [(0, 1), (2,), (3, 4)]


def test_leaving_a_loop_early_stops_the_threads(tmp_path, arrays):
    """An abandoned pass decodes only a bounded number of images ahead."""
    images, reader = opened(tmp_path, arrays * 20)
    before = threading.active_count()
    for _ in images.batches(1, workers=2):
        break
    assert len(reader.decoded) <= 16
    assert threading.active_count() == before


def test_a_pass_holds_few_images_in_memory(tmp_path, readers, rng):
    """Memory does not grow with the number of images."""
    write_set(
        tmp_path,
        ((f"i{i:03d}", rng.integers(0, 256, (1, 256, 256), dtype=np.uint8)) for i in range(160)),
        Intensity(0, 255, "level"),
    )
    images = open_set(tmp_path, "train", readers)
    images[0]
    tracemalloc.start()
    for _ in images.batches(4, workers=2):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 160 * 256 * 256


def test_take_and_slices_share_what_was_decoded(tmp_path, arrays):
    """A subset keeps order and knows digests that the whole set has seen."""
    images, reader = opened(tmp_path, arrays)
    digests = images.digests
    part = images.take([5, 3, 3, 40])
    assert part.digests == tuple(digests[i] for i in (5, 3, 3, 40))
    assert len(reader.decoded) == 53
    assert [r.name for r in images[10:13]] == list(images.names[10:13])
    assert part.take([3, 0]).names == (images.names[40], images.names[5])
    with pytest.raises(IndexError):
        images.take([53])


def test_an_empty_subset_has_no_batches(tmp_path, arrays):
    """Nothing in, nothing out."""
    images, _ = opened(tmp_path, arrays)
    empty = images.take([])
    assert (len(empty), list(empty.batches(4)), empty.digests) == (0, [], ())
    assert empty.describe()["n_images"] == 0


def test_batches_of_no_images_are_refused(tmp_path, arrays):
    """A size of zero would never end."""
    with pytest.raises(ValueError, match="at least one"):
        next(opened(tmp_path, arrays)[0].batches(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_an_error_that_names_the_file(tmp_path, value):
    """NaN and infinity never reach a metric."""
    bad = np.ones((1, 3, 3), np.float32)
    bad[0, 1, 1] = value
    images, _ = opened(tmp_path, [np.ones_like(bad), bad])
    with pytest.raises(DataError, match=r"x\.mem#1"):
        images.inspect()


@pytest.mark.parametrize(
    "wrong", [lambda a: a[:, :1], lambda a: a.astype(np.float32), lambda a: 1 / 0, lambda a: {}["missing"]]
)
def test_a_reader_that_breaks_its_promise_is_named(tmp_path, arrays, wrong):
    """A third-party reader's mistake is reported as the plugin's, with the file."""
    images, _ = opened(tmp_path, arrays, wrong=wrong)
    with pytest.raises(PluginError, match=r"x\.mem.*'memory'"):
        images[0]


def test_a_file_that_changes_between_two_reads_is_noticed(tmp_path, arrays):
    """One digest stands for one image throughout a run."""
    images, reader = opened(tmp_path, arrays)
    images.inspect()
    reader.arrays[7] = 255 - reader.arrays[7]
    with pytest.raises(DataError, match="changed"):
        images[7]


def test_values_outside_the_range_are_counted_and_kept(tmp_path, rng):
    """Nothing is clipped, and the description says how much lies outside."""
    arrays = [rng.integers(-2000, 5000, (1, 9, 5)).astype(np.int16) for _ in range(6)]
    images, _ = opened(tmp_path, arrays, intensity=Intensity(-1024.0, 3071.0, "HU"))
    expected = [int(((a < -1024) | (a > 3071)).sum()) for a in arrays]
    assert images.outside == tuple(expected)
    np.testing.assert_array_equal(images[3].pixels, arrays[3])
    described = images.describe()["outside_range"]
    assert described == {"pixels": sum(expected), "images": sum(e > 0 for e in expected), "of_pixels": 6 * 45}


def test_the_description_is_json_without_paths_or_patients(tmp_path, readers, ct):
    """What goes into a report identifies nobody and no machine."""
    for index in range(3):
        ct(tmp_path / "Doe_Jane" / f"{index}.dcm", np.full((4, 4), index), z=index, patient="SECRET-77")
    images = open_set(tmp_path, "train", readers)
    text = json.dumps(images.describe())
    for secret in ("SECRET-77", "Doe", str(tmp_path), "1.2.3.5"):
        assert secret not in text
    assert {"SECRET-77", "Doe^Jane"} <= set(images.private_values)
    described = images.describe()
    assert described["n_images"] == 3
    assert described["n_patients"] == 1
    assert described["bit_depth"] == 12
    assert described["spacing_mm"] == [0.7, 0.7]
    assert described["intensity"] == {"lo": -1024.0, "hi": 3071.0, "unit": "HU", "window": [-160.0, 239.0]}


def test_the_manifest_digest_follows_pixels_and_grouping_alone(tmp_path, readers, png, rng):
    """Renaming files or patients changes nothing; regrouping or editing one pixel does."""
    pixels = [rng.integers(0, 256, (5, 5), dtype=np.uint8) for _ in range(4)]
    pixels[3] = pixels[0]  # a duplicate under another patient must not make the digest depend on order

    def found(folder, order, patients, edit=False):
        for position, index in enumerate(order):
            image = pixels[index].copy()
            if edit and index == 2:
                image[0, 0] ^= 1
            png(tmp_path / folder / f"{position}-{patients[index]}.png", image)
        images = open_set(tmp_path / folder, "train", readers, patients=r"-(\w+)\.")
        return images.describe()["manifest_sha256"]

    base = found("a", [0, 1, 2, 3], ["p", "p", "q", "q"])
    assert found("b", [3, 1, 0, 2], ["x", "x", "y", "y"]) == base
    assert found("c", [0, 1, 2, 3], ["q", "q", "p", "p"]) == base
    assert found("d", [0, 1, 2, 3], ["p", "p", "p", "q"]) != base
    assert found("e", [0, 1, 2, 3], ["p", "p", "q", "q"], edit=True) != base


def test_mixed_spacing_is_described_by_its_extremes(tmp_path, readers, rng):
    """Volumes of different resolution do not pretend to share one."""
    import nibabel as nib

    for name, zoom in (("a", 1.0), ("b", 2.5)):
        volume = nib.Nifti1Image(np.zeros((3, 3, 2), np.uint8), np.diag([zoom, 1.0, 1.0, 1.0]))
        nib.save(volume, tmp_path / f"{name}.nii")
    assert open_set(tmp_path, "train", readers).describe()["spacing_mm"] == {"lo": [1.0, 1.0], "hi": [1.0, 2.5]}


def test_progress_counts_every_image(tmp_path, arrays):
    """The bar reaches its end."""
    seen = []

    class Counting:
        def stage(self, title, total):
            from contextlib import nullcontext

            seen.append(total)
            return nullcontext(self)

        def advance(self, n=1):
            seen.append(-n)

    images, _ = opened(tmp_path, arrays)
    images.inspect(progress=Counting())  # type: ignore[arg-type]
    assert sum(seen) == 0
    assert seen[0] == 53
