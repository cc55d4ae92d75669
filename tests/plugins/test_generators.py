"""Trainable generators: repeatable training, samples that no batch changes, honest ranges, safe checkpoints."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medtrust.errors import ConfigError, DataError
from medtrust.images import digest
from medtrust.progress import QuietProgress
from medtrust.types import (
    Decoder,
    Denoiser,
    Encoder,
    Generator,
    ImageHeader,
    ImageRecord,
    Intensity,
    Trainable,
)
from medtrust_generators.ddpm import Ddpm
from medtrust_generators.edm import Edm
from medtrust_generators.flow import Flow
from medtrust_generators.gan import Gan
from medtrust_generators.vae import Vae
from medtrust_generators.whitening import Whitening

LEVELS = Intensity(0.0, 255.0, "level")
TINY = {"steps": "3", "batch": "4", "width": "16"}
FEW = {"flow": {"steps": "2"}, "ddpm": {"steps": "2"}, "edm": {"steps": "2"}, "vae": {}, "gan": {}}
ALL = [Vae(), Gan(), Flow(), Ddpm(), Edm()]
MAIN = [Flow(), Vae(), Gan()]  # DDPM and EDM share all of their training with the flow
EVERY = pytest.mark.parametrize("factory", ALL, ids=lambda factory: factory.kind)
KINDS = pytest.mark.parametrize("factory", MAIN, ids=lambda factory: factory.kind)


def records(arrays, intensity=LEVELS):
    return [
        ImageRecord(
            pixels,
            f"{i}.png",
            f"P{i // 2}",
            ImageHeader(pixels.shape, pixels.dtype.name, intensity=intensity),
            digest(pixels, intensity),
        )
        for i, pixels in enumerate(arrays)
    ]


def textures(n, shape=(3, 16, 16), seed=0, dtype=np.uint8, centre=120.0, spread=40.0):
    """Smooth random fields whose roughness differs from image to image."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(size=(n, *shape))
    fields = (fields + np.roll(fields, 1, 2) + np.roll(fields, 1, 3)) * rng.uniform(0.1, 1, (n, 1, 1, 1))
    fields += rng.normal(size=(n, shape[0], 1, 1))
    return (centre + spread * fields / 2).clip(0, 255).astype(dtype)


def train(factory, images, out, seed=0, intensity=LEVELS, **options):
    return factory.train(images, intensity, out, seed=seed, progress=QuietProgress(), options={**TINY, **options})


@pytest.fixture(scope="module", params=ALL, ids=lambda factory: factory.kind)
def trained(request, tmp_path_factory):
    """A generator of each kind after a few steps, its factory and its checkpoint."""
    out = tmp_path_factory.mktemp("checkpoint") / "model"
    path = train(request.param, records(textures(24)), out, licence="CC0")
    return request.param, path, request.param.open(path, FEW[request.param.kind], "cpu")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 7, 13), (2, 1, 5), (1, 1, 1)])
def test_whitening_is_invertible_and_orthonormal(shape):
    """Pixels come back to float precision and the transform keeps energy, at odd sizes too."""
    rng = torch.Generator().manual_seed(3)
    images = 50 + 20 * torch.randn((9, *shape), generator=rng).cumsum(-1)
    whitening = Whitening(shape)
    whitening.fit(images)
    assert torch.allclose(whitening.inverse(whitening(images)), images, atol=1e-2)
    assert torch.allclose(whitening.spectrum(images).square().sum(), images.square().sum(), rtol=1e-4)
    assert torch.allclose(whitening.field(whitening.spectrum(images)), images, atol=1e-3)


def test_whitening_flattens_a_steep_spectrum():
    """White noise through the inverse has the training set's power at every scale, and the training set turns white."""
    rng = torch.Generator().manual_seed(4)
    images = torch.randn((400, 2, 24, 24), generator=rng).cumsum(2).cumsum(3)
    images[:, 1] += 0.7 * images[:, 0]
    whitening = Whitening((2, 24, 24))
    whitening.fit(images)
    assert abs(float(whitening(images).square().mean()) - 1) < 0.1
    made = whitening.inverse(torch.randn((400, 2, 24, 24), generator=rng))
    for channel in range(2):
        want, got = (
            whitening.spectrum(x)[:, channel].square().mean(0).flatten() @ whitening.member for x in (images, made)
        )
        assert ((got / want - 1).abs() < 0.35).all()
        assert want.max() > 20 * want.min()  # the test would say nothing of a flat spectrum


def test_bands_partition_the_frequencies():
    """Every frequency belongs to one band and the mean is alone in the first."""
    whitening = Whitening((3, 17, 20))
    assert torch.equal(whitening.member.sum(1), torch.ones(17 * 20))
    assert whitening.member[:, 0].sum() == 1
    values = torch.arange(3.0 * whitening.bands)[None]
    assert set(whitening.spread(values).unique().tolist()) <= set(values[0].tolist())


def test_samples_do_not_depend_on_the_request(trained):
    """Batches of 1, 7, 64 and 150, from any start, give the same bytes for the same positions."""
    _, _, generator = trained
    whole = generator.sample(150, seed=11).pixels
    assert whole.shape == (150, 3, 16, 16)
    for first, n in [(0, 1), (7, 7), (60, 64), (64, 64), (63, 2), (149, 1), (100, 50)]:
        part = generator.sample(n, seed=11, first=first)
        assert part.pixels.tobytes() == whole[first : first + n].tobytes(), (first, n)
    assert generator.sample(0, seed=11).pixels.shape == (0, 3, 16, 16)
    assert generator.sample(5, seed=11, first=3).seeds == (3, 4, 5, 6, 7)
    assert generator.sample(5, seed=11).seeds[3:] == generator.sample(2, seed=11, first=3).seeds


def test_samples_follow_the_seed_and_the_position(trained):
    """Another seed, and another position, is another image."""
    _, _, generator = trained
    a, b = generator.sample(3, seed=1).pixels, generator.sample(3, seed=2).pixels
    assert not any(np.array_equal(a[i], b[i]) for i in range(3))
    assert not np.array_equal(a[0], a[1])


def test_sampling_leaves_the_global_state_alone(trained):
    """Neither torch's random state nor its number of threads changes."""
    _, _, generator = trained
    torch.manual_seed(5)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    generator.sample(2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_reopened_checkpoint_samples_the_same(trained):
    """What a checkpoint makes depends on its files alone."""
    factory, path, generator = trained
    again = factory.open(path, FEW[factory.kind], "cpu").sample(3, seed=4)
    assert again.pixels.tobytes() == generator.sample(3, seed=4).pixels.tobytes()
    assert again.pixels.dtype == np.uint8
    assert factory.open(path, {}, "cpu").spec.intensity == LEVELS


def test_negative_requests_are_refused(trained):
    """A negative number or start is one sentence."""
    _, _, generator = trained
    with pytest.raises(ConfigError, match="at least 0"):
        generator.sample(-1, seed=0)
    with pytest.raises(ConfigError, match="at least 0"):
        generator.sample(1, seed=0, first=-1)


def test_each_kind_keeps_the_protocol(trained):
    """A generator, with the mixins that its kind can honour; its factory trains."""
    factory, _, generator = trained
    assert isinstance(generator, Generator)
    assert isinstance(factory, Trainable)
    assert isinstance(generator, Encoder) == isinstance(generator, Decoder) == (factory.kind == "vae")
    assert isinstance(generator, Denoiser) == (factory.kind in {"flow", "ddpm", "edm"})
    assert generator.caps.steps == generator.sample(1, seed=0).meta["nfe"]


def test_the_denoiser_answers_v(trained):
    """On noise of known strength, alpha x - sigma v over their norm is nearer to the image than the noisy one is."""
    factory, _, generator = trained
    if not isinstance(generator, Denoiser):
        pytest.skip(f"{factory.kind} has no denoiser")
    clean = generator.normalise(torch.from_numpy(textures(16)))
    times = torch.full((16,), {"flow": 0.5, "ddpm": 500.0, "edm": 1.0}[factory.kind])
    alpha, sigma = (part[:, None, None, None] for part in generator.noise_level(times))
    noisy = alpha * clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    norm = torch.hypot(alpha, sigma)
    with torch.no_grad():
        guess = (alpha * noisy / norm - sigma * generator.denoise(noisy, times)) / norm
    assert (guess - clean).square().mean() < 0.9 * (noisy / alpha - clean).square().mean()


def test_the_codes_of_a_vae_are_open(tmp_path):
    """Encode and decode speak the unit of the images, row by row, and a decoded code carries gradients."""
    images = torch.from_numpy(textures(24, (1, 16, 16), seed=4))
    generator = Vae().open(train(Vae(), records(images.numpy()), tmp_path), {}, "cpu")
    mean, logvar = generator.encode(images)
    assert mean.shape == logvar.shape == (24, generator.caps.latent)
    assert torch.allclose(generator.encode(images[5:7])[0], mean[5:7], atol=1e-5)
    z = mean.detach().requires_grad_()
    back = generator.decode(z)
    assert back.shape == images.shape
    assert abs(float(back.detach().mean() - images.float().mean())) < 10
    (gradient,) = torch.autograd.grad(back[3].sum(), z)
    assert gradient[3].abs().sum() > 0
    assert gradient[:3].abs().sum() == 0


@EVERY
def test_a_killed_training_resumes_to_the_same_bytes(factory, tmp_path):
    """A run stopped between two notes goes on from the last note; weights, card and picture are those of one run."""
    images = records(textures(12, (1, 8, 8)))
    options = {"steps": "7", "save": "3"}
    whole = train(factory, images, tmp_path / "whole", **options)

    class Killed(BaseException):
        pass

    class Stopping(QuietProgress):
        done = 0

        def advance(self, n=1):
            self.done += n
            if self.done >= 5:
                raise Killed

    with pytest.raises(Killed):
        factory.train(images, LEVELS, tmp_path / "part", seed=0, progress=Stopping(), options={**TINY, **options})
    assert os.listdir(tmp_path / "part") == ["training.safetensors"]
    said = []

    class Lines(QuietProgress):
        def say(self, line):
            said.append(line)

    factory.train(images, LEVELS, tmp_path / "part", seed=0, progress=Lines(), options={**TINY, **options})
    assert said == [f"resuming the training of {factory.kind} at step 3 of 7"]
    assert sorted(os.listdir(tmp_path / "part")) == ["card.json", "samples.png", "weights.safetensors"]
    for name in os.listdir(whole):
        assert (tmp_path / "part" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_note_of_another_request_is_not_resumed(tmp_path):
    """A note belongs to its images, recipe and seed; a damaged one is named."""
    images = records(textures(12, (1, 8, 8)))
    whole = train(Vae(), images, tmp_path / "whole", steps="4")

    class Killed(BaseException):
        pass

    class Stopping(QuietProgress):
        def advance(self, n=1):
            if (tmp_path / "part" / "training.safetensors").exists():
                raise Killed

    options = {**TINY, "steps": "4", "save": "2"}
    with pytest.raises(Killed):
        Vae().train(images, LEVELS, tmp_path / "part", seed=5, progress=Stopping(), options=options)
    train(Vae(), images, tmp_path / "part", steps="4")
    assert (tmp_path / "part" / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "training.safetensors").write_bytes(b"\x05half a note")
    with pytest.raises(DataError, match="is damaged"):
        train(Vae(), images, tmp_path / "bad", steps="4")


@KINDS
def test_training_twice_gives_the_same_bytes(factory, tmp_path):
    """Same images, recipe and seed: the same two files; another seed: other weights."""
    images = records(textures(12, (1, 9, 14)))
    torch.manual_seed(1)
    a = train(factory, images, tmp_path / "a")
    torch.manual_seed(2)
    b = train(factory, images, tmp_path / "b")
    for name in ("weights.safetensors", "card.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    c = train(factory, images, tmp_path / "c", seed=1)
    assert (a / "weights.safetensors").read_bytes() != (c / "weights.safetensors").read_bytes()


@KINDS
def test_unchanged_checkpoint_is_kept_and_a_changed_request_trains_again(factory, tmp_path):
    """The same request does not train twice and says so; other images, recipe or a damaged file do."""
    images = records(textures(8))
    said = []

    class Lines(QuietProgress):
        def say(self, line):
            said.append(line)

    def again(images=images, seed=0, **options):
        said.clear()
        factory.train(images, LEVELS, tmp_path, seed=seed, progress=Lines(), options={**TINY, **options})
        return (tmp_path / "weights.safetensors").stat().st_mtime_ns

    first = again()
    assert not said
    assert again() == first
    assert "not trained again" in said[0]
    assert again(steps="4") != first
    second = again()
    assert not said
    assert again(images=images[:-1]) != second
    (tmp_path / "weights.safetensors").write_bytes(b"damaged")
    again()
    assert not said


def test_card_says_what_the_weights_are(trained):
    """Kind, recipe, shape, range, seed, data digest, licence, version and the digest of the weights."""
    _, path, _ = trained
    card = json.loads((path / "card.json").read_text())
    assert card["shape"] == [3, 16, 16]
    assert card["intensity"] == {"lo": 0.0, "hi": 255.0, "unit": "level", "window": None}
    assert card["data"]["images"] == 24
    assert card["data"]["patients"] == 12
    assert len(card["data"]["digest"]) == len(card["weights_sha256"]) == 64
    assert (card["licence"], card["seed"], card["dtype"]) == ("CC0", 0, "uint8")
    assert card["recipe"]["steps"] == "3"
    assert "batch" in card["recipe"]


@KINDS
def test_samples_stay_in_unit_range_and_dtype_of_the_training_set(factory, tmp_path):
    """Hounsfield units in int16 and fractions in float32 come back as such, inside the declared range."""
    unit = Intensity(-1024.0, 3071.0, "HU", window=(-160.0, 240.0))
    scans = (textures(10, (1, 12, 12), dtype=np.int16).astype(np.int16) * 12 - 1000).astype(np.int16)
    out = train(factory, records(scans, unit), tmp_path / "ct", intensity=unit)
    generator = factory.open(out, {}, "cpu")
    pixels = generator.sample(20, seed=0).pixels
    assert pixels.dtype == np.int16
    assert pixels.min() >= -1024
    assert pixels.max() <= 3071
    assert abs(pixels.mean() - scans.mean()) < 4 * scans.std()
    assert generator.spec.intensity == unit
    share = Intensity(0.0, 1.0, "a.u.")
    maps = (textures(10, (2, 5, 8)) / np.float32(255)).astype(np.float32)
    out = train(factory, records(maps, share), tmp_path / "map", intensity=share)
    pixels = factory.open(out, {}, "cpu").sample(9, seed=0).pixels
    assert pixels.dtype == np.float32
    assert pixels.shape == (9, 2, 5, 8)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@KINDS
def test_non_contiguous_and_single_images_train(factory, tmp_path):
    """A transposed view, one image, and a constant image are all fine."""
    view = textures(6, (3, 16, 16)).transpose(0, 1, 3, 2)[:, :, ::2]
    assert not view[0].flags.c_contiguous
    train(factory, records(view), tmp_path / "view")
    one = train(factory, records(np.full((1, 1, 8, 8), 7, np.uint8)), tmp_path / "one")
    pixels = factory.open(one, {}, "cpu").sample(2, seed=0).pixels
    assert abs(float(pixels.mean()) - 7) < 3


@KINDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": "9"}, "no option 'speed'"),
        ({"steps": "0"}, "whole number from 1"),
        ({"lr": "fast"}, "must be a number"),
        ({"augment": "zoom"}, "one of none, flips, dihedral"),
        ({"augment": "dihedral"}, "needs square images"),
    ],
)
def test_wrong_options_are_one_sentence(factory, tmp_path, options, message):
    """An unknown or impossible option is refused before any work, and nothing is written."""
    with pytest.raises(ConfigError, match=message):
        train(factory, records(textures(4, (1, 6, 8))), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@KINDS
def test_unfit_images_are_named(factory, tmp_path):
    """No images, two shapes, two depths or a NaN: the sentence names the image."""
    with pytest.raises(DataError, match="no images"):
        train(factory, [], tmp_path)
    with pytest.raises(DataError, match=r"1\.png is uint8 \[3, 16, 15\]"):
        train(factory, records([textures(1)[0], textures(1, (3, 16, 15))[0]]), tmp_path)
    holes = textures(2).astype(np.float32)
    bad = records(holes)
    holes[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"1\.png is not finite"):
        train(factory, bad, tmp_path)


def test_damaged_or_foreign_checkpoints_are_refused(trained, tmp_path):
    """Changed weights, no card, another kind, or no path at all: one sentence each."""
    factory, path, _ = trained
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        factory.open(None, {}, "cpu")
    with pytest.raises(DataError, match="not a checkpoint's card"):
        factory.open(tmp_path, {}, "cpu")
    with pytest.raises(ConfigError, match="no option 'nfe'"):
        factory.open(path, {"nfe": "3"}, "cpu")
    card = json.loads((path / "card.json").read_text())
    weights = bytearray((path / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(bytes(weights))
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="SHA-256"):
        factory.open(tmp_path, {}, "cpu")
    (tmp_path / "card.json").write_text(json.dumps({**card, "kind": "medium"}))
    with pytest.raises(ConfigError, match="kind medium"):
        factory.open(tmp_path, {}, "cpu")


def test_weights_are_plain_tensors(trained):
    """A checkpoint holds finite tensors and nothing else."""
    _, path, _ = trained
    assert sorted(os.listdir(path)) == ["card.json", "samples.png", "weights.safetensors"]
    assert all(tensor.isfinite().all() for tensor in load_file(path / "weights.safetensors").values())


@KINDS
def test_training_moves_samples_towards_the_data(factory, tmp_path):
    """After training, the spread of roughness among samples is nearer to the real one, or near it from the first."""
    real = textures(200, (1, 16, 16), seed=8)

    def roughness(pixels):
        return np.log(np.diff(pixels.astype(np.float64), axis=-1).std((1, 2, 3)) + 0.1)

    def gap(steps):
        pace = {"lr": "0.001"} if factory.kind == "gan" else {}
        out = train(factory, records(real), tmp_path / steps, steps=steps, batch="32", **pace)
        made = roughness(factory.open(out, {}, "cpu").sample(192, seed=0).pixels)
        wanted = np.quantile(roughness(real), np.linspace(0.05, 0.95, 19))
        return np.abs(np.quantile(made, np.linspace(0.05, 0.95, 19)) - wanted).mean()

    before, after = gap("1"), gap("120")
    assert after < max(0.6 * before, 0.15 * roughness(real).std())


def test_listing_the_generators_imports_no_torch():
    """The registration module stays light, and its factories exist."""
    code = (
        "import sys\nfrom medtrust_generators import plugin\n"
        "specs = list(plugin.medtrust_generators())\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "import pkgutil\n"
        "assert all(pkgutil.resolve_name(spec.factory).kind == spec.name for spec in specs)\n"
        "assert all(pkgutil.resolve_name(spec.factory).version == spec.version for spec in specs)\n"
        "assert {spec.name for spec in specs} >= {'flow', 'vae', 'gan', 'ddpm', 'edm', 'mask', 'caption', 'i2i'}\n"
        "assert all(spec.trainable for spec in specs)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.cuda
@KINDS
def test_training_and_sampling_on_the_gpu(factory, tmp_path):
    """A checkpoint trained on the GPU opens on both devices, and chunks hold there too."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU is available")
    out = train(factory, records(textures(12)), tmp_path, device="cuda")
    generator = factory.open(out, {}, "cuda")
    whole = generator.sample(70, seed=2).pixels
    assert generator.sample(3, seed=2, first=66).pixels.tobytes() == whole[66:69].tobytes()
    on_cpu = factory.open(out, {}, "cpu").sample(70, seed=2).pixels
    assert np.abs(on_cpu.astype(int) - whole).mean() < 2
