"""The proof that every image was counted once, beside the sampler that counts some twice."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from scale_sets import made_set
from torch.utils.data import DistributedSampler

from medtrust import ops
from medtrust.errors import EngineError
from medtrust.scaling.ledger import Ledger
from medtrust.scaling.shards import cut
from medtrust.stats.frechet import frechet_distance


@pytest.mark.parametrize(("n", "batch", "most"), [(0, 4, 8), (1, 4, 8), (101, 7, 20), (101, 200, 20), (64, 8, 16)])
def test_shards_hold_every_image_once_and_end_where_batches_end(n: int, batch: int, most: int) -> None:
    """Shards cover the set in order; each is a union of whole batches of the run in one process."""
    images = made_set(n, shapes=True)
    shards = cut(images, batch, most_images=most)
    assert [index for shard in shards for index in shard.where] == list(range(n))
    edges = {part.start for part in images.cuts(batch)} | {n}
    assert all({shard.start, shard.stop} <= edges for shard in shards)
    assert all(len(shard) <= max(most, batch) for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)


def test_a_shard_is_closed_before_its_pixels_are_too_many() -> None:
    """Large images make small shards, but never less than a batch."""
    shards = cut(made_set(40), 4, most_bytes=500)  # 64 bytes each
    assert [len(shard) for shard in shards] == [4] * 10


def test_the_proof_does_not_depend_on_the_order_of_the_answers() -> None:
    """Whoever comes first, the proof is that of the images."""
    images = made_set(60)
    proofs = set()
    for seed in range(3):
        shards = cut(images, 8, most_images=16)
        ledger = Ledger(shards)
        for shard in random.Random(seed).sample(shards, len(shards)):
            ledger.enter(shard.id, shard.where, [images[i].digest for i in shard.where])
        proofs.add(ledger.close())
    (proof,) = proofs
    assert (proof.images, proof.shards) == (60, 4)


def test_missing_doubled_and_foreign_rows_name_their_shard() -> None:
    """Nothing that is wrong passes in silence."""
    images = made_set(40)
    shards = cut(images, 8, most_images=8)
    digests = [images[i].digest for i in range(40)]

    def enter(positions: list[int], shard: int = 2) -> None:
        Ledger(shards).enter(shards[shard].id, positions, [digests[i] for i in positions])

    whole = list(shards[2].where)
    for positions, words in (
        (whole[:-1], r"shard 2 of train .* lacks 1 .*\(23\)"),
        ([*whole, whole[0]], r"shard 2 of train .* holds twice 1 .*\(16\)"),
        ([*whole, 3], r"shard 2 of train .* of another shard, 1 .*\(3\)"),
        (whole[::-1], "shard 2 of train .* another order"),
    ):
        with pytest.raises(EngineError, match=words):
            enter(positions)
    with pytest.raises(EngineError, match="never sent"):
        Ledger(shards[:2]).enter(shards[2].id, whole, digests[16:24])
    ledger = Ledger(shards)
    ledger.enter(shards[2].id, whole, digests[16:24])
    with pytest.raises(EngineError, match=r"shard 2 of train .* came back twice"):
        ledger.enter(shards[2].id, whole, digests[16:24])
    with pytest.raises(EngineError, match=r"shard 0 of train .* never came back, nor did 3 others"):
        ledger.close()
    with pytest.raises(EngineError, match="should begin at image 8"):
        Ledger([shards[0], replace(shards[2], number=1)])


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_the_distributed_sampler_counts_images_twice_and_the_ledger_says_so(replicas: int) -> None:
    """Padding moves the Fréchet distance and invents copies; the ledger refuses the same rows."""
    n = 41  # no multiple of any number of replicas
    images = made_set(n)
    features = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    parts = [list(DistributedSampler(range(n), replicas, rank, shuffle=False)) for rank in range(replicas)]  # type: ignore[arg-type]
    rows = [index for part in parts for index in part]
    assert len(rows) > n  # torch's documentation: "the sampler will add extra samples to make it evenly divisible"
    padded = features[rows]
    assert frechet_distance(features.double(), padded.double()) > 1e-4
    others = (torch.arange(len(rows)), torch.arange(len(rows)))
    assert int((ops.nearest(padded, padded, 1, others).distances == 0).sum()) >= 2 * (len(rows) - n)
    alone = (torch.arange(n), torch.arange(n))
    assert int((ops.nearest(features, features, 1, alone).distances == 0).sum()) == 0

    (shard,) = cut(images, n, most_images=n)
    digests = [images[index].digest for index in rows]
    with pytest.raises(EngineError, match=rf"shard 0 of train .* holds twice {len(rows) - n} of its images"):
        Ledger([shard]).enter(shard.id, sorted(rows), digests)
