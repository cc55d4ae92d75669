"""Versions of images that the search for copies looks at: what they are, and that they bring edited copies near."""

import numpy as np
import pytest
import torch
from PIL import Image

from medtrust.stats import SEARCHES, align, image_versions


def smooth(n, channels, height, width, seed=0):
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("shape", [(3, 2, 17, 17), (2, 1, 20, 33), (0, 1, 8, 8), (1, 1, 1, 1)])
def test_versions_keep_the_shape_and_leave_the_input_alone(kind, shape):
    """Every version is float64 of the same shape and finite, and the images are unchanged."""
    images = smooth(max(1, shape[0]), *shape[1:])[: shape[0]]
    before = images.clone()
    versions = list(image_versions(images, (kind,)))
    assert versions
    for version in versions:
        assert version.shape == images.shape
        assert version.dtype == torch.float64
        assert bool(torch.isfinite(version).all())
    assert torch.equal(images, before)


def test_flips_and_quarter_turns_are_exact():
    """Pixels move and keep their values."""
    images = smooth(2, 3, 12, 12)
    assert torch.equal(next(image_versions(images, ("mirror",))), images.flip(3))
    assert torch.equal(list(image_versions(images, ("flips",)))[1], images.flip(2, 3))
    assert torch.equal(list(image_versions(images, ("rotations",)))[1], images.flip(2, 3))


@pytest.mark.parametrize("size", [(40, 40), (30, 52)])
def test_small_rotations_turn_as_pillow_does(size):
    """A picture turned by 6° is nearer to one of the versions than to itself, by far."""
    image = smooth(1, 1, *size, seed=3)
    turned = Image.fromarray(image[0, 0].numpy().astype(np.float32)).rotate(6, Image.Resampling.BILINEAR)
    inner = (slice(8, -8), slice(8, -8))
    copy = torch.from_numpy(np.asarray(turned).copy()).double()[inner]
    apart = [float((copy - v[0, 0][inner]).norm()) for v in image_versions(image, ("rotations",))]
    assert min(apart) < 0.1 * float((copy - image[0, 0][inner]).norm())


def test_windows_bring_a_saturated_copy_nearer():
    """Saturation at one end and a bent grey scale are each undone by one of the versions."""
    image = smooth(1, 1, 24, 24, seed=4)
    flat = image.flatten().sort().values
    edits = [image.minimum(flat[-60]), image.maximum(flat[60])]
    span = flat[-1] - flat[0]
    edits += [((image - flat[0]) / span) ** gamma * span + flat[0] for gamma in (0.65, 1.5)]
    for edited in edits:
        nearest = min(float((edited - v).norm()) for v in image_versions(image, ("window",)))
        assert nearest < 0.5 * float((edited - image).norm())


def test_an_unknown_search_is_refused():
    """A misspelt kind names the known ones."""
    with pytest.raises(ValueError, match="rotations"):
        next(image_versions(smooth(1, 1, 4, 4), ("spins",)))


@pytest.mark.parametrize("edit", ["mirror", "turn", "shift", "contrast"])
def test_alignment_undoes_what_a_copy_has_undergone(edit):
    """Laid over its copy, an image differs far less from it than before, and equals it where nothing was lost."""
    image = smooth(1, 2, 24, 24, seed=6)[0]
    undone = {
        "mirror": image.flip(2),
        "turn": torch.rot90(image, 1, (1, 2)),
        "shift": image.roll((1, -2), (1, 2)),
        "contrast": 0.6 * image + 3,
    }[edit]
    assert torch.allclose(align(image, undone), undone, atol=1e-9)
    stranger = smooth(1, 2, 24, 24, seed=7)[0]
    assert float((align(image, stranger) - stranger).norm()) > 0.1


def test_alignment_leaves_constant_images_alone():
    """Nothing can be laid over a flat image."""
    image = smooth(1, 1, 9, 9)[0]
    flat = torch.full_like(image, 4.0)
    assert torch.equal(align(image, flat), image)
    assert torch.equal(align(flat, image), flat)
