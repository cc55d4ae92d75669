"""Answers of many, put together: the same bits as one process, or an error; here with workers that only pretend."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scale_sets import LEVELS, Corners, Faulty, Made, Sociable, made_set

from medtrust.cache import FeatureStore
from medtrust.errors import DataError, EngineError, MedtrustError, PluginError
from medtrust.extraction import survey
from medtrust.progress import QuietProgress
from medtrust.scaling import work
from medtrust.scaling.gathering import gather
from medtrust.spaces import Opening


def pretend(setup: work.Setup, order: work.Order, split: bool) -> work.Answer | work.Refusal:
    setup, order = pickle.loads(pickle.dumps((setup, order)))
    if split:
        decoded = pickle.loads(pickle.dumps(work.decode(setup, order)))
        return pickle.loads(pickle.dumps(work.extract(setup, decoded)))
    return pickle.loads(pickle.dumps(work.run(setup, order)))


def gathered(images, space=Corners, store=None, *, batch_size=8, workers=1, split=False, change=lambda answer: answer):
    sent: list[work.Order] = []

    @contextmanager
    def ask(setup: work.Setup, orders: Iterable[work.Order]) -> Iterator[Iterator[work.Answer | work.Refusal]]:
        def answers() -> Iterator[work.Answer | work.Refusal]:
            for order in orders:
                sent.append(order)
                yield change(pretend(setup, order, split))

        yield answers()

    name = f"scale_sets:{space.__name__}"
    place = work.Place(str(Path.cwd()), torch.get_num_threads())
    found, proof = gather(
        images, {"corners": space()}, {"corners": Opening(name, {"device": "cpu"})}, LEVELS, store, ask, place,
        batch_size=batch_size, workers=workers, progress=QuietProgress(),
    )  # fmt: skip
    return found, proof, sent


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size", "shapes"), [(0, 8, False), (1, 8, False), (333, 7, False), (700, 64, True)]
)
def test_the_same_bits_as_one_process(n: int, batch_size: int, shapes: bool, split: bool) -> None:
    """Digests, features, patients, and what the set learns of its pixels."""
    images, alone = made_set(n, shapes=shapes), made_set(n, shapes=shapes)
    found, proof, _ = gathered(images, batch_size=batch_size, split=split)
    wanted = survey(alone, {"corners": Corners()}, LEVELS, batch_size=batch_size)
    assert found.digests == wanted.digests
    assert torch.equal(found.features["corners"].values, wanted.features["corners"].values)
    assert replace(found.features["corners"], values=None) == replace(wanted.features["corners"], values=None)
    assert proof.images == n
    if n:
        assert images.describe() == alone.describe()


def test_small_sets_are_cut_for_all_workers() -> None:
    """A set that would be one shard gives each worker some; the bits and the proof's content stay."""
    one, proof, sent = gathered(made_set(200), workers=1, batch_size=8)
    many, other, more = gathered(made_set(200), workers=5, batch_size=8)
    assert (len(sent), len(more)) == (5, 25)  # whole batches of 8: at most 50, and at most 10
    assert proof.content == other.content
    assert torch.equal(one.features["corners"].values, many.features["corners"].values)


def test_nothing_is_decoded_again_where_the_answers_arrive(tmp_path: Path) -> None:
    """The report's data block asks for digests and counts, which the workers have sent."""
    images = made_set(30, Made(log=tmp_path / "log"))
    gathered(images)
    images.describe()
    assert len((tmp_path / "log").read_text().splitlines()) == 30


def test_a_worker_learns_no_patient(tmp_path: Path) -> None:
    """Patients and private header fields stay where they are."""
    _, _, sent = gathered(made_set(30, Made(log=tmp_path / "log")))
    assert not [line for line in (tmp_path / "log").read_text().splitlines() if "patient" in line or "phi." in line]
    assert b"patient 1" not in pickle.dumps(sent)
    assert b"Doe" not in pickle.dumps(sent)


def test_the_store_serves_and_is_served(tmp_path: Path) -> None:
    """Rows that the store has are not computed; what is computed is kept for a run of any engine."""
    first, _, _ = gathered(made_set(90), store=FeatureStore(tmp_path))
    assert first.extracted == {"corners": 89}  # image 49 and image 3 are one
    second, _, _ = gathered(made_set(120), store=FeatureStore(tmp_path))
    assert second.extracted == {"corners": 29}  # nor is image 99
    alone = survey(made_set(120), {"corners": Corners()}, LEVELS, FeatureStore(tmp_path))
    assert alone.extracted == {"corners": 0}
    assert torch.equal(alone.features["corners"].values, second.features["corners"].values)


def test_rows_that_the_store_loses_meanwhile_are_computed(tmp_path: Path) -> None:
    """Another process may prune the store between the sending of digests and their use."""
    gathered(made_set(60), store=FeatureStore(tmp_path))
    store = FeatureStore(tmp_path)

    def prune(answer):
        for shard in tmp_path.glob("*/*.safetensors"):
            shard.unlink()
        return answer

    found, _, sent = gathered(made_set(60), store=store, change=prune)
    assert len(sent) > len({order.shard.id for order in sent})
    wanted = survey(made_set(60), {"corners": Corners()}, LEVELS)
    assert torch.equal(found.features["corners"].values, wanted.features["corners"].values)


def test_digests_that_end_in_zero_bytes_are_found() -> None:
    """numpy drops zero bytes at the end of a string, which must make no row unknown, nor another one known."""
    whole = bytes(range(1, 33))
    ending, shorter = whole[:31] + b"\0", whole[:30] + b"\0\0"
    known = work._Found(np.sort(np.array([whole, ending], dtype="S32")))
    assert known._is_known(whole.hex())
    assert known._is_known(ending.hex())
    assert not known._is_known(shorter.hex())


@pytest.mark.parametrize("split", [False, True])
def test_a_broken_image_is_the_same_error(split: bool) -> None:
    """The same class and the same line as from one process."""
    said = []
    for run in (lambda images: survey(images, {"c": Corners()}, LEVELS), lambda images: gathered(images, split=split)):
        with pytest.raises(MedtrustError) as caught:
            run(made_set(600, Made(broken=411)))
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]
    assert "image 411 is cut off" in said[0][1]


def test_an_unexpected_error_names_shard_and_place() -> None:
    """What no one raised on purpose comes home as one line too."""
    with pytest.raises(EngineError, match=r"shard 0 of train .* ZeroDivisionError: by nothing, at scale_sets.py:\d+"):
        gathered(made_set(20), Faulty)


def test_a_space_that_looks_at_the_images_beside_is_caught() -> None:
    """Two shards hold the same pixels and different features."""
    with pytest.raises(PluginError, match=r"corners gives image0149\.png other features"):
        gathered(made_set(600), Sociable)


def test_another_version_or_instruction_set_is_refused() -> None:
    """Numbers that may differ in the last digits are not mixed."""
    for name, value in (("torch", "1.0"), ("instruction set of medtrust", "scalar"), ("feature space corners", "f0")):

        def change(answer, name=name, value=value):
            return replace(answer, facts={**answer.facts, name: value})

        with pytest.raises(EngineError, match=f"has {name} {value}, this process"):
            gathered(made_set(20), change=change)


def test_lost_and_doubled_rows_stop_the_run() -> None:
    """An engine that loses a row, or a shard's features, is found out."""
    with pytest.raises(EngineError, match=r"shard 0 of train .* lacks 1"):
        gathered(made_set(20), change=lambda a: replace(a, positions=a.positions[:-1], digests=a.digests[:-1]))
    with pytest.raises(EngineError, match="without the features of 8 images"):
        gathered(made_set(20), change=lambda a: replace(a, rows={"corners": ()}))


def test_images_of_unlike_size_in_a_space_that_minds() -> None:
    """The same sentence as from one process."""

    class Flat(Corners):
        names = ()

        def extract(self, images, intensity):
            return images.flatten(1).float()

    import scale_sets

    scale_sets.Flat = Flat  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"image0300\.png gives 30 features .* 64"):
        gathered(made_set(600, shapes=True), Flat)
