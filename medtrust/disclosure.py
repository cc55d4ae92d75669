"""Search what is about to leave for what must not: names, identifiers and dates seen in the input.

Text is compared as runs of letters and digits, so `DOE^JOHN` is found in "Doe, John" and in `doe_john.dcm`, and
20040119 in "2004-01-19". Quotes and brackets end a text: `["train", 100]` does not disclose the patient `train-100`. A
decimal number is no text either: 0.123456 does not disclose the identifier 123456.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Guard", "Leak"]

_TOKEN = re.compile(r"[^\W_]+|[\"\[\]{}<>:;|=\n]")  # words, and the marks that end a text
_MARKS = frozenset('"[]{}<>:;|=\n')
_DECIMAL = re.compile(r"(?<![\d.])\d+\.\d+(?:[eE][-+]?\d+)?(?![\d.])")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DATA_URI = re.compile(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+")
LEAST_CHARACTERS = 5  # what is shorter occurs by chance in any text
LEAST_DIGITS = 6

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leak:
    """A private value found in an output: which file, and what kind of value; never the value itself."""

    file: str
    kind: str


class Guard:
    """Knows the private values of an input and finds them in outputs.

    Args:
        private: Kind of each private value, such as {"DOE^JOHN": "PatientName"}.
        public: Texts that may appear whatever they hold, such as the names of synthetic images.
    """

    def __init__(self, private: Mapping[str, str], public: Iterable[str] = ()) -> None:
        self._by_first: dict[str, list[tuple[Tokens, str]]] = {}
        known = _vocabulary()
        spoken = {form for text in public for form in _windows(_tokens(text))}
        self.unsearchable = 0
        for value, kind in sorted(private.items()):
            forms = [form for form in _forms(value) if form not in spoken]
            if not forms or not _distinctive(forms[0], kind, known):
                self.unsearchable += 1
                continue
            for form in forms:
                self._by_first.setdefault(form[0], []).append((form, kind))

    def search(self, outputs: Mapping[str, bytes]) -> list[Leak]:
        """Find private values in files that are about to be written.

        Args:
            outputs: Content by file name.

        Returns:
            One leak per file and kind, sorted.
        """
        found = set()
        for name, content in outputs.items():
            tokens = _tokens(content.decode("utf-8", "replace"))
            for place, token in enumerate(tokens):
                for form, kind in self._by_first.get(token, ()):
                    if tokens[place : place + len(form)] == form:
                        found.add((name, kind))
        return [Leak(*pair) for pair in sorted(found)]


def _tokens(text: str) -> Tokens:
    text = html.unescape(_DATA_URI.sub(" ", text))
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return tuple(_TOKEN.findall(_DECIMAL.sub(" ", text).casefold()))


def _windows(tokens: Tokens, longest: int = 4) -> Iterable[Tokens]:
    """Every run of up to `longest` tokens."""
    for start in range(len(tokens)):
        for end in range(start + 1, min(start + longest, len(tokens)) + 1):
            yield tokens[start:end]


def _forms(value: str) -> list[Tokens]:
    """The ways in which a value may be written: as it is, a name turned round, a date with separators."""
    whole = _tokens(value)
    tokens = tuple(token for token in whole if token not in _MARKS)
    if not tokens:
        return []
    forms = [tokens, whole]
    if "^" in value and len(tokens) > 1:
        forms.append((*tokens[1:2], tokens[0]))
        forms.append(tokens[:2])
    date = _DATE.fullmatch(value.strip())
    if date:
        forms += [(date[1], date[2], date[3]), (date[3], date[2], date[1])]
    return list(dict.fromkeys(forms))


def _distinctive(form: Tokens, kind: str, known: frozenset[str]) -> bool:
    """Whether finding this would mean something: long enough, and not words that reports use anyway."""
    letters = "".join(form)
    enough = LEAST_DIGITS if letters.isdigit() else LEAST_CHARACTERS
    if kind == "file name" and len(form) == 1 and letters.isalpha():
        return False  # a file called radiomics.npz names nobody
    telling = [t for t in form if t not in known and not (t.isdigit() and len(t) < LEAST_DIGITS and len(form) > 1)]
    mixed = len(form) > 1 and any(len(t) == 1 and t.isalpha() for t in form)  # P-0012
    return len(letters) >= enough and bool(telling or mixed)


def _vocabulary() -> frozenset[str]:
    """Words of our own templates, and what de-identification leaves behind."""
    own = "".join(files("medtrust.report").joinpath(name).read_text("utf-8") for name in ("report.html", "schema.json"))
    left = "anonymous anonymized anonymised anon deidentified removed redacted unknown none patient test phantom"
    return frozenset((*_tokens(own), *left.split()))
