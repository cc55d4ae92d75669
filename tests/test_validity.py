"""Does the check of feature spaces pass a space that sees, catch one that is blind, and reach the gates?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from medtrust.cache import FeatureStore
from medtrust.cli import main
from medtrust.engine import _vouched
from medtrust.errors import Insufficient
from medtrust.extraction import survey
from medtrust.host import build_host
from medtrust.images import open_set
from medtrust.progress import QuietProgress
from medtrust.sources import readers_of
from medtrust.stats.degrading import DEGRADATIONS, STRENGTHS, degrade, scrambled
from medtrust.suites import exit_code_of, run_suites
from medtrust.types import Estimate, Intensity, Result, SelfTest, SuiteInput, SuiteRow, SuiteSpec
from medtrust.validity import LEAST_PATIENTS, check_spaces, rank_correlation
from medtrust_features.radiomics import Radiomics

LEVELS = Intensity(0.0, 255.0, "level")
CT = Intensity(-1024.0, 3071.0, "HU")


class Ends:
    """Sees the mean of the first row only: blind to everything that keeps it."""

    names = ("a", "b")
    digest = "0" * 64
    standardise = False

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        return torch.stack([images.flatten(1).double().sign().mean(1), images.flatten(1)[:, 0].double()], 1).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 images of smooth blobs with grain, one per patient."""
    root = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:40, :40] / 40
    for i in range(80):
        image = np.full((40, 40), rng.uniform(70, 160))
        for _ in range(4):
            cx, cy, size = rng.random(), rng.random(), rng.uniform(0.05, 0.2)
            image += rng.uniform(-50, 50) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * size**2))
        image += rng.normal(0, rng.uniform(3, 4), image.shape)
        Image.fromarray(np.rint(image).clip(1, 255).astype(np.uint8)).save(root / f"p{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def train(folder: Path):
    return open_set(folder, "train", readers_of(build_host()), patients="p[0-9]+")


def test_degradations_keep_unit_and_grow(train) -> None:
    """Each strength changes more than the one before, HU stay HU, and the same seed gives the same bits."""
    for kind in DEGRADATIONS:
        changes = []
        for strength in range(1, STRENGTHS + 1):
            image = train[0].pixels.astype(np.int16) * 8 - 1024
            donor = train[1].pixels.astype(np.int16) * 8 - 1024
            options = {"contrast": 100.0, "donor": donor}
            out, again = (degrade(image, kind, strength, CT, **options, rng=np.random.default_rng(7)) for _ in range(2))
            assert out.shape == image.shape
            assert out.dtype == np.float32
            assert np.array_equal(out, again)
            changes.append(float(np.abs(out - image).mean()))
        assert changes == sorted(changes), kind
        assert changes[0] > 0
    with pytest.raises(ValueError, match="no degradation"):
        degrade(image, "wobble", 1, CT, **options, rng=np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 33, 20), (2, 7, 1)])
def test_scrambled_phases_keep_the_power_alone(shape) -> None:
    """Power at every frequency and between channels stays to rounding, for odd sides too; edges do not."""
    image = np.zeros(shape)
    image[:, shape[1] // 4 : shape[1] // 2] = np.arange(1, shape[0] + 1)[:, None, None]
    out = scrambled(image, np.random.default_rng(1))
    before, after = (np.fft.fft2(x) for x in (image, out))
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-9)
    np.testing.assert_allclose(after[0] * after[-1].conj(), before[0] * before[-1].conj(), atol=1e-6)
    assert len(np.unique(image)) <= shape[0] + 1 < len(np.unique(out.round(6)))
    assert np.array_equal(out, scrambled(image, np.random.default_rng(1)))
    assert not scrambled(np.zeros(shape), np.random.default_rng(1)).any()


def test_a_swap_among_aligned_slices_is_seen(tmp_path: Path) -> None:
    """Slices that share their anatomy: the swapped texture brings none of it, so radiomics follows the swap."""
    rng = np.random.default_rng(3)
    anatomy = gaussian_filter(rng.normal(size=(64, 64)), 1.0) * 600
    for i in range(72):
        own = gaussian_filter(rng.normal(size=(64, 64)), 1.0) * 60
        Image.fromarray(np.rint(anatomy + own + 128).clip(0, 255).astype(np.uint8)).save(tmp_path / f"p{i:03d}.png")
    slices = open_set(tmp_path, "train", readers_of(build_host()))
    features = survey(slices, {"radiomics": Radiomics()}, LEVELS, None).features
    found = check_spaces(slices, features, {"radiomics": Radiomics()}, LEVELS, None)["radiomics"]
    assert found.correlations["texture_swap"] >= 0.9


def test_gamma_leaves_what_lies_outside_the_range() -> None:
    image = np.array([[[-2000.0, -1024.0, 0.0, 3071.0, 4000.0]]])
    out = degrade(image, "gamma", 5, CT, contrast=1.0, donor=image, rng=np.random.default_rng(0))
    assert out[0, 0, [0, 1, 3, 4]].tolist() == [-2000.0, -1024.0, 3071.0, 4000.0]
    assert out[0, 0, 2] < 0


def test_a_seeing_space_passes_and_a_blind_one_is_unfit(train, tmp_path: Path) -> None:
    """Radiomics follows every degradation, `Ends` does not; a second check extracts nothing."""
    spaces = {"radiomics": Radiomics(), "ends": Ends()}
    store = FeatureStore(tmp_path)
    features = survey(train, spaces, LEVELS, store).features
    checks = check_spaces(train, features, spaces, LEVELS, store, seed=1)
    assert checks["radiomics"].selftest.status == "ok", checks["radiomics"].correlations
    assert checks["ends"].selftest.status == "failed"
    assert "blur" in checks["ends"].blind
    assert "unfit for these images" in checks["ends"].selftest.detail
    assert set(checks["radiomics"].as_dict()["spearman"]) == set(DEGRADATIONS)

    class Forbidden(Radiomics):
        def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
            raise AssertionError("it was extracted again")

    again = check_spaces(
        train, features, {"radiomics": Forbidden()}, LEVELS, FeatureStore(tmp_path), seed=1, batch_size=7
    )
    assert again["radiomics"] == checks["radiomics"]


def test_too_few_patients_are_not_tested(train) -> None:
    few = train.take(range(LEAST_PATIENTS - 1))
    check = check_spaces(few, {}, {"radiomics": Radiomics()}, LEVELS)["radiomics"]
    assert check.selftest == SelfTest("not_run", check.reason)
    assert f"needs {LEAST_PATIENTS} patients" in check.reason


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3, 4]) == pytest.approx(1)
    assert rank_correlation([1, 3, 2, 4]) == pytest.approx(0.8)
    assert rank_correlation([2, 2, 2]) == 0


def test_only_fidelity_and_diversity_without_a_test_of_their_own_are_vouched_for() -> None:
    bad = SelfTest("failed", "blind")
    own = SelfTest("ok", "its own")
    fid = Result(Estimate(1.0), pillar="fidelity", features="ends")
    assert _vouched(fid, {"ends": bad}).selftest == bad
    assert _vouched(fid, {"radiomics": bad}).selftest is None
    assert _vouched(Result(Estimate(1.0), pillar="privacy", features="ends"), {"ends": bad}).selftest is None
    assert (
        _vouched(Result(Estimate(1.0), pillar="fidelity", features="ends", selftest=own), {"ends": bad}).selftest == own
    )


def test_an_unfit_space_makes_its_gates_inconclusive(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """The audit itself runs the check: the gate on a blind space opens, whatever the number."""
    import medtrust

    monkeypatch.setattr("medtrust.validity.LEAST_CORRELATION", 1.01)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'schema = "medtrust.policy/1"\n[[gate]]\nid = "fd"\n'
        'result = "fidelity.fd[radiomics]"\nop = "<="\nthreshold = 1e9\n'
    )
    report = medtrust.audit(
        train=folder, synthetic=folder, metrics="fd", patients="p[0-9]+", policy=policy, cache=tmp_path / "cache"
    )
    assert report["fidelity.fd[radiomics]"].selftest.status == "failed"
    assert report.verdict == "INCONCLUSIVE"
    assert report.to_dict()["run"]["spaces"]["radiomics"]["validity"]["status"] == "failed"


def test_the_command(folder: Path, tmp_path: Path, capsys) -> None:
    """Text and JSON say the same; the exit code is the outcome."""
    words = ["selftest", "--suite", "features", "--train", str(folder), "--cache", str(tmp_path)]
    assert main([*words, "--patients", "p[0-9]+"]) == 0
    assert "ok       radiomics" in capsys.readouterr().out
    assert main([*words, "--patients", "(p)[0-9]+", "--json"]) == 3
    (row,) = json.loads(capsys.readouterr().out)["features"]
    assert row["status"] == "not_run"
    assert main(["selftest", "--suite", "nothing", "--train", str(folder)]) == 2
    assert main(["selftest", "--features", "nothing", "--train", str(folder)]) == 2


class Three:
    """A suite with every outcome."""

    def run(self, data: SuiteInput):
        yield SuiteRow("a", "ok", "held")
        yield SuiteRow("b", "failed", "did not")


class Short:
    def run(self, data: SuiteInput):
        raise Insufficient("needs 5 images")


def test_suites_come_from_plugins(train) -> None:
    """A plugin's suite is found by name; one that cannot answer is a row with its reason."""
    from medtrust import hookimpl

    class Plugin:
        @hookimpl
        def medtrust_suites(self):
            yield SuiteSpec(name="three", version="1", factory=f"{__name__}:Three")
            yield SuiteSpec(name="short", version="1", factory=f"{__name__}:Short")

    host = build_host()
    host.register(Plugin(), "mine")
    data = SuiteInput(train, None, None, LEVELS, {}, None, 0, QuietProgress())
    outcome = run_suites(host, ["three"], data)
    assert exit_code_of(outcome) == 1
    outcome = run_suites(host, ["short"], data)
    assert outcome["short"] == (SuiteRow("short", "not_run", "needs 5 images"),)
    assert exit_code_of(outcome) == 3
