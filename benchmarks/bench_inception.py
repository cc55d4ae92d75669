"""Inception features against pytorch-fid, from decoded images to features: `python benchmarks/bench_inception.py`.

pytorch-fid's own network and its own preparation (ToTensor's float images, resized inside the network), batch 16, share
one weight file with ours (`medtrust data get inception`). The value is the norm of the features.
"""

from __future__ import annotations

import torch
from pytorch_fid.inception import InceptionV3

from medtrust.recipes import cache_folder
from medtrust.types import Intensity
from medtrust.weights import resolve_weights, sha256_of
from medtrust_features.inception import Inception
from medtrust_features.inception_weights import load_network
from peers import Contender, Row, compare, main

IMAGES = 16
LEVELS = Intensity(0, 255, "level")


def peer(weights: str) -> torch.nn.Module:
    """pytorch-fid's InceptionV3 with our weights: its constructor would download the same ones."""
    from pytorch_fid import inception as fid

    network = load_network(weights, sha256_of(weights), allow_code=False)
    full = torch.nn.Module()
    original = fid.fid_inception_v3
    fid.fid_inception_v3 = lambda: network
    try:
        full = InceptionV3([3])
    finally:
        fid.fid_inception_v3 = original
    return full.eval()


def run(rounds: int) -> list[Row]:
    """16 images of 32 x 32 and of 512 x 512."""
    weights = resolve_weights("inception", {}, offline=True, cache_dir=cache_folder())
    theirs, ours, half = peer(weights), Inception(weights), Inception(weights, precision="bf16")
    rows = []
    for side in (32, 512):
        generator = torch.Generator().manual_seed(side)
        images = torch.randint(0, 256, (IMAGES, 3, side, side), generator=generator, dtype=torch.uint8)

        def fid(images: torch.Tensor = images) -> torch.Tensor:
            with torch.no_grad():
                return theirs(images.float() / 255)[0][:, :, 0, 0]  # type: ignore[no-any-return]

        oracle = float(theirs.double()(images.double() / 255)[0].detach().norm())
        theirs.float()
        norm = lambda features: float(features.double().norm())  # noqa: E731
        rows += compare(
            f"{IMAGES} images of {side} px",
            oracle,
            [
                Contender("medtrust", lambda i=images: ours.extract(i, LEVELS), norm, "fp32"),
                Contender("medtrust", lambda i=images: half.extract(i, LEVELS), norm, "bf16"),
                Contender("pytorch-fid", fid, norm, "fp32"),
            ],
            rounds,
        )
    return rows


if __name__ == "__main__":
    main("inception", run, rounds=5)
