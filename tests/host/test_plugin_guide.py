"""The plugin author's guide: its files are installed, discovered, and used."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from medtrust import FeatureMatrix, Insufficient, Intensity, MetricInput
from medtrust.config import load_config
from medtrust.errors import DataError, SafetyError
from medtrust.hookspecs import EVENT_HOOKS, REGISTRATION_HOOKS, MedtrustSpecs
from medtrust.host import KINDS, Host, build_host
from medtrust.types import ImageHeader, ImageRecord, Limits, PluginFailure, Result, SetData

PAGES = Path(__file__).parents[2] / "docs" / "plugins"
HOOKS, TUTORIAL = PAGES / "hooks.md", PAGES / "tutorial.md"
TESTED = (TUTORIAL, PAGES / "README.md", HOOKS)
TROUBLES = (
    "; there are: ", "no installed plugin or distribution is called ", "failed at ", "there is no hook ",
    " lacks the decorator @hookimpl", "it has no function with the decorator @hookimpl", "wanted an iterable of ",
    " is a hook wrapper", "it is written for plugin API ", "factory must read ", " is offered by ",
    " is offered twice by this distribution", "missing extra: ", "compute() must return the results ",
    "a metric that cannot answer must raise Insufficient", ", outside its declared range ", "it replaced ",
    "took longer than ", "a time limit can be kept in the main thread of a Unix process only", "failed at exit: ",
    "the report was not written, because it discloses private values of the input", " checks ran, ",
)  # fmt: skip
LEVELS = Intensity(0.0, 255.0, "level")


def blocks(language: str) -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in TESTED)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def files() -> dict[str, str]:
    """Files of the guide: blocks that begin with the same `# path` are parts of one file."""
    written: dict[str, str] = {}
    for block in blocks("python"):
        named = re.match(r"# (\S+\.py)\n", block)
        if named:
            written[named[1]] = written.get(named[1], "") + block[named.end() :]
    return written


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay the guide's two distributions out as pip would."""
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for block in blocks("toml"):
        project = tomllib.loads(block)["project"]
        info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        facts = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(facts)
        entry_points = project["entry-points"]["medtrust"].items()
        (info / "entry_points.txt").write_text("[medtrust]\n" + "".join(f"{k} = {v}\n" for k, v in entry_points))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"my_plugin", "my_package"}:
            del sys.modules[name]


@pytest.fixture
def host(site: Path) -> Host:
    return build_host(allow=["my-plugin", "my-package"], strict=True)


def image_set(name: str, rng: np.random.Generator, top: int, n: int = 5) -> SetData:
    header = ImageHeader((1, 3, 7), "uint8", intensity=LEVELS)
    pixels = [rng.integers(0, top, (1, 3, 7), dtype=np.uint8) for _ in range(n)]
    records = [ImageRecord(x, f"{name}-{i}", f"p{i}", header, f"{name}{i}") for i, x in enumerate(pixels)]
    patients, digests = tuple(r.patient for r in records), tuple(r.digest for r in records)
    values = torch.stack([torch.from_numpy(x).float().mean().reshape(1) for x in pixels])
    return SetData(name, records, patients, digests, FeatureMatrix(values, patients, digests, "mean", "0"))


def test_every_hook_has_a_section_with_its_exact_signature() -> None:
    """A heading per hook, in the words of the specification."""
    headings = re.findall(r"^### `(.*)`$", HOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    specified = {
        name + str(inspect.signature(getattr(MedtrustSpecs, name))).replace("(self, ", "(").replace("(self)", "()")
        for name in (*REGISTRATION_HOOKS, *EVENT_HOOKS)
    }
    assert {heading.replace("'", "") for heading in headings} == {line.replace("'", "") for line in specified}
    assert len(headings) == len(specified)


def test_the_guides_plugins_register_and_load(host: Host) -> None:
    """Every contribution of the guide is offered without a failure, and its factory loads."""
    offered = {c.full_name for kind in KINDS for c in host.contributions(kind) if host.load(c)}
    assert offered == {"my-plugin/brightness"} | {
        f"my-package/{name}" for name in ("csv", "levels", "moments", "range_use", "sensitivity", "square", "static")
    }
    assert {row["status"] for row in host.plugins()} == {"ok"}


def test_the_ten_lines_are_ten() -> None:
    """The first example stays as short as its heading says."""
    lines = [line for line in blocks("python")[0].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10


def test_the_guides_metrics_answer(host: Host) -> None:
    """Both metrics compute what they say, and refuse what they cannot answer."""
    rng = np.random.default_rng(5)
    train, synthetic = image_set("train", rng, 256), image_set("synthetic", rng, 128)
    data = MetricInput(train, synthetic, None, LEVELS)
    brightness = host.load(host.find("metric", "brightness"))().compute(data).estimate.value
    pixel_gap = np.mean([r.pixels for r in synthetic.images]) - np.mean([r.pixels for r in train.images])
    assert brightness == pytest.approx(pixel_gap, abs=1e-4)
    metric = host.load(host.find("metric", "range_use"))()
    assert -0.75 < metric.compute(data).estimate.value < -0.25
    with pytest.raises(Insufficient):
        metric.compute(MetricInput(train, synthetic, None, Intensity(1.0, 1.0, "level")))


def test_the_guides_feature_space_extracts_rows_of_their_own(host: Host) -> None:
    """Features fit the extractor's names and do not depend on the batch."""
    images = torch.randint(0, 256, (6, 2, 5, 3), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    extractor = host.load(host.find("features", "moments"))(device="cpu")
    together = extractor.extract(images, LEVELS)
    assert together.shape == (6, len(extractor.names))
    assert torch.equal(together, torch.cat([extractor.extract(one[None], LEVELS) for one in images]))


def test_the_guides_generator_ignores_the_batch(host: Host) -> None:
    """Sample i is the same whatever the batch, and another seed gives another image."""
    generator = host.load(host.find("generator", "static"))().open(None, {"size": "9"}, "cpu")
    together = generator.sample(5, seed=2)
    assert together.pixels.shape == (5, 1, 9, 9)
    assert np.array_equal(generator.sample(2, seed=2, first=3).pixels, together.pixels[3:])
    assert not np.array_equal(generator.sample(5, seed=3).pixels, together.pixels)
    assert generator.sample(0, seed=2).pixels.shape == (0, 1, 9, 9)


def test_the_guides_reader_reads_and_refuses(host: Host, tmp_path: Path) -> None:
    """Pixels come back exactly; what is not square, and what is too large, is refused before it is read."""
    reader = host.load(host.find("format", "square"))()
    pixels = np.random.default_rng(4).integers(0, 256, (1, 7, 7), dtype=np.uint8)
    path = tmp_path / "a.square"
    path.write_bytes(b"SQ" + pixels.tobytes())
    (header,) = reader.scan(path, Limits())
    assert np.array_equal(reader.read(path, header, Limits()), pixels)
    with pytest.raises(SafetyError):
        reader.scan(path, Limits(max_pixels=48))
    for content in (b"", b"SQ", b"SQ" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(DataError):
            reader.scan(path, Limits())


def test_the_guides_explainer_finds_the_pixel_that_counts(host: Host) -> None:
    """The sensitivity of a score is where the score looks."""
    sensitivity = host.load(host.find("explainer", "sensitivity"))
    found = sensitivity(lambda x: 3 * x[:, 0, 1, 2], torch.zeros(2, 1, 3, 4))
    assert found[:, 0, 1, 2].tolist() == [3.0, 3.0]
    assert found.sum() == 6


def test_the_guides_report_format_defuses_formulas(host: Host, tmp_path: Path) -> None:
    """A hostile name is a text in the table, not a formula."""
    render = host.load(host.find("report_format", "csv"))
    table = render({"results": [{"id": '=cmd("x")', "status": "ok"}]}, tmp_path)
    assert table == b'"result","status"\n"\'=cmd(""x"")","ok"\n'


def test_the_guides_listener_hears_every_event(host: Host) -> None:
    """All five event hooks of the guide are called with what they ask for."""
    seen = sys.modules["my_package.listener"].seen  # type: ignore[attr-defined]
    seen.clear()
    metric = host.find("metric", "brightness").spec
    config = load_config({}, env={}, plugin_defaults={"listens": {"a": 1}})
    host.fire("medtrust_configure", config=config)
    host.fire("medtrust_before_metric", plan=None, metric=metric)
    host.fire("medtrust_after_metric", plan=None, metric=metric, result=Result(status="ok"))
    host.fire("medtrust_on_metric_error", plan=None, metric=metric, failure=PluginFailure("p", "d 1", "run", "e"))
    host.fire("medtrust_after_report", report={"verdict": "PASS"})
    assert seen == [
        ("device", "cpu", {"a": 1}),
        ("before", "brightness"),
        ("after", "brightness", "ok"),
        ("error", "p", "e"),
        ("report", "PASS"),
    ]


def test_the_guides_other_code_runs(site: Path) -> None:
    """Blocks that are no file run as they stand."""
    scripts = [block for block in blocks("python") if not re.match(r"# \S+\.py\n", block)]
    assert scripts
    for script in scripts:
        exec(compile(script, "docs/plugins", "exec"), {"__name__": "guide"})


def test_the_kits_page_lists_every_check_and_its_code_runs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No check is missing from its page, none is invented there, and the example passes on the tutorial's plugin."""
    from medtrust.testing import CHECKS

    page = (PAGES / "conformance.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)
    assert told == [(check.name, check.says) for checks, _ in CHECKS.values() for check in checks]
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(compile(block, "conformance.md", "exec"), names)
    for name in ("test_all_at_once", "test_with_a_reason"):
        names[name]()  # type: ignore[operator]


def test_each_heading_of_the_troubleshooting_is_said_somewhere() -> None:
    """What the page explains is what medtrust says: the words outside of names are in its source."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (PAGES.parents[1] / "medtrust").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that are split over lines
    for words in TROUBLES:
        assert words in source, words
    headings = re.findall(r"^## `(.*)`$", (PAGES / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(TROUBLES)
    for words in TROUBLES:
        assert any(part in heading for heading in headings for part in [words.strip()]), words
