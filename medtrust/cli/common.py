"""What the commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medtrust.errors import ConfigError

if TYPE_CHECKING:
    from medtrust.report import TrustReport

__all__ = ["PATH", "pair", "show", "words"]

PATH = click.Path(path_type=Path)


def words(text: str | Sequence[str] | None) -> list[str]:
    """Split a comma-separated option; a list is taken as it is."""
    if text is None:
        return []
    parts = text.split(",") if isinstance(text, str) else text
    return [part.strip() for part in parts if part.strip()]


def pair(text: str, option: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise ConfigError(f"{option} {text} is not NAME=VALUE")
    return name, value


def show(report: TrustReport, out: Path | None = None) -> int:
    """Print a report's summary and where it lies; return its exit code."""
    from rich.console import Console

    from medtrust.report.terminal import summary

    where = str(out / "report.html") if out and (out / "report.html").exists() else str(out or "")
    Console(highlight=False).print(summary(report, where), soft_wrap=True)
    return report.exit_code
