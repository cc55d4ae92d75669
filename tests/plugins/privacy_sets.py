"""Small image sets for the tests of the privacy metrics: smooth random fields, some patients with two images."""

import hashlib

import numpy as np
import torch

from medtrust.stats import LIGHT_EDITS, edit_image, pixel_embedding
from medtrust.types import FeatureMatrix, ImageHeader, ImageRecord, Intensity, MetricInput, SetData

LEVELS = Intensity(0.0, 255.0, "level")
SHAPE = (1, 20, 24)


def fields(rng, n, bias=0.0):
    """Draw n smooth images [1, 20, 24] uint8; `bias` adds a common pattern."""
    y, x = np.mgrid[0:20, 0:24] / 20
    waves = np.stack(
        [np.cos(np.pi * (u * x + v * y) + phase) for u in range(4) for v in range(4) for phase in (0.0, 1.5)]
    )
    weights = rng.normal(size=(n, len(waves)))
    weights[:, 5] += bias
    image = np.tensordot(weights, waves, 1)
    lo, hi = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    return np.round(255 * (image - lo) / (hi - lo)).astype(np.uint8)[:, None]


def pixels_of(images, intensity):
    return pixel_embedding(torch.from_numpy(images), intensity)


def make_set(name, images, patients, embed=pixels_of, space="pixels"):
    """Make a set with records and features, as the host hands it to a metric."""
    patients = tuple(map(str, patients))
    digests = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    header = ImageHeader(images.shape[1:], str(images.dtype), intensity=LEVELS)
    records = [
        ImageRecord(image, f"{name}/{i}", patient, header, digest)
        for i, (image, patient, digest) in enumerate(zip(images, patients, digests, strict=True))
    ]
    features = FeatureMatrix(embed(images, LEVELS), patients, digests, space, "test")
    return SetData(name, records, patients, digests, features)


def patients_images(rng, people, prefix, bias=0.0):
    """One image per patient, and a second, similar one for every third patient."""
    first = fields(rng, people, bias)
    again = np.clip(first[::3] + rng.normal(0, 12, first[::3].shape), 0, 255).round().astype(np.uint8)
    names = [f"{prefix}{i}" for i in range(people)]
    return np.concatenate([first, again]), names + names[::3]


def make_audit(
    seed,
    copies=0,
    n_train=150,
    n_holdout=150,
    samples=200,
    holdout_bias=0.0,
    embed=pixels_of,
    space="pixels",
    **options,
):
    """An audit whose synthetic set starts with `copies` lightly edited train images; returns it with their sources."""
    rng = np.random.default_rng(seed)
    train, train_names = patients_images(rng, n_train, "t")
    holdout, holdout_names = patients_images(rng, n_holdout, "h", holdout_bias)
    synthetic = fields(rng, samples)
    sources = rng.choice(n_train, copies, replace=False)
    for at, source in enumerate(sources):
        synthetic[at] = edit_image(train[source], LIGHT_EDITS[at % len(LIGHT_EDITS)], rng).round().astype(np.uint8)
    data = MetricInput(
        train=make_set("train", train, train_names, embed, space),
        holdout=make_set("holdout", holdout, holdout_names, embed, space),
        synthetic=make_set("synthetic", synthetic, [f"s{i}" for i in range(samples)], embed, space),
        intensity=LEVELS,
        seed=seed,
        space=space,
        options=options,
    )
    return data, sources
