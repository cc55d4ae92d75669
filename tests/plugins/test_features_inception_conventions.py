"""The network in other packages' conventions, against those packages on one shared random state dict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_features_inception import LEVELS, pictures, small_batches, state, weights  # noqa: F401  fixtures

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust_features.inception import (
    CleanFidInception,
    Inception,
    InceptionLogits,
    TorchFidelityInception,
    TorchmetricsInception,
    prepare,
)
from medtrust_features.inception_prepare import CONVENTIONS


@pytest.fixture(scope="module")
def with_head(state, tmp_path_factory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("head") / "random.pth"
    head = torch.randn(1008, 2048, generator=torch.Generator().manual_seed(3)) / 45
    torch.save(state | {"fc.weight": head}, path)
    return path


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 45, 38), (1, 32, 32), (3, 320, 301)])
def test_features_and_logits_are_those_of_torch_fidelity(
    with_head: Path, channels: int, height: int, width: int
) -> None:
    """Its own network on other sizes and on grey images: 2048 features and 1008 logits without bias."""
    peer = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is not installed (extra: peers)"
    )
    network = peer.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(with_head)
    )
    images = pictures(2, channels, height, width)
    with torch.no_grad():
        features, logits = network(images.expand(-1, 3, -1, -1))
    ours = TorchFidelityInception(with_head).extract(images, LEVELS)
    torch.testing.assert_close(ours, features, rtol=0, atol=float(2e-5 * features.abs().max()))
    space = InceptionLogits(with_head)
    assert space.names[0] == "logit.0"
    torch.testing.assert_close(space.extract(images, LEVELS), logits, rtol=0, atol=float(2e-5 * logits.abs().max()))


def test_each_convention_is_a_space_of_its_own(with_head: Path, weights: Path) -> None:  # noqa: F811
    """Other pixels, other digests: the cache cannot mix them up; the default's digest is what it was."""
    kinds = (Inception, CleanFidInception, TorchFidelityInception, TorchmetricsInception, InceptionLogits)
    assert len({kind(with_head).digest for kind in kinds}) == len(kinds)
    images = pictures(1, 1, 400, 350)
    found = [prepare(images, LEVELS, convention) for convention in CONVENTIONS]
    for i, one in enumerate(found):
        assert one.shape == (1, 3, 299, 299)
        for other in found[:i]:
            assert float((one - other).abs().max()) > 0.01


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_convention_loses_levels(convention: str) -> None:
    """A ramp of 4096 levels keeps them all, where the packages see 8 bits; constants stay what they are."""
    ramp = torch.arange(299 * 299).remainder(4096).reshape(1, 1, 299, 299).to(torch.int16)
    seen = prepare(ramp, Intensity(0, 4095, "level"), convention)
    assert len(seen[0, 0].unique()) >= 4096
    flat = prepare(torch.full((1, 1, 70, 33), 1024, dtype=torch.int16), Intensity(0, 4095, "level"), convention)
    assert float(flat.max() - flat.min()) < 1e-5


def test_logits_need_a_class_head(state, tmp_path: Path) -> None:  # noqa: F811
    """A file without fc.weight is refused with what to give instead."""
    path = tmp_path / "headless.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, path)
    with pytest.raises(DataError, match="has no class head"):
        InceptionLogits(path)
