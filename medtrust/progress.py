"""Progress for long work: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["PlainProgress", "Progress", "QuietProgress", "Stage", "TerminalProgress", "make_progress"]


class Stage(Protocol):
    """One stage of long work."""

    def advance(self, n: int = 1) -> None:
        """Say that `n` more items are done."""
        ...


class Progress(Protocol):
    """Where long work reports how far it is."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Stage]:
        """Open a stage of `total` items."""
        ...

    def say(self, line: str) -> None:
        """Print one line for the reader without disturbing a bar."""
        ...


class QuietProgress:
    """Reports nothing: the default of the Python interface."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Stage]:
        """Open a stage that nobody sees."""
        yield self

    def advance(self, n: int = 1) -> None:
        """Count nothing."""

    def say(self, line: str) -> None:
        """Print nothing."""


class _PlainStage:
    def __init__(self, title: str, total: int, out: TextIO, every: float) -> None:
        self.title, self.total, self.out, self.every = title, total, out, every
        self.done = 0
        self.began = self.spoke = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.spoke >= self.every:
            self.spoke = now
            rate = self.done / (now - self.began)
            left = (self.total - self.done) / rate if rate else 0.0
            print(f"{self.title}: {self.done}/{self.total}, {rate:.0f}/s, {left:.0f} s left", file=self.out, flush=True)


class PlainProgress:
    """One line when a stage ends, and one every few seconds while it runs: for logs and CI."""

    def __init__(self, out: TextIO | None = None, every: float = 10.0) -> None:
        self.out = out or sys.stderr
        self.every = every

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Stage]:
        """Open a stage that ends with a line of its own."""
        stage = _PlainStage(title, total, self.out, self.every)
        yield stage
        seconds = time.monotonic() - stage.began
        print(f"{title}: {stage.done}/{total} in {seconds:.1f} s", file=self.out, flush=True)

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=self.out, flush=True)


class _TerminalStage:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self.bars, self.task = bars, task

    def advance(self, n: int = 1) -> None:
        self.bars.update(self.task, advance=n)


class TerminalProgress:
    """A bar with rate and remaining time, drawn by rich on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Stage]:
        """Open a stage with a bar of its own."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Bars(*columns, console=self.console) as bars:
            yield _TerminalStage(bars, bars.add_task(title, total=total))

    def say(self, line: str) -> None:
        """Print the line above the bar."""
        self.console.print(line, markup=False, highlight=False)


def make_progress(quiet: bool = False) -> Progress:
    """Choose the kind of progress that fits where standard error goes.

    Args:
        quiet: Report nothing at all.
    """
    if quiet:
        return QuietProgress()
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()
