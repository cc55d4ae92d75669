"""`medtrust sample`: streamed, resumed to the same set after a kill, refused where it cannot be, watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from medtrust.errors import ConfigError, PluginError
from medtrust.host import build_host
from medtrust.images import open_set, write_set
from medtrust.inspection import DECLARED, Observation, hold_against
from medtrust.progress import QuietProgress
from medtrust.sampling import sample_to
from medtrust.sources import readers_of
from medtrust.types import Caps, ConditionSpec, Generator, ImageSpec, Intensity, SampleBatch


class Noise(Generator):
    """Seeded noise in 8 bits, and whatever fault a test asks for."""

    spec = ImageSpec(shape=(1, 9, 7), dtype="uint8", range=(0, 255), unit="level")
    pause = 0.0
    conditions = ConditionSpec("label", ("a", "b"))

    def __init__(self, **facts):
        self.calls = []
        for name, value in facts.items():
            setattr(self, name, value)

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        self.calls.append((first, n))
        time.sleep(self.pause)
        draw = [np.random.default_rng([seed, first + i]).integers(0, 256, (1, 9, 7), dtype=np.uint8) for i in range(n)]
        chosen = condition or [self.conditions.classes[(first + i) % 2] for i in range(n)]
        return SampleBatch(np.stack(draw), tuple(range(first, first + n)), condition=chosen)


@pytest.fixture
def readers():
    return readers_of(build_host())


def drawn(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sample(generator, folder, n=150, seed=3, **more):
    sample_to(generator, n, folder, seed=seed, progress=QuietProgress(), **more)
    return drawn(folder)


def test_a_stopped_run_resumes_to_the_same_set(tmp_path):
    """Chunks that are there are not drawn again, files that are missing are: the bytes of one whole run."""
    whole = sample(Noise(), tmp_path / "whole")
    assert len(whole) == 152  # and sampling.json, manifest.csv
    for lost in (["sample-000003.png"], [f"sample-{i:06d}.png" for i in range(100, 150)]):
        for name in lost:
            (tmp_path / "whole" / name).unlink()
        (tmp_path / "whole" / ".sample-000120.png.partial").write_bytes(b"half an image")
        generator = Noise()
        assert sample(generator, tmp_path / "whole") == whole
        assert generator.calls == ([(0, 64)] if len(lost) == 1 else [(64, 64), (128, 22)])
    untouched = Noise()
    assert sample(untouched, tmp_path / "whole") == whole
    assert untouched.calls == []


@pytest.mark.parametrize("more", [{}, {"condition": ["b", "b", "a"], "names": ["B", "B", "A"]}], ids=["free", "asked"])
def test_a_killed_process_resumes_to_the_same_set(tmp_path, more):
    """SIGKILL in the middle of sampling, then the same call again: the bytes of an undisturbed run."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\nfrom pathlib import Path\n"
        f"import test_sampling_to_disk as t\nt.sample(t.Noise(pause=0.2), Path(sys.argv[1]), n=640, **{more!r})\n"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(out), os.path.dirname(__file__)])
    deadline = time.monotonic() + 60
    while not (out / "sample-000150.png").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "sample-000639.png").exists()
    assert not (out / "manifest.csv").exists()
    assert sample(Noise(), out, n=640, **more) == sample(Noise(), tmp_path / "whole", n=640, **more)


def test_conditions_are_written_beside_the_images(tmp_path, readers):
    """What each sample was asked for is a column of the manifest, given or chosen by the generator."""
    sample(Noise(), tmp_path / "chosen", n=5)
    assert [h.attributes["label"] for h in open_set(tmp_path / "chosen", "synthetic", readers).headers] == [*"ababa"]
    sample(Noise(), tmp_path / "asked", n=5, condition=["b", "b", "a"], names=["B", "B", "A"])
    assert [h.attributes["label"] for h in open_set(tmp_path / "asked", "synthetic", readers).headers] == [*"BBABB"]


def test_another_request_is_refused(tmp_path):
    """Another seed, number, checkpoint or a folder of something else: a sentence, and nothing is touched."""
    before = sample(Noise(), tmp_path / "out", n=4, request={"kind": "noise"})
    for change in ({"seed": 4}, {"n": 5}, {"request": {"kind": "static"}}):
        with pytest.raises(ConfigError, match="no samples of this request"):
            sample(Noise(), tmp_path / "out", **{"n": 4, "request": {"kind": "noise"}, **change})
    assert drawn(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        sample(Noise(), tmp_path / "other")
    with pytest.raises(ConfigError, match="cannot repeat itself"):
        sample(Noise(caps=Caps(seedable=False)), tmp_path / "out", n=4, request={"kind": "noise"})


def test_a_failing_generator_is_named_not_a_traceback(tmp_path):
    """An exception of the plugin, and a wrong number of images, are errors of the plugin."""

    class Broken(Noise):
        def sample(self, n, **more):
            raise ZeroDivisionError("no noise left")

    class Short(Noise):
        def sample(self, n, **more):
            return super().sample(n - 1, **more)

    with pytest.raises(PluginError, match="ZeroDivisionError: no noise left"):
        sample(Broken(), tmp_path / "a")
    with pytest.raises(PluginError, match="asked for 64 images and returned 63"):
        sample(Short(), tmp_path / "b")


@pytest.fixture
def real(tmp_path, readers):
    rng = np.random.default_rng(1)
    arrays = [(f"r{i}", rng.integers(0, 256, (1, 9, 7), dtype=np.uint8)) for i in range(8)]
    write_set(tmp_path / "real", arrays, Intensity(0, 255, "level"))
    return open_set(tmp_path / "real", "train", readers)


def held(generator, real, tmp_path, n=70):
    seen = Observation()
    sample(generator, tmp_path / "drawn", n=n, watch=seen)
    return hold_against(generator, seen, real, seed=3), seen


def test_an_honest_generator_has_nothing_to_answer_for(real, tmp_path):
    """No contradiction, every check listed with both sides, and the images counted and timed."""
    result, seen = held(Noise(), real, tmp_path)
    assert result.id == DECLARED
    assert (result.estimate.value, result.estimate.direction, result.notes) == (0.0, "lower", ())
    assert result.facts["range in level, declared"] == "0 … 255"
    assert result.facts["same bytes in any batch, observed"] == "True"
    assert seen.images == 70
    assert seen.rate > 0


class Drifting(Noise):
    """Draws from a stream that goes on from call to call."""

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        return super().sample(n, seed=seed + len(self.calls), first=first)


class Crowded(Noise):
    """Normalises over the batch, as a batch norm in training mode would."""

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        batch = super().sample(n, seed=seed, first=first)
        return SampleBatch(batch.pixels + np.uint8(n), batch.seeds)


@pytest.mark.parametrize(
    ("generator", "finding"),
    [
        (Noise(spec=ImageSpec((3, 9, 7), "uint8", (0, 255), "level")), "size [C, H, W]"),
        (Noise(spec=ImageSpec((1, 9, 7), "uint16", (0, 255), "level")), "pixel type"),
        (Noise(spec=ImageSpec((1, 9, 7), "uint8", (10, 200), "level")), "range in level"),
        (Noise(spec=ImageSpec((1, 9, 7), "uint8", (0, 255), "HU")), "unit against train"),
        (Drifting(), "same seed, same bytes"),
        (Crowded(), "same bytes in any batch"),
    ],
    ids=["size", "type", "range", "unit", "repeatable", "batch"],
)
def test_each_untrue_declaration_is_found(real, tmp_path, generator, finding):
    """One wrong declaration is one contradiction that names both sides."""
    result, _ = held(generator, real, tmp_path)
    assert any(note.startswith(f"Contradicted. {finding}") for note in result.notes), result.notes
    assert result.estimate.value == len(result.notes)


def test_an_admitted_weakness_is_no_contradiction(real, tmp_path):
    """A generator that says it is not batch invariant keeps its word."""
    result, _ = held(Crowded(caps=Caps(batch_invariant=False)), real, tmp_path)
    assert result.notes == ()
    assert result.facts["same bytes in any batch, declared"] == "False"
