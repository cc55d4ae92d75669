"""The single pass: every image decoded once, every feature computed once, and everything in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medtrust.cache import FeatureStore
from medtrust.errors import DataError, PluginError
from medtrust.extraction import CONSTANT_SCALE, standardise, survey
from medtrust.images.digests import digest
from medtrust.types import FeatureMatrix, ImageHeader, ImageRecord, Intensity

LEVELS = Intensity(0, 255, "level")


@dataclass
class Batch:
    indices: tuple[int, ...]
    records: tuple[ImageRecord, ...]


class Images:
    """A set in memory that counts what it decodes; a batch may hold several shapes."""

    name = "train"

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.arrays)

    def batches(self, size: int, *, workers: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            self.decoded += len(indices)
            yield Batch(tuple(indices), tuple(self.record(i) for i in indices))

    def record(self, i: int) -> ImageRecord:
        pixels = self.arrays[i]
        header = ImageHeader(pixels.shape, str(pixels.dtype))
        return ImageRecord(pixels, f"image{i}.png", f"patient{i // 2}", header, digest(pixels, LEVELS))


class Corners:
    """The first pixel and the mean; counts how many images it has seen."""

    names: tuple[str, ...] = ("first", "mean")
    digest = "c0" * 32

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        self.seen += len(images)
        flat = images.double().flatten(1)
        return torch.stack([flat[:, 0], flat.mean(1)], 1).float()


class Flat(Corners):
    """The pixels themselves: as many columns as pixels."""

    names = ()
    digest = "f1" * 32

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        self.seen += len(images)
        return images.flatten(1).float()


class Says:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total = 0

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Says]:
        yield self

    def advance(self, n: int = 1) -> None:
        self.total += n

    def say(self, line: str) -> None:
        self.lines.append(line)


def arrays(n: int, seed: int = 0, shape: tuple[int, ...] = (1, 4, 5)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size=shape, dtype=np.uint8) for _ in range(n)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_one_pass_feeds_every_space(batch_size: int) -> None:
    """Each image is decoded once for all spaces, and row i belongs to image i."""
    images = Images(arrays(11))
    said = Says()
    found = survey(images, {"corners": Corners(), "flat": Flat()}, LEVELS, batch_size=batch_size, progress=said)
    assert images.decoded == said.total == 11
    assert found.digests == tuple(digest(a, LEVELS) for a in images.arrays)
    assert found.extracted == {"corners": 11, "flat": 11}
    matrix = found.features["flat"]
    assert torch.equal(matrix.values, torch.stack([torch.from_numpy(a).flatten().float() for a in images.arrays]))
    assert matrix.patients == tuple(f"patient{i // 2}" for i in range(11))
    assert matrix.digests == found.digests
    assert (matrix.space, matrix.space_digest, matrix.names) == ("flat", "f1" * 32, ())
    assert found.features["corners"].names == ("first", "mean")


def test_a_second_audit_extracts_nothing(tmp_path: Path) -> None:
    """With a store the second run computes nothing and returns the same bits."""
    data = arrays(9)
    first = survey(Images(data), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path), batch_size=4)
    space = Corners()
    second = survey(Images(data), {"corners": space}, LEVELS, FeatureStore(tmp_path), batch_size=2)
    assert first.extracted == {"corners": 9}
    assert second.extracted == {"corners": 0}
    assert space.seen == 0
    assert torch.equal(second.features["corners"].values, first.features["corners"].values)


def test_only_what_is_new_is_extracted(tmp_path: Path) -> None:
    """Added images cost their own extraction; another range or another space costs all."""
    data = arrays(6)
    survey(Images(data), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path))
    more = Images(arrays(3, seed=1) + data)
    grown = survey(more, {"corners": Corners(), "flat": Flat()}, LEVELS, FeatureStore(tmp_path), batch_size=4)
    assert grown.extracted == {"corners": 3, "flat": 9}
    assert torch.equal(grown.features["corners"].values, survey(more, {"c": Corners()}, LEVELS).features["c"].values)
    wider = survey(more, {"corners": Corners()}, replace(LEVELS, hi=1000), FeatureStore(tmp_path))
    assert wider.extracted == {"corners": 9}


def test_an_image_that_occurs_twice_is_extracted_once() -> None:
    """Duplicates share one extraction, in one batch or in two, with and without a store."""
    data = arrays(4)
    twice = Images([data[0], data[1], data[0], data[2], data[3], data[1]])
    for size in (2, 6):
        found = survey(twice, {"corners": Corners()}, LEVELS, batch_size=size)
        assert found.extracted == {"corners": 4}
        values = found.features["corners"].values
        assert torch.equal(values[[0, 1]], values[[2, 5]])


def test_mixed_shapes_and_dtypes_in_one_batch() -> None:
    """Images of several shapes, dtypes and memory layouts keep their order."""
    rng = np.random.default_rng(5)
    data = [
        rng.integers(0, 99, size=(1, 4, 5)).astype(np.uint8),
        rng.normal(size=(1, 3, 3)).astype(np.float32),
        rng.integers(0, 99, size=(1, 4, 5)).astype(np.uint16),
        rng.integers(0, 99, size=(1, 5, 4)).astype(np.uint8).transpose(0, 2, 1),
        rng.integers(0, 99, size=(1, 4, 5)).astype(">i2"),
    ]
    found = survey(Images(data), {"corners": Corners()}, LEVELS, batch_size=5)
    expected = [[float(a.flat[0]), float(a.mean(dtype=np.float64))] for a in data]
    torch.testing.assert_close(found.features["corners"].values, torch.tensor(expected))


def test_an_empty_set_and_no_space() -> None:
    """No image gives [0, d]; no space gives the digests alone."""
    found = survey(Images([]), {"corners": Corners()}, LEVELS)
    assert found.features["corners"].values.shape == (0, 2)
    found = survey(Images(arrays(2)), {}, LEVELS)
    assert len(found.digests) == 2
    assert found.features == {}


def test_a_non_finite_feature_names_the_image_and_the_space(tmp_path: Path) -> None:
    """NaN features stop the run with the image's name, and what was finite before is kept."""
    data = [a.astype(np.float32) for a in arrays(7)]
    data[5] = data[5].copy()
    data[5][0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"image5\.png .* space corners"):
        survey(Images(data), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path), batch_size=2)
    rest = survey(Images(data[:5]), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path))
    assert rest.extracted == {"corners": 1}


def test_images_of_unlike_size_in_a_space_that_minds() -> None:
    """A space whose width follows the image size says which image does not fit."""
    data = [*arrays(3), *arrays(1, shape=(1, 6, 6))]
    with pytest.raises(DataError, match=r"image3\.png gives 36 features .* 20"):
        survey(Images(data), {"flat": Flat()}, LEVELS)


def test_an_extractor_that_breaks_its_contract_is_named() -> None:
    """A wrong row count, a wrong width or no tensor is the plugin's error."""

    class Short(Corners):
        def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
            return super().extract(images, intensity)[1:]

    class Unnamed(Corners):
        names = ("first", "mean", "last")

    class Listed(Corners):
        def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
            return super().extract(images, intensity).tolist()  # type: ignore[return-value]

    for space, words in ((Short(), r"returned \[2, 2\]"), (Unnamed(), "names 3 columns"), (Listed(), "returned list")):
        with pytest.raises(PluginError, match=words):
            survey(Images(arrays(3)), {"bad": space}, LEVELS)


def test_an_image_that_is_never_decoded_is_missed() -> None:
    """A set whose batches leave an image out is an error, not a shorter matrix."""

    class Forgetful(Images):
        def batches(self, size: int, *, workers: int) -> Iterator[Batch]:
            for batch in super().batches(size, workers=workers):
                yield Batch(batch.indices[:-1], batch.records[:-1])

    with pytest.raises(DataError, match="1 of the 3"):
        survey(Forgetful(arrays(3)), {"corners": Corners()}, LEVELS)


def test_a_damaged_shard_is_recomputed_and_said_once(tmp_path: Path) -> None:
    """Damage costs a sentence and a new extraction, and changes no number."""
    data = arrays(5)
    before = survey(Images(data), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path))
    (shard,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    store, said = FeatureStore(tmp_path), Says()
    after = survey(Images(data), {"corners": Corners()}, LEVELS, store, progress=said)
    again = survey(Images(data), {"corners": Corners()}, LEVELS, store, progress=said)
    assert after.extracted == {"corners": 5}
    assert again.extracted == {"corners": 0}
    assert torch.equal(after.features["corners"].values, before.features["corners"].values)
    assert len(said.lines) == 1
    assert shard.name in said.lines[0]


SURVEY = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_extraction as t
class Slow(t.Corners):
    def extract(self, images, intensity):
        print(self.seen, flush=True)
        return super().extract(images, intensity)
t.survey(t.Images(t.arrays(20000)), {"c": Slow()}, t.LEVELS, t.FeatureStore(Path(sys.argv[1])), batch_size=100)
"""


def test_a_killed_survey_goes_on_where_it_was(tmp_path: Path) -> None:
    """After kill -9 the next run extracts only what the shards do not hold, and gets the same numbers."""
    command = [sys.executable, "-c", SURVEY, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 3000:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait(timeout=30) == -signal.SIGKILL
    data = arrays(20000)
    resumed = survey(Images(data), {"c": Corners()}, LEVELS, FeatureStore(tmp_path))
    assert resumed.extracted["c"] <= 20000 - 2500
    expected = torch.tensor([float(a.flat[0]) for a in data])
    assert torch.equal(resumed.features["c"].values[:, 0], expected)


def matrix(values: torch.Tensor, names: tuple[str, ...] = ()) -> FeatureMatrix:
    ids = tuple(str(i) for i in range(len(values)))
    return FeatureMatrix(values.float(), ids, ids, "s", "d", names)


def test_standardise_uses_train_alone() -> None:
    """train gets mean 0 and spread 1, and another synthetic set changes no other number."""
    g = torch.Generator().manual_seed(1)
    train = torch.randn(200, 3, generator=g) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([5.0, -2.0, 1e5])
    holdout, synthetic = train[:50] * 1.1, train[50:] * 3
    one = standardise({"train": matrix(train), "holdout": matrix(holdout), "synthetic": matrix(synthetic)})
    two = standardise({"train": matrix(train), "holdout": matrix(holdout), "synthetic": matrix(synthetic * 7)})
    values = one["train"].values.double()
    torch.testing.assert_close(values.mean(0), torch.zeros(3).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(3).double(), atol=1e-3, rtol=0)
    assert torch.equal(one["train"].values, two["train"].values)
    assert torch.equal(one["holdout"].values, two["holdout"].values)
    direct = (synthetic.double() - train.double().mean(0)) / train.double().std(0, correction=0)
    torch.testing.assert_close(one["synthetic"].values, direct.float())
    assert one["synthetic"].patients == matrix(synthetic).patients


def test_columns_that_are_constant_everywhere_are_left_out_by_name() -> None:
    """A column without any information goes from values and names; it may be zero or not."""
    train = torch.tensor([[0.1, 1.0, 0.0], [0.1, 2.0, 0.0]])
    out = standardise({"train": matrix(train, ("a", "b", "c")), "synthetic": matrix(train[:1], ("a", "b", "c"))})
    assert out["train"].names == out["synthetic"].names == ("b",)
    assert out["train"].values.tolist() == [[-1.0], [1.0]]
    assert out["synthetic"].values.shape == (1, 1)


def test_variation_that_train_does_not_have_is_kept() -> None:
    """Colour that only the generator makes is not thrown away with a constant column."""
    out = standardise({"train": matrix(torch.full((3, 1), 0.5)), "synthetic": matrix(torch.tensor([[0.5], [0.6]]))})
    assert not out["train"].values.any()
    torch.testing.assert_close(out["synthetic"].values, torch.tensor([[0.0], [0.1 / CONSTANT_SCALE]]))


def test_standardise_needs_a_train_set() -> None:
    """Without train there is no scale."""
    with pytest.raises(DataError, match="train"):
        standardise({"synthetic": matrix(torch.ones(2, 2))})
    with pytest.raises(DataError, match="train"):
        standardise({"train": matrix(torch.ones(0, 2))})


def test_rows_are_kept_once(tmp_path):
    """100 000 images of 2048 features are 0.8 GB: what a pass holds beyond its matrix does not grow with the rows."""
    path = Path(__file__).parents[1] / "benchmarks" / "memory.py"
    peaks = {}
    for images in (500, 6500):
        out = tmp_path / f"{images}.json"
        words = [sys.executable, str(path), "--images", str(images), "--out", str(out)]
        subprocess.run(words, check=True, capture_output=True)
        found = json.loads(out.read_text())
        assert (found["extracted"], found["extracted_again"]) == (images, 0)
        assert found["shape"] == [images, 2048]
        peaks[images] = found["mib_peak"]
    matrix = 6000 * 2048 * 4 / 2**20
    assert peaks[6500] - peaks[500] < 2 * matrix  # a second copy of every row, and its objects, would be above
