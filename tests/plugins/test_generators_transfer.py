"""A generator that begins with another's weights: what is taken over, what is refused, and what stays on record."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_generators import FEW, LEVELS, TINY, records, textures

from medtrust.errors import ConfigError, DataError
from medtrust.inspection import Observation, hold_against
from medtrust.progress import QuietProgress
from medtrust_generators.ddpm import Ddpm
from medtrust_generators.edm import Edm
from medtrust_generators.flow import Flow
from medtrust_generators.gan import Gan
from medtrust_generators.transferring import ancestors_of
from medtrust_generators.vae import Vae

KINDS = [Vae(), Gan(), Flow(), Ddpm(), Edm()]
STILL = {"steps": "1", "lr": "1e-8"}  # one step that moves nothing to speak of


def fit(factory, images, out, **options):
    return factory.train(images, LEVELS, out, seed=5, progress=QuietProgress(), options={**TINY, **options})


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A checkpoint of each kind, fitted on grey-green textures."""
    folder = tmp_path_factory.mktemp("first")
    return {f.kind: fit(f, records(textures(24)), folder / f.kind, licence="CC0") for f in KINDS}


def distance(a, b, names):
    return sum(float((a[n] - b[n]).abs().sum()) for n in names)


@pytest.mark.parametrize("factory", KINDS, ids=lambda factory: factory.kind)
def test_training_begins_with_the_weights_and_a_whitening_of_its_own(factory, first, tmp_path):
    """After a step that moves nothing the parameters are the ancestor's; the whitening is that of the new images."""
    images = records(textures(24, seed=8, centre=60.0, spread=15.0))
    moved = load_file(
        fit(factory, images, tmp_path / "a", start=str(first[factory.kind]), **STILL) / "weights.safetensors"
    )
    fresh = load_file(fit(factory, images, tmp_path / "b", **STILL) / "weights.safetensors")
    old = load_file(first[factory.kind] / "weights.safetensors")
    learned = [name for name, _ in factory.open(first[factory.kind], {}, "cpu")._model.named_parameters()]
    assert distance(moved, old, learned) < 0.01 * distance(fresh, old, learned)
    assert not torch.equal(moved["whitening.mean"], old["whitening.mean"])
    assert torch.equal(moved["whitening.mean"], fresh["whitening.mean"])


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 20, 12)], ids=["one channel", "another size"])
def test_images_of_another_shape_take_over_what_fits(shape, first, tmp_path):
    """Layers that see the channels or the size begin at random, all others with the ancestor's weights."""
    said = []

    class Listening(QuietProgress):
        def say(self, text):
            said.append(text)

    images = records(textures(24, shape=shape, seed=9))
    Flow().train(
        images, LEVELS, tmp_path / "a", seed=5, progress=Listening(), options={**TINY, "start": str(first["flow"])}
    )
    share = int(said[0].split("begins with ")[1].split("%")[0])
    assert share == 100 if shape[0] == 3 else 50 <= share < 100  # a network of convolutions does not mind the size
    made = Flow().open(tmp_path / "a", FEW["flow"], "cpu").sample(2, seed=1)
    assert made.pixels.shape == (2, *shape)


def test_a_checkpoint_that_does_not_fit_is_refused(first, tmp_path):
    """Another kind, another width, a folder without a checkpoint: each says what to do, and nothing is written."""
    images = records(textures(24))
    with pytest.raises(ConfigError, match="holds a checkpoint of kind vae"):
        fit(Flow(), images, tmp_path / "a", start=str(first["vae"]))
    with pytest.raises(DataError, match=r"only \d+% of the parameters .* train with the recipe"):
        fit(Vae(), images, tmp_path / "a", start=str(first["vae"]), width="24")
    with pytest.raises(DataError, match="not a checkpoint's card"):
        fit(Vae(), images, tmp_path / "a", start=str(tmp_path))
    other = shutil.copytree(first["vae"], tmp_path / "other")
    card = json.loads((other / "card.json").read_text())
    (other / "card.json").write_text(json.dumps({**card, "version": "0"}))
    with pytest.raises(DataError, match="of version 0 of vae"):
        fit(Vae(), images, tmp_path / "a", start=str(other))
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").iterdir())


def test_the_card_keeps_the_whole_line_of_ancestors_and_no_path(first, tmp_path):
    """Every set of images on which the weights were fitted is named, wherever the checkpoints lie."""
    near, far = tmp_path / "near", tmp_path / "far"
    copied = shutil.copytree(first["vae"], tmp_path / "elsewhere")
    second = records(textures(24, seed=8))
    a = fit(Vae(), second, near, start=str(first["vae"]))
    b = fit(Vae(), second, far, start=str(copied))
    assert (a / "card.json").read_bytes() == (b / "card.json").read_bytes()
    third = fit(Vae(), records(textures(24, seed=9)), tmp_path / "third", start=str(a))
    lines = Vae().open(third, {}, "cpu").caps.ancestors
    digests = [json.loads((f / "card.json").read_text())["data"]["digest"][:12] for f in (a, first["vae"])]
    assert [d in line for d, line in zip(digests, lines, strict=True)] == [True, True]
    assert "licence CC0" in lines[1]
    assert "12 patients" in lines[1]
    assert Vae().open(first["vae"], {}, "cpu").caps.ancestors == ()
    assert str(tmp_path) not in (third / "card.json").read_text()


def test_a_report_names_the_patients_of_ancestors(first, tmp_path):
    """The row on the generator's declarations says that copies of earlier patients are another question."""

    class Train:
        headers = tuple(record.header for record in records(textures(4)))
        intensity, modality = LEVELS, None

    path = fit(Vae(), records(textures(24, seed=8)), tmp_path / "a", start=str(first["vae"]))
    generator, seen = Vae().open(path, {}, "cpu"), Observation()
    seen.see(generator.sample(4, seed=2), 0, 0.1)
    result = hold_against(generator, seen, Train(), seed=2)
    assert result.estimate.value == 0
    assert "24 images of 12 patients" in str(result.facts["ancestor 1"])
    assert any("audit it with their images as --train" in note for note in result.notes)


def test_a_chain_without_an_end_is_refused():
    """A card that was tampered with costs one message."""
    link = {"kind": "vae", "data": {"images": 1, "patients": 1, "digest": "0"}, "modality": None, "licence": ""}
    endless = dict(link)
    endless["start"] = endless
    with pytest.raises(DataError, match="more than 32 ancestors"):
        ancestors_of({"start": endless})
    with pytest.raises(DataError, match="does not say what the checkpoint began with"):
        ancestors_of({"start": {"kind": "vae"}})
