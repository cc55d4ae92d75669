"""One site's answers: who it is, its statement or its part of a secure sum, and what became of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtrust.errors import ConfigError, SafetyError
from medtrust.federated import SigningKey, Statement, Study
from medtrust.flower.exchange import public_keys
from medtrust.secagg import Participant, Refused
from medtrust.secagg.wire import Message, pack, unpack

__all__ = ["SiteDesk", "layout_bytes", "open_desk"]


def layout_bytes(layout: Any) -> bytes:
    """The layout of a summable vector as bytes that are equal wherever the layout is."""
    return json.dumps(layout, separators=(",", ":")).encode()


class SiteDesk:
    """Answers the coordinator for one site from a statement that was computed, and read, before.

    In a study of secure sums the statement itself never leaves: only its masked vector does.

    Args:
        study: What was agreed.
        statement: The site's signed statement.
        key: The site's private key.
        folder: Private folder for the state of secure sums.
        say: Where a line for the person at the site goes.

    Raises:
        SafetyError: The statement is not one of this site in this study.
        ConfigError: The key is not the one that the study lists for the site.
    """

    def __init__(
        self, study: Study, statement: bytes, key: SigningKey, folder: Path, say: Callable[[str], None] = print
    ) -> None:
        self.study, self.key, self.say = study, key, say
        self.statement = Statement.from_bytes(statement, study)
        self.site = self.statement.site
        if study.keys[self.site] != key.public:
            raise ConfigError(f"the key is not the one that the study lists for {self.site}: name that site's key")
        self.outcome: dict[str, Any] | None = None
        self.participant: Participant | None = None
        if study.secure_sums:
            layout, vector = self.statement.summable()
            self.participant = Participant(
                study=study.digest,
                site=self.site,
                key=key.private,
                keys=public_keys(study.keys),
                vector=vector,
                layout=layout_bytes(layout),
                folder=folder,
            )

    def answer(self, request: bytes) -> bytes:
        """Answer one request.

        Args:
            request: What the coordinator sent.

        Raises:
            Refused: The request is malformed, for another study, or asks for what this study does not reveal.
        """
        try:
            return self._answer(request)
        except Refused as refused:
            self.say(f"{self.site}: refused: {refused.reason}")
            raise

    def _answer(self, request: bytes) -> bytes:
        header = unpack(request, "coordinator").header
        stage = header.get("stage")
        if header.get("study") != self.study.digest:
            raise Refused("coordinator", f"asks about the study {header.get('study')}, not {self.study.digest}")
        if stage == "hello":
            return self._signed(header, "hello")
        if stage == "outcome":
            self.outcome = {"result": header.get("result"), "reasons": header.get("reasons")}
            return self._signed(header, "outcome")
        self.say(f"{self.site}: the coordinator asks for {stage}")
        if self.participant is not None:
            return self.participant.answer(request)
        if stage != "statement":
            raise Refused("coordinator", f"asks for {stage}; in this study a site gives its signed statement")
        return self.statement.to_bytes()

    def _signed(self, header: Any, stage: str) -> bytes:
        # the node's number is signed too: an introduction that somebody else passes on introduces nobody
        said = {"study": self.study.digest, "stage": stage, "site": self.site}
        return pack(Message({**said, "run": header.get("run"), "node": header.get("node")}), self.key.private)


def open_desk(study: Path, statement: Path, key: Path, folder: Path, say: Callable[[str], None] = print) -> SiteDesk:
    """Open a desk from files.

    Args:
        study: The study's file.
        statement: The statement's file, from `medtrust federated site`.
        key: The site's private key.
        folder: Private folder for state.
        say: Where a line for the person at the site goes.

    Raises:
        ConfigError: A file cannot be read.
        SafetyError: The statement is not one of this study.
    """
    from medtrust.federated import read_key

    contents = []
    for path in (study, statement):
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); name the right file") from error
    desk = SiteDesk(Study.from_bytes(contents[0]), contents[1], read_key(key), folder, say)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        raise SafetyError(f"the folder {folder} can be read by others on this machine: chmod 700 it")
    return desk
