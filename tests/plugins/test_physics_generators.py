"""Generators that end in a scanner: the noise of physics, samples that no batch changes, cards that say what is so."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medtrust.conditions import read_conditions
from medtrust.errors import ConfigError, DataError
from medtrust.images import digest
from medtrust.progress import QuietProgress
from medtrust.types import ImageHeader, ImageRecord, Intensity, Scanner
from medtrust_generators.options import Options
from medtrust_physics.background import RAYLEIGH
from medtrust_physics.ct import CtPhysics, flattened, scan_ct
from medtrust_physics.mr import MrPhysics, ScanTimes
from medtrust_physics.noise import noise_shape
from medtrust_physics.relaxation import fit_maps, signal

HU = Intensity(-1024.0, 3071.0, "HU")
MAGNITUDE = Intensity(0.0, 4095.0, "a.u.")
TINY = {"steps": "3", "batch": "4", "width": "16"}
TIMES = torch.tensor([[500.0, 2500.0, 4000.0, 4000.0], [15.0, 40.0, 80.0, 120.0], [0.0, 0.0, 0.0, 0.0]])
SPIN_ECHOES = {"tr": "500/2500/4000/4000", "te": "15/40/80/120"}


def records(images, intensity, spacing=(0.8, 0.8)):
    header = ImageHeader(images[0].shape, images[0].dtype.name, intensity=intensity, spacing_mm=spacing)
    return [ImageRecord(x, f"{i}", f"P{i}", header, digest(x, intensity)) for i, x in enumerate(images)]


def train(factory, images, intensity, out, seed=0, **options):
    return factory.train(
        records(images, intensity), intensity, out, seed=seed, progress=QuietProgress(), options={**TINY, **options}
    )


def heads(n, size=32, seed=0, sigma=6.0):
    """Four contrasts of discs with three tissues in air, and complex noise: [n, 4, size, size]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    images = []
    for _ in range(n):
        pd, t1, t2 = np.zeros((size, size)), np.full((size, size), 900.0), np.full((size, size), 80.0)
        for radius, tissue in ((0.36, (860, 830, 83)), (0.25, (770, 500, 70)), (0.1, (1000, 2500, 330))):
            inside = np.hypot(y - rng.uniform(-0.03, 0.03), x) < radius
            pd[inside], t1[inside], t2[inside] = tissue
        maps = (torch.from_numpy(a)[None].float() for a in (pd, t1, t2))
        scan = signal(*maps, *TIMES[:, :, None, None]).numpy()
        images.append(np.hypot(scan + rng.normal(0, sigma, scan.shape), rng.normal(0, sigma, scan.shape)))
    return np.stack(images).astype(np.float32)


def slices(n, size=48, seed=0, photons=3000.0):
    """Scans of discs in water, without a kernel: [n, 1, size, size] int16."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    maps = np.zeros((n, 1, size, size), np.float32)
    for row in maps:
        row[0, np.hypot(y - rng.uniform(-0.2, 0.2), x - rng.uniform(-0.2, 0.2)) < 0.2] = 150
    sources = [torch.Generator().manual_seed(100 * seed + i) for i in range(n)]
    scanner = {"pixel_mm": 0.8, "photons": photons, "kernel": [1.0, 1.0], "angles": 60}
    return scan_ct(torch.from_numpy(maps), sources, **scanner).numpy().round().astype(np.int16)


@pytest.fixture(scope="module")
def scanners(tmp_path_factory):
    """One of each kind after a few steps."""
    out = tmp_path_factory.mktemp("scanners")
    mr = train(MrPhysics(), heads(16), MAGNITUDE, out / "mr", **SPIN_ECHOES)
    ct = train(CtPhysics(), slices(12), HU, out / "ct", angles="60")
    return {"mr": MrPhysics().open(mr, {"steps": "2"}, "cpu"), "ct": CtPhysics().open(ct, {"steps": "2"}, "cpu")}


def test_maps_are_found_again():
    """Noise-free contrasts give the tissue back to the step of the dictionary."""
    rng = torch.Generator().manual_seed(1)
    pd, t1, t2 = (
        lo + (hi - lo) * torch.rand((2, 5, 7), generator=rng) for lo, hi in ((500, 900), (300, 2000), (40, 200))
    )
    images = torch.stack([signal(pd, t1, t2, *TIMES[:, c]) for c in range(4)], 1)
    found = fit_maps(images, torch.ones(2, 5, 7, dtype=torch.bool), TIMES)
    step = [0.12, 0.15, 0.15]
    for got, true, off in zip(found, (pd, t1, t2), step, strict=True):
        assert float((got / true - 1).abs().max()) < off
    assert fit_maps(images, torch.zeros(2, 5, 7, dtype=torch.bool), TIMES)[0].abs().sum() == 0


def test_the_mr_scanner_has_rayleigh_air_and_the_noise_of_the_training_set(scanners):
    """The level is measured in the corners; what comes out has it too."""
    card = scanners["mr"].card["physics"]
    assert card["noise"] == pytest.approx(6, rel=0.05)
    assert "fitted to 4 contrasts" in card["maps"]
    maps = torch.zeros(64, 3, 32, 32)
    sources = [torch.Generator().manual_seed(i) for i in range(64)]
    air = scanners["mr"].scan(maps, sources, scanners["mr"]._model.condition.absent(64))
    assert float(air.mean() / air.std()) == pytest.approx(RAYLEIGH, rel=0.01)
    assert float(air.square().mean() / 2) == pytest.approx(card["noise"] ** 2, rel=0.02)


def test_times_of_the_scan_are_the_condition(scanners):
    """The same tissue at other times; what is not named stays as in training."""
    mr = scanners["mr"]
    assert mr.conditions.kind == "tabular"
    assert "tr_1" in mr.conditions.classes
    usual = mr.sample(3, seed=5)
    assert mr.sample(3, seed=5, condition=[{}] * 3).pixels.tobytes() == usual.pixels.tobytes()
    long = mr.sample(3, seed=5, condition=[{"te_4": 600.0}] * 3).pixels
    assert long[:, :3].tobytes() == usual.pixels[:, :3].tobytes()
    assert long[:, 3].mean() < usual.pixels[:, 3].mean()
    inverted = mr.sample(3, seed=5, condition=[{"ti_2": 300.0}] * 3).pixels
    assert inverted[:, 1].tobytes() != usual.pixels[:, 1].tobytes()
    with pytest.raises(ConfigError, match="no times"):
        mr.sample(1, seed=5, condition=[{"flip": 90}])
    with pytest.raises(ConfigError, match="within"):
        mr.sample(1, seed=5, condition=[{"te_1": 900.0}])


def test_times_come_from_the_command_line():
    spec = ScanTimes(torch.tensor([[2000.0], [20.0], [0.0]])).spec
    values, names, _ = read_conditions("tr=500, te=15", spec, None)
    assert values == [{"tr": 500.0, "te": 15.0}]
    assert names == ("tr=500, te=15",)
    for wrong in ("tr", "tr=x", "flip=3", "tr=nan"):
        with pytest.raises(ConfigError, match="NAME=NUMBER"):
            read_conditions(wrong, spec, None)


def test_one_contrast_is_inverted_and_the_card_says_so(tmp_path):
    """T1 and T2 are assumed, not found."""
    images = heads(12)[:, :1]
    path = train(MrPhysics(), images, MAGNITUDE, tmp_path / "one", tr="500", te="15", t1="800")
    card = json.loads((path / "card.json").read_text())
    assert card["physics"]["shape"] == [1, 32, 32]
    assert "assumed" in card["physics"]["maps"]
    assert card["physics"]["t1"] == 800
    assert MrPhysics().open(path, {}, "cpu").sample(2, seed=0).pixels.shape == (2, 1, 32, 32)


def test_a_scan_of_a_map_gives_its_hounsfield_units():
    """Without noise, in the flat inside of two tissues, to 3 HU."""
    y, x = np.mgrid[:48, :48] - 24
    plane = torch.from_numpy(np.where(np.hypot(y, x) < 12, 100.0, -80.0)).float()[None, None]
    scanned = scan_ct(plane, None, pixel_mm=0.8, photons=1, kernel=[1.0, 1.0], angles=120)
    assert float(scanned[0, 0, 20:28, 20:28].mean()) == pytest.approx(100, abs=3)
    assert float(scanned[0, 0, 2:6, 20:28].mean()) == pytest.approx(-80, abs=3)


def test_noise_falls_with_the_root_of_the_photons():
    """Poisson counts: four times the photons, half the noise."""
    plane, levels = torch.zeros(16, 1, 32, 32), []
    for photons in (2e4, 8e4):
        sources = [torch.Generator().manual_seed(i) for i in range(16)]
        scanner = {"pixel_mm": 0.8, "kernel": [1.0, 1.0], "angles": 40}
        still = scan_ct(plane, None, photons=photons, **scanner)
        levels.append(float((scan_ct(plane, sources, photons=photons, **scanner) - still).std()))
    assert levels[0] / levels[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("kernel", [(1.0, 1.0), (1.0, 1.4, 0.3)], ids=["ramp", "sharp"])
def test_dose_and_kernel_are_measured(kernel):
    """From slices alone, the noise of the slices comes back: its level, and its spectrum."""
    maps = torch.from_numpy(np.repeat(slices(1, photons=1e9), 32, 0)).float()
    scanner = {"pixel_mm": 0.8, "photons": 5000.0, "kernel": kernel, "angles": 60}
    sources = [torch.Generator().manual_seed(i) for i in range(32)]
    images = scan_ct(maps, sources, **scanner)
    rows = records(list(images.numpy()), HU)
    fitted, facts = CtPhysics().prepare(images, rows, Options("ct-physics", CtPhysics()._defaults(), {"angles": "60"}))
    assert facts["noise_hu"] == pytest.approx(facts["noise_hu_train"], rel=0.1)
    again = {name: facts[name] for name in ("pixel_mm", "photons", "kernel", "angles")}
    sources = [torch.Generator().manual_seed(900 + i) for i in range(32)]
    made = records(list(scan_ct(fitted, sources, **again).numpy()), HU)
    want, got = (np.mean([noise_shape(record) for record in of], 0) for of in (rows, made))
    assert np.abs(got - want).max() < 0.2


def test_total_variation_keeps_the_edge_and_flattens_the_rest():
    rng = np.random.default_rng(3)
    step = np.zeros((1, 1, 40, 40), np.float32)
    step[..., 20:] = 100
    noisy = torch.from_numpy(step + rng.normal(0, 15, step.shape).astype(np.float32))
    flat = flattened(noisy, 25.0)
    assert float((flat - torch.from_numpy(step)).std()) < 5
    assert float(flat[..., 20].mean() - flat[..., 19].mean()) > 80
    assert torch.equal(flattened(noisy, 0.0), noisy)
    peer = pytest.importorskip("skimage.restoration").denoise_tv_chambolle
    theirs = peer(noisy[0, 0].double().numpy(), weight=25, eps=1e-9, max_num_iter=60)
    assert np.abs(theirs - flat[0, 0].numpy()).max() < 0.5  # theirs steps by 1/4


@pytest.mark.parametrize("kind", ["mr", "ct"])
def test_samples_do_not_depend_on_the_request(scanners, kind):
    """Batches of 1, 7 and 64, from any start, give the same bytes; so do repeated scans."""
    generator = scanners[kind]
    assert generator.caps.family == "hybrid"
    assert isinstance(generator, Scanner)
    whole = generator.sample(70, seed=11).pixels
    scans = generator.rescan(70, seed=11, repeat=2).pixels
    for first, n in [(3, 7), (6, 64)]:
        assert generator.sample(n, seed=11, first=first).pixels.tobytes() == whole[first : first + n].tobytes()
        again = generator.rescan(n, seed=11, repeat=2, first=first).pixels
        assert again.tobytes() == scans[first : first + n].tobytes()
    assert scans.tobytes() != whole.tobytes()
    assert generator.rescan(1, seed=11, repeat=1).pixels.tobytes() != scans[:1].tobytes()
    with pytest.raises(ConfigError, match="0th"):
        generator.rescan(1, seed=11, repeat=0)


def test_training_twice_gives_the_same_bytes(scanners, tmp_path):
    """The second call finds the checkpoint; a fresh folder gets the same one."""
    path = train(CtPhysics(), slices(12), HU, tmp_path / "ct", angles="60")
    assert CtPhysics().open(path, {}, "cpu").card["weights_sha256"] == scanners["ct"].card["weights_sha256"]
    before = (path / "weights.safetensors").stat().st_mtime_ns
    train(CtPhysics(), slices(12), HU, path, angles="60")
    assert (path / "weights.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_scanned_is_refused(tmp_path):
    """A sentence that names the option or the cause."""
    images = heads(12)
    with pytest.raises(ConfigError, match="tr="):
        train(MrPhysics(), images, MAGNITUDE, tmp_path / "a")
    with pytest.raises(ConfigError, match="within tr"):
        train(MrPhysics(), images, MAGNITUDE, tmp_path / "a", tr="500/500/500/500", te="15/15/15/600")
    with pytest.raises(DataError, match="option noise"):
        train(MrPhysics(), images * (images > 60), MAGNITUDE, tmp_path / "a", **SPIN_ECHOES)
    with pytest.raises(DataError, match="negative"):
        train(MrPhysics(), images - 100, HU, tmp_path / "a", **SPIN_ECHOES)
    with pytest.raises(DataError, match="square"):
        train(CtPhysics(), slices(4)[:, :, :, :40], HU, tmp_path / "a")
    with pytest.raises(DataError, match="HU"):
        train(CtPhysics(), slices(4), MAGNITUDE, tmp_path / "a")
    with pytest.raises(DataError, match="flat tiles"):
        train(CtPhysics(), np.zeros((4, 1, 48, 48), np.int16), HU, tmp_path / "a")
    rows = records(slices(4), HU, spacing=None)
    with pytest.raises(ConfigError, match="pixel_mm"):
        CtPhysics().train(rows, HU, tmp_path / "a", seed=0, progress=QuietProgress(), options=TINY)
