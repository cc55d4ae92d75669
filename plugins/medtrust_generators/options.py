"""Options that arrive as text, checked and turned into numbers."""

from __future__ import annotations

from collections.abc import Mapping

from medtrust.errors import ConfigError

__all__ = ["Options"]


class Options:
    """Options of one generator: the given ones over the defaults.

    Args:
        kind: Name of the generator, for messages.
        defaults: Every known option with its default.
        given: What the user said.

    Raises:
        ConfigError: An unknown option.
    """

    def __init__(self, kind: str, defaults: Mapping[str, str | int | float], given: Mapping[str, str]) -> None:
        unknown = sorted(set(given) - set(defaults))
        if unknown:
            known = ", ".join(f"{name}={value}" for name, value in defaults.items())
            raise ConfigError(f"generator {kind} knows no option {unknown[0]!r}; it has {known}")
        self.kind = kind
        self.values = {**defaults, **given}

    def whole(self, name: str, *, lo: int, hi: int, multiple: int = 1) -> int:
        """Read a whole number in lo … hi that is a multiple of `multiple`.

        Raises:
            ConfigError: It is not.
        """
        try:
            value = int(str(self.values[name]))
        except ValueError:
            value = lo - 1
        if not lo <= value <= hi or value % multiple:
            of = f", a multiple of {multiple}" if multiple > 1 else ""
            stated = f"option {name}={self.values[name]} of generator {self.kind}"
            raise ConfigError(f"{stated} must be a whole number from {lo} to {hi}{of}")
        return value

    def number(self, name: str, *, lo: float, hi: float) -> float:
        """Read a number in lo … hi.

        Raises:
            ConfigError: It is not.
        """
        try:
            value = float(self.values[name])
        except ValueError:
            value = float("nan")
        if not lo <= value <= hi:
            raise ConfigError(
                f"option {name}={self.values[name]} of generator {self.kind} must be a number from {lo:g} to {hi:g}"
            )
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Read one of a few words.

        Raises:
            ConfigError: It is another.
        """
        value = str(self.values[name])
        if value not in allowed:
            raise ConfigError(f"option {name}={value} of generator {self.kind} must be one of {', '.join(allowed)}")
        return value
