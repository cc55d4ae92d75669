"""Labels, captions, masks and other contrasts: what is asked for is what is shown, and wrong requests are named."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medtrust.cli import main
from medtrust.errors import ConfigError, DataError
from medtrust.images import digest
from medtrust.progress import QuietProgress
from medtrust.types import ImageHeader, ImageRecord, Intensity
from medtrust_generators.caption import Caption
from medtrust_generators.captions import describe
from medtrust_generators.flow import Flow
from medtrust_generators.gan import Gan
from medtrust_generators.i2i import ImageToImage
from medtrust_generators.mask import Mask
from medtrust_generators.vae import Vae

LEVELS = Intensity(0.0, 255.0, "level")
SMALL = {"batch": "32", "width": "16", "lr": "0.004"}


def records(arrays, attributes=None):
    return [
        ImageRecord(
            pixels,
            f"{i}.png",
            f"P{i}",
            ImageHeader(pixels.shape, pixels.dtype.name, intensity=LEVELS, attributes=(attributes or [{}] * 999)[i]),
            digest(pixels, LEVELS),
        )
        for i, pixels in enumerate(arrays)
    ]


def halves(n, seed=0):
    """Images that are bright on the left or on the right, and which."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n)
    base = rng.normal(60, 8, (n, 1, 8, 8))
    for i, right in enumerate(side):
        base[i, :, :, 4 * right : 4 * right + 4] += 120
    return base.clip(0, 255).astype(np.uint8), side


def lean(pixels):
    """Brightness of the right half less that of the left."""
    return pixels[..., 4:].mean((1, 2, 3)) - pixels[..., :4].mean((1, 2, 3))


def train(factory, images, out, **options):
    return factory.train(images, LEVELS, out, seed=0, progress=QuietProgress(), options={**SMALL, **options})


@pytest.mark.parametrize(("factory", "steps"), [(Flow(), "100"), (Vae(), "150")], ids=["flow", "vae"])
def test_a_label_decides_what_is_shown(factory, steps, tmp_path):
    """Each class looks like its own; without a request the labels come with the training set's frequencies."""
    images, side = halves(96)
    labels = [{"side": "right" if right else "left"} for right in side]
    out = train(factory, records(images, labels), tmp_path, steps=steps, label="side")
    card = json.loads((out / "card.json").read_text())
    assert card["condition"]["classes"] == ["left", "right"]
    generator = factory.open(out, {}, "cpu")
    assert (generator.conditions.kind, generator.conditions.classes) == ("label", ("left", "right"))
    asked = ["left", "right"] * 20
    right = lean(generator.sample(40, seed=1, condition=asked).pixels) > 0
    assert (right == (np.array(asked) == "right")).mean() >= 0.9
    free = generator.sample(64, seed=1)
    assert set(free.condition) == {"left", "right"}
    assert ((lean(free.pixels) > 0) == (np.array(free.condition) == "right")).mean() >= 0.9
    part = generator.sample(3, seed=1, first=30)
    assert list(part.condition) == list(free.condition[30:33])
    assert part.pixels.tobytes() == free.pixels[30:33].tobytes()
    alone = generator.sample(1, seed=1, first=7, condition=[asked[7]])
    assert alone.pixels.tobytes() == generator.sample(40, seed=1, condition=asked).pixels[7:8].tobytes()
    with pytest.raises(ConfigError, match="'up' is no class of this generator; it has left, right"):
        generator.sample(1, seed=0, condition=["up"])
    with pytest.raises(ConfigError, match="2 conditions do not fit 1 samples"):
        generator.sample(1, seed=0, condition=["left", "left"])


@pytest.mark.slow
def test_guidance_strengthens_the_label(tmp_path):
    """Classifier-free guidance above 1 moves samples further towards their class than guidance of 0 does."""
    images, side = halves(96)
    labels = [{"side": "right" if right else "left"} for right in side]
    out = train(Flow(), records(images, labels), tmp_path, steps="100", label="side")

    def gap(guidance):
        generator = Flow().open(out, {"guidance": guidance}, "cpu")
        made = {
            side: lean(generator.sample(32, seed=2, condition=[side] * 32).pixels).mean() for side in ("left", "right")
        }
        return made["right"] - made["left"]

    assert abs(gap("0")) < gap("1") < gap("2")
    assert Flow().open(out, {"guidance": "2"}, "cpu").caps.steps == 2 * Flow().open(out, {}, "cpu").caps.steps


def test_the_critic_of_a_gan_knows_the_labels(tmp_path):
    """A conditional GAN trains and answers a label for each sample."""
    images, side = halves(24)
    out = train(Gan(), records(images, [{"side": str(s)} for s in side]), tmp_path, steps="3", label="side")
    batch = Gan().open(out, {}, "cpu").sample(4, seed=0, condition=["0", "1", "1", "0"])
    assert batch.pixels.shape == (4, 1, 8, 8)


def test_a_mask_decides_where(tmp_path):
    """A flow that saw masks of the bright half draws the bright half where the mask is."""
    images, _side = halves(96, seed=3)
    out = train(Mask(), records(images), tmp_path, steps="120", cuts="120")
    generator = Mask().open(out, {}, "cpu")
    assert generator.conditions.required
    masks = np.zeros((20, 1, 8, 8), np.uint8)
    masks[:10, ..., 4:] = 1
    masks[10:, ..., :4] = 1
    right = lean(generator.sample(20, seed=0, condition=masks).pixels) > 0
    assert right[:10].mean() >= 0.9
    assert right[10:].mean() <= 0.1
    with pytest.raises(ConfigError, match="needs a mask for each sample"):
        generator.sample(1, seed=0)
    with pytest.raises(ConfigError, match="holds 0 to 2; classes are 0 to 1"):
        generator.sample(1, seed=0, condition=[np.arange(64).reshape(8, 8) % 3])
    with pytest.raises(ConfigError, match=r"the mask of a sample is int64 \[1, 4, 4\]"):
        generator.sample(1, seed=0, condition=[np.zeros((4, 4), int)])


def test_masks_come_from_a_folder(tmp_path):
    """A mask beside each image, by name; a missing or unfit one is named, a pickle is refused."""
    images, side = halves(12)
    folder = tmp_path / "masks"
    folder.mkdir()
    for i, right in enumerate(side):
        mask = np.zeros((8, 8), np.uint8)
        mask[:, 4 * right : 4 * right + 4] = 2
        Image.fromarray(mask).save(folder / f"{i}.png")
    out = train(Mask(), records(images), tmp_path / "model", steps="2", masks=str(folder))
    assert json.loads((out / "card.json").read_text())["condition"]["classes"] == ["0", "1", "2"]
    (folder / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png has no 3\.npy"):
        train(Mask(), records(images), tmp_path / "b", steps="2", masks=str(folder))
    np.save(folder / "3.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"3\.npy cannot be read"):
        train(Mask(), records(images), tmp_path / "c", steps="2", masks=str(folder))
    with pytest.raises(ConfigError, match="needs the option masks or cuts"):
        train(Mask(), records(images), tmp_path / "d", steps="2")
    with pytest.raises(ConfigError, match="exclude each other"):
        train(Mask(), records(images), tmp_path / "e", steps="2", masks=str(folder), cuts="3")
    with pytest.raises(ConfigError, match="must be rising numbers"):
        train(Mask(), records(images), tmp_path / "f", steps="2", cuts="3,2")


def test_captions_say_what_is_measured():
    """Brightness, texture and the side of a spot, each against the set."""
    rng = np.random.default_rng(0)
    images = [np.full((1, 12, 12), level, np.float32) + rng.normal(0, 1, (1, 12, 12)) for level in range(60, 120, 5)]
    images[0][:, :, :4] -= 40
    images[5][:, :, 8:] -= 40
    said = describe(images)
    assert said[0].startswith("a dark")
    assert said[0].endswith("with a spot on the left")
    assert said[5].endswith("with a spot on the right")
    assert said[-1].startswith("a bright")
    assert sum(sentence.endswith("without a spot") for sentence in said) >= 6


def test_a_caption_decides_what_is_shown(tmp_path):
    """A flow that read which side is bright draws it there; unknown words and turned images are refused."""
    images, side = halves(96, seed=5)
    told = [{"caption": f"the {'right' if right else 'left'} half is bright"} for right in side]
    out = train(Caption(), records(images, told), tmp_path / "m", steps="120", captions="caption")
    generator = Caption().open(out, {}, "cpu")
    asked = ["The LEFT half is bright.", "the right half is bright"] * 10
    right = lean(generator.sample(20, seed=0, condition=asked).pixels) > 0
    assert (right == np.array([False, True] * 10)).mean() >= 0.9
    with pytest.raises(ConfigError, match="the word 'upper' was in no training caption"):
        generator.sample(1, seed=0, condition=["the upper half is bright"])
    with pytest.raises(ConfigError, match="would turn left into right"):
        train(Caption(), records(images, told), tmp_path / "n", steps="2", augment="flips")
    with pytest.raises(DataError, match=r"0\.png has no 'finding'"):
        train(Caption(), records(images, told), tmp_path / "o", steps="2", captions="finding")


@pytest.mark.slow
def test_another_contrast_decides_where(tmp_path):
    """An image-to-image flow trained on inverted contrast draws the bright half where the source is dark."""
    images, _side = halves(96, seed=7)
    folder = tmp_path / "source"
    folder.mkdir()
    for i, image in enumerate(images):
        np.savez(folder / f"{i}.npz", images=(255 - image.astype(np.int16))[None], intensity=np.array([0, 255]))
    out = train(ImageToImage(), records(images), tmp_path / "m", steps="120", source=str(folder))
    generator = ImageToImage().open(out, {}, "cpu")
    fresh, wanted = halves(20, seed=8)
    made = generator.sample(20, seed=0, condition=255 - fresh.astype(np.int16))
    assert ((lean(made.pixels) > 0) == (wanted == 1)).mean() >= 0.9
    with pytest.raises(ConfigError, match="needs the option source"):
        train(ImageToImage(), records(images), tmp_path / "n", steps="2")


def test_the_command_line_asks_for_labels_and_masks(tmp_path, capsys):
    """Train on a manifest's column, sample one class, a list and a set of masks; the manifest says what was asked."""
    images, side = halves(24)
    real = tmp_path / "real"
    real.mkdir()
    rows = [("file", "patient", "side")]
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(real / f"{i}.png")
        rows.append((f"{i}.png", f"P{i}", "right" if side[i] else "left"))
    with (real / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    few = ["--option", "steps=2", "--option", "width=16", "--option", "batch=4"]
    model = str(tmp_path / "flow")
    assert main(["train", "flow", "--data", str(real), "--out", model, "--option", "label=side", *few]) == 0
    base = ["sample", f"flow:{model}?steps=1", "--n", "3"]
    assert main([*base, "--out", str(tmp_path / "a"), "--condition", "right"]) == 0
    assert [row.split(",")[2] for row in (tmp_path / "a" / "manifest.csv").read_text().split()[1:]] == ["right"] * 3
    (tmp_path / "asked.txt").write_text("left\n\nright\n")
    assert main([*base, "--out", str(tmp_path / "b"), "--condition", str(tmp_path / "asked.txt")]) == 0
    said = [row.split(",")[2] for row in (tmp_path / "b" / "manifest.csv").read_text().split()[1:]]
    assert said == ["left", "right", "left"]
    assert main([*base, "--out", str(tmp_path / "c"), "--condition", "up"]) == 2
    model = str(tmp_path / "mask")
    assert main(["train", "mask", "--data", str(real), "--out", model, "--option", "cuts=120", *few]) == 0
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(2):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(masks / f"m{i}.png")
    base = ["sample", f"mask:{model}?steps=1", "--n", "3", "--out", str(tmp_path / "d")]
    assert main([*base, "--condition", str(masks)]) == 0
    said = [row.split(",")[2] for row in (tmp_path / "d" / "manifest.csv").read_text().split()[1:]]
    assert said == ["m0.png", "m1.png", "m0.png"]
