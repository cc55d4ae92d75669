"""Evidence: a synthetic image beside its nearest real ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medtrust.types import Evidence, Picture

__all__ = ["MOST", "pair"]

MOST = 12  # evidence items per result


def pair(
    rank: int,
    title: str,
    synthetic: int,
    nearest: Iterable[tuple[str, int]],
    facts: Mapping[str, float | int | str | bool],
) -> Evidence:
    """Show a synthetic image, its nearest real images, and how it differs from the first of them.

    Args:
        rank: 1 is the most telling.
        title: One line.
        synthetic: Index of the synthetic image.
        nearest: Set name and index of each real image, the most similar first.
        facts: Numbers to print with it.
    """
    shown: list[tuple[str, int]] = [("synthetic", synthetic), *nearest]
    pictures = [Picture(name, f"{name} image {index}", ((name, index),)) for name, index in shown]  # type: ignore[arg-type]
    first = shown[1]
    pictures.append(
        Picture(
            "difference",
            f"absolute difference between synthetic image {synthetic} and {first[0]} image {first[1]}, laid over it",
            (("synthetic", synthetic), first),  # type: ignore[arg-type]
        )
    )
    return Evidence("pair", title, rank, facts, tuple(pictures))
