"""A TOML table that is read strictly: every key is asked for by name, and what is left over is an error."""

from __future__ import annotations

import datetime
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from medtrust.errors import ConfigError

__all__ = ["Table", "near_miss"]


class Table:
    """A TOML table whose keys are taken one by one; what is left at the end was not understood."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.content, self.where, self.known = content, where, list[str]()

    def fail(self, problem: str) -> NoReturn:
        """Refuse the file, saying where."""
        raise ConfigError(f"{self.where}: {problem}")

    def take(self, key: str, default: Any, kind: type | tuple[type, ...], what: str) -> Any:
        """Take a key of the given type; without a default it must be there."""
        self.known.append(key)
        value = self.content.get(key, default)
        if value is None:
            near = [k for k in self.content if k not in self.known]
            self.fail(f"{key!r} is missing{near_miss(key, near, 'is it the one written as')}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"{key} must be {what}, it is {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Take a text."""
        value: str = self.take(key, default, str, "a text")
        if not value and default is None:
            self.fail(f"{key} is empty")
        return value

    def number(self, key: str) -> float:
        """Take a finite number."""
        value = float(self.take(key, None, (int, float), "a number"))
        if not math.isfinite(value):
            self.fail(f"{key} must be finite, it is {value}")
        return value

    def level(self, key: str, default: float) -> float:
        """Take a confidence level."""
        value = float(self.take(key, default, (int, float), "a number"))
        if not 0.5 <= value < 1:
            self.fail(f"{key} must be a confidence level from 0.5 up to 1, it is {value}")
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str | None = None) -> str:
        """Take one of a few words."""
        value = self.text(key, default)
        if value not in known:
            self.fail(f"{key} must be one of {', '.join(known)}, it is {value!r}{near_miss(value, known)}")
        return value

    def date(self, key: str) -> datetime.date:
        """Take a date."""
        value: datetime.date = self.take(key, None, datetime.date, "a date such as 2027-01-31")
        if isinstance(value, datetime.datetime):
            self.fail(f"{key} must be a date without a time, it is {value}")
        return value

    def table(self, key: str) -> Table:
        """Take a table below this one."""
        return Table(self.take(key, {}, dict, "a table"), f"{self.where}, [{key}]")

    def tables(self, key: str) -> Iterable[Table]:
        """Take a list of tables."""
        rows = self.take(key, [], list, f"a list of tables, written [[{key}]]")
        for row in rows:
            if not isinstance(row, dict):
                self.fail(f"{key} must be a list of tables, written [[{key}]]")
            yield Table(row, f"{self.where}, {key}")

    def done(self) -> None:
        """Refuse every key that nobody asked for."""
        for key in self.content:
            if key not in self.known:
                self.fail(f"unknown key {key!r}{near_miss(key, self.known)}; known: {', '.join(self.known)}")


def near_miss(word: str, known: Iterable[str], ask: str = "did you mean") -> str:
    """A hint at the known word that was probably meant; empty if none is close."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f" ({ask} {close[0]!r}?)" if close else ""
