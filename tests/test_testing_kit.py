"""The conformance kit itself: every flaw is caught by the check that names it, and nothing passes by default."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medtrust import (
    Estimate,
    FeatureSpec,
    FormatSpec,
    GeneratorSpec,
    Insufficient,
    Interval,
    MetricSpec,
    ReportFormat,
    Result,
    SampleBatch,
)
from medtrust import testing as kit
from medtrust.cli import main
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.testing import (
    FEATURES_CHECKS,
    METRIC_CHECKS,
    Example,
    check_features,
    check_format,
    check_generator,
    check_metric,
    check_report_format,
    parametrize_with_checks,
)
from medtrust.types import ImageHeader, ImageSpec, Intensity

HERE = __name__
GAP = MetricSpec(
    name="gap", version="1", factory=f"{HERE}:Gap", pillar="fidelity", needs=("train", "synthetic", "features"),
    direction="lower", range=(0.0, None), summary="distance of the means", symmetric=True, identity=0.0,
)  # fmt: skip


class Gap:
    """A sound metric."""

    def compute(self, data):
        gaps = (data.synthetic.matrix.mean(0) - data.train.matrix.mean(0)).abs()
        value = float(gaps.sum())
        return Result(Estimate(value), Interval(value, value + 1, data.level, "none", len(data.train)))


class Signed(Gap):
    def compute(self, data):
        return Result(Estimate(float(data.synthetic.matrix.mean() - data.train.matrix.mean()) + 9))


class Ordered(Gap):
    def compute(self, data):
        return Result(Estimate(float(data.synthetic.matrix[0].norm())))


class Careless(Gap):
    def compute(self, data):
        result = super().compute(data)
        data.train.features.values.zero_()
        return result


class Painter(Gap):
    def compute(self, data):
        for record in data.synthetic.images:
            record.pixels[...] = 0
        return super().compute(data)


class Dicing(Gap):
    def compute(self, data):
        return replace(super().compute(data), facts={"dice": float(torch.rand(()))})


class Talking(Gap):
    def compute(self, data):
        print("hello")
        return super().compute(data)


class Patching(Gap):
    def compute(self, data):
        torch.manual_seed = lambda seed: None
        return super().compute(data)


class Backwards(Gap):
    def compute(self, data):
        return Result(Estimate(1 / (1e-3 + super().compute(data).estimate.value)))


class Beside(Gap):
    def compute(self, data):
        result = super().compute(data)
        return replace(result, interval=replace(result.interval, lo=result.estimate.value + 0.5))


class Brittle(Gap):
    def compute(self, data):
        pixels = np.stack([record.pixels for record in data.synthetic.images])
        if pixels.std() == 0:
            raise ZeroDivisionError("no contrast")
        return super().compute(data)


class Unwritable(Gap):
    def compute(self, data):
        return replace(super().compute(data), facts={"matrix": [1, 2]})


class Silent(Gap):
    def compute(self, data):
        raise Insufficient("needs a full moon")


class Greedy(Gap):
    def compute(self, data):
        if len(data.train) < 20:
            raise IndexError("too few")
        return super().compute(data)


def test_a_sound_metric_passes_every_check():
    """All apply but none is trivial: 15 checks, 15 passed."""
    account = check_metric(GAP)
    assert (account.count("passed"), account.ran) == (len(METRIC_CHECKS), len(METRIC_CHECKS))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (Signed, "identity"),
        (Ordered, "order_invariance"),
        (Careless, "input_untouched"),
        (Painter, "input_untouched"),
        (Dicing, "seed_repeats"),
        (Talking, "leaves_the_process_alone"),
        (Patching, "leaves_the_process_alone"),
        (Backwards, "noise_is_worse"),
        (Beside, "interval_holds_estimate"),
        (Brittle, "survives_odd_sets"),
        (Unwritable, "serialisable"),
        (Silent, "answers"),
        (Greedy, "refuses_below_minimum"),
    ],
)
def test_each_flaw_of_a_metric_is_named(flawed, check):
    """The check that fails is the one whose name says what is wrong."""
    before = torch.manual_seed
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        check_metric(replace(GAP, factory=f"{HERE}:{flawed.__name__}"))
    assert torch.manual_seed is before


def test_expected_failures_need_a_reason_and_must_fail():
    """A reason is asked for, a name is checked, and a check that passes unexpectedly is an error."""
    flawed = replace(GAP, factory=f"{HERE}:Beside")
    account = check_metric(flawed, expected_failures={"interval_holds_estimate": "one-sided by design"})
    assert account.count("expected failure") == 1
    for wrong, words in (
        ({"interval_holds_estimate": " "}, "gives no reason"),
        ({"nonsense": "x"}, "names 'nonsense'"),
    ):
        with pytest.raises(ValueError, match=words):
            check_metric(flawed, expected_failures=wrong)
    with pytest.raises(AssertionError, match="it was expected to fail"):
        check_metric(GAP, expected_failures={"identity": "it is not zero"})


def test_too_few_checks_are_no_success():
    """A metric that answers nothing fails by the floor, even where each failure is expected."""
    silent = replace(GAP, factory=f"{HERE}:Silent")
    with pytest.raises(AssertionError, match="enough_checks_ran: "):
        check_metric(silent, expected_failures={"answers": "it never does"})


def test_the_checks_hold_without_assertions():
    """`assert` vanishes under `python -O`; the kit asserts nothing but what tells mypy of a type."""
    for path in Path(kit.__file__).parent.glob("*.py"):
        asserted = [
            ast.unparse(node.test) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)
        ]
        assert not [text for text in asserted if not text.endswith("is not None")], path.name


class Moments:
    names, digest = ("mean", "sd"), "1"

    def __init__(self, device="cpu"):
        pass

    def extract(self, images, intensity):
        x = images.float().flatten(1)
        return torch.stack([x.mean(1), x.std(1)], 1)


class Relative(Moments):
    def extract(self, images, intensity):
        x = super().extract(images, intensity)
        return x - x.mean(0)


class Double(Moments):
    def extract(self, images, intensity):
        return super().extract(images, intensity).double()


class Undefined(Moments):
    def extract(self, images, intensity):
        x = super().extract(images, intensity)
        return x / x[:, 1:]


class Nameless(Moments):
    names = ("a", "a")


SPACE = FeatureSpec(name="m", version="1", factory=f"{HERE}:Moments")


def test_a_sound_feature_space_passes_every_check():
    """All ten apply."""
    assert check_features(SPACE).count("passed") == len(FEATURES_CHECKS)


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (Relative, "batch_invariance"),
        (Double, "shape_and_type"),
        (Undefined, "flat_images"),
        (Nameless, "declarations_are_sound"),
    ],
)
def test_each_flaw_of_a_feature_space_is_named(flawed, check):
    """Batch statistics, type, division by a flat image's deviation, doubled names."""
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        check_features(replace(SPACE, factory=f"{HERE}:{flawed.__name__}"))


class Static:
    """A sound generator."""

    spec = ImageSpec((1, 4, 4), "uint8", (0, 255), "level")

    def open(self, path, options, device):
        from medtrust import Caps, ConditionSpec
        from medtrust.errors import ConfigError

        if options:
            raise ConfigError(f"no options are known, not even {', '.join(options)}")
        self.conditions, self.caps = ConditionSpec(), Caps()
        return self

    def one(self, seed, i):
        return np.random.default_rng((seed, i)).integers(0, 256, (1, 4, 4), dtype=np.uint8)

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        pixels = [self.one(seed, first + i) for i in range(n)]
        return SampleBatch(
            np.stack(pixels) if pixels else np.empty((0, 1, 4, 4), np.uint8), tuple(range(first, first + n))
        )


class Deaf(Static):
    def open(self, path, options, device):
        return super().open(path, {}, device)


class Stuck(Static):
    def one(self, seed, i):
        return super().one(0, i)


class Streaming(Static):
    def sample(self, n, *, seed, condition=None, first=0, **opts):
        pixels = np.random.default_rng((seed, first)).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
        return SampleBatch(pixels, tuple(range(n)))


class Beyond(Static):
    spec = ImageSpec((1, 4, 4), "uint8", (0, 100), "level")


class Empty(Static):
    def sample(self, n, **options):
        return super().sample(max(n, 1), **options)


NOISE = GeneratorSpec(name="static", version="1", factory=f"{HERE}:Static")


def test_a_sound_generator_passes():
    """Only conditions do not apply."""
    account = check_generator(NOISE)
    assert [o.check for o in account.outcomes if o.state != "passed"] == ["conditions_are_answered"]


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (Deaf, "unknown_options_are_refused"),
        (Stuck, "seeds_differ"),
        (Streaming, "batch_invariance"),
        (Beyond, "keeps_its_declarations"),
        (Empty, "nothing_is_asked"),
    ],
)
def test_each_flaw_of_a_generator_is_named(flawed, check):
    """Options, seeds, batches, range, empty requests."""
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        check_generator(replace(NOISE, factory=f"{HERE}:{flawed.__name__}"))


class Rows:
    """A sound reader: two bytes of size, then the pixels."""

    def scan(self, path, limits):
        content = path.read_bytes()
        if len(content) < 4 or content[:2] != b"RW":
            raise DataError(f"{path} is no row; convert it again")
        if content[2] * content[3] > limits.max_pixels:
            raise SafetyError(f"{path} is too large; raise the limit")
        if len(content) != 4 + content[2] * content[3] or len(content) == 4:
            raise DataError(f"{path} is cut off; convert it again")
        return [ImageHeader((1, content[2], content[3]), "uint8", intensity=Intensity(0.0, 255.0, "level"))]

    def read(self, path, header, limits):
        return np.frombuffer(path.read_bytes(), np.uint8, offset=4).reshape(header.shape).copy()


class Trusting(Rows):
    def scan(self, path, limits):
        content = path.read_bytes()
        return [ImageHeader((1, content[2], content[3]), "uint8", intensity=Intensity(0.0, 255.0, "level"))]


class Lossy(Rows):
    def read(self, path, header, limits):
        return super().read(path, header, limits) // 2 * 2


class Nameless2(Rows):
    def scan(self, path, limits):
        try:
            return super().scan(path, limits)
        except DataError:
            raise DataError("it is broken") from None


ROWS = FormatSpec(name="rows", version="1", factory=f"{HERE}:Rows", suffixes=(".row",), magic=((0, b"RW"),))


def rows(folder):
    pixels = np.random.default_rng(2).integers(0, 256, (1, 5, 7), dtype=np.uint8)
    path = folder / "a.row"
    path.write_bytes(b"RW" + bytes([5, 7]) + pixels.tobytes())
    return [Example(path, [pixels])]


def test_a_sound_format_passes():
    """All nine apply."""
    assert check_format(ROWS, examples=rows).count("passed") == 9


@pytest.mark.parametrize(
    ("flawed", "check"),
    [(Trusting, "broken_files_are_refused"), (Lossy, "every_level_is_kept"), (Nameless2, "errors_name_the_file")],
)
def test_each_flaw_of_a_format_is_named(flawed, check):
    """Damaged files, lost levels, nameless errors."""
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        check_format(replace(ROWS, factory=f"{HERE}:{flawed.__name__}"), examples=rows)


def clocked(report, folder):
    import time

    return str(time.perf_counter_ns()).encode()


def eager(report, folder):
    (folder / "x.txt").write_text("x")
    return b"x"


def altering(report, folder):
    report["results"].clear()
    return b"x"


def naive(report, folder):
    return ("<p>" + " ".join(row["title"] for row in report["results"]) + "</p>").encode()


def tabled(report, folder):
    return "\n".join(row["title"] for row in report["results"]).encode() or b"nothing"


@pytest.mark.parametrize(
    ("flawed", "media", "check"),
    [
        (clocked, "text/plain", "the_same_bytes_twice"),
        (eager, "text/plain", "folder_untouched"),
        (altering, "text/plain", "report_untouched"),
        (naive, "text/html", "names_are_escaped"),
        (tabled, "text/csv", "names_are_escaped"),
    ],
)
def test_each_flaw_of_a_report_format_is_named(flawed, media, check):
    """Clocks, written files, changed reports, scripts, formulas."""
    spec = ReportFormat(name="x", version="1", factory=f"{HERE}:{flawed.__name__}", filename="x.txt", media_type=media)
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        check_report_format(spec)


def test_cases_have_readable_ids():
    """Each check is a case of its own, and the last counts them."""
    mark = parametrize_with_checks(SPACE)
    ids = [case.id for case in mark.args[1]]
    assert ids[0] == "features-m-declarations_are_sound"
    assert ids[-1] == "features-m-enough_checks_ran"
    for case in mark.args[1]:
        case.values[0]()


def test_the_shell_tells_what_came_of_it(capsys):
    """Exit code, a line per check, JSON, and refusals."""
    assert main(["plugins", "check", "pixels", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["subject"], told["conforms"]) == ("medtrust/pixels", True)
    assert told["ran"] >= told["floor"]
    assert main(["plugins", "check", "pixels", "--expect-failure", "repeats=it is random"]) == 1
    assert "FAILED    repeats" in capsys.readouterr().out
    for words, code, said in (
        (["pixls"], 2, "did you mean"),
        (["png"], 2, "--example"),
        (["pixels", "--expect-failure", "nonsense=x"], 2, "nonsense"),
        (["html", "--option", "a=b"], 2, "does not go with"),
    ):
        assert main(["plugins", "check", *words]) == code
        assert said in capsys.readouterr().err


def test_an_unknown_name_is_an_error():
    """No kind is guessed."""
    with pytest.raises(ConfigError, match="nothing that can be checked"):
        parametrize_with_checks("a-metric-nobody-has")
