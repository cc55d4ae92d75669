"""Carries questions and answers over a Flower Grid; finds sites again that come back, and names what it refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medtrust.errors import MedtrustError
from medtrust.flower.exchange import Exchange
from medtrust.secagg.wire import Message, Refused, pack, unpack
from medtrust.writing import write_atomically

__all__ = ["Answer", "Courier", "Post", "SiteLog"]


@dataclass(frozen=True)
class Answer:
    """What came back for one question.

    Args:
        ticket: The question's number.
        content: The bytes, None where there are none.
        trouble: Why there are none.
        refused: The site itself declined, rather than being out of reach.
    """

    ticket: str
    content: bytes | None
    trouble: str = ""
    refused: bool = False


class Post(Protocol):
    """Somebody who delivers bytes to nodes; see `medtrust.flower.apps.GridPost`."""

    def nodes(self) -> Iterable[int]:
        """Nodes that are connected."""
        ...

    def send(self, node: int, content: bytes) -> str:
        """Send and return a ticket."""
        ...

    def collect(self, tickets: list[str]) -> list[Answer]:
        """Answers that are there."""
        ...


@dataclass
class SiteLog:
    """What passed between the coordinator and one site.

    Args:
        sent: Bytes to the site.
        received: Bytes from the site.
        refused: Why messages of it were refused, in order.
        returned: How often it came back as another process.
    """

    sent: int = 0
    received: int = 0
    refused: list[str] = field(default_factory=list)
    returned: int = 0


class Courier:
    """Asks, waits, asks again, until every site has answered, failed three times, or the time is over.

    Args:
        post: Who delivers.
        study: Digest of the study.
        keys: Public key by site.
        run: 32 hexadecimal digits.
        say: Where the log goes, one line each.
        transcript: Folder that receives every byte that a site sent.
        resend: Seconds after which an unanswered question is asked again.
        clock: Seconds that pass.
        sleep: Waits.
    """

    most_failures = 3
    pause = 0.25
    look = 1.0

    def __init__(
        self,
        post: Post,
        *,
        study: str,
        keys: Mapping[str, Ed25519PublicKey],
        run: str,
        say: Callable[[str], None],
        transcript: Path,
        resend: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.post, self.study, self.keys, self.run, self.say = post, study, keys, run, say
        self.transcript, self.resend, self.clock, self.sleep = transcript, resend, clock, sleep
        self.log = {site: SiteLog() for site in keys}
        self.strangers: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self._node: dict[str, int] = {}
        self._greeted: dict[int, tuple[int, float]] = {}
        self._tickets: dict[str, tuple[str, str | None, int]] = {}
        self._files = 0
        self._looked = -self.look

    def carry(self, exchange: Exchange, patience: Callable[[str], float]) -> None:
        """Take an exchange through all its stages.

        Args:
            exchange: What is wanted.
            patience: Seconds to wait for the sites in a stage of that name.

        Raises:
            Insufficient: Too few sites answered.
        """
        while exchange.stage is not None:
            stage, began = exchange.stage, self.clock()
            self._stage(exchange, stage, patience(stage))
            self.seconds[stage] = self.clock() - began
            missing = exchange.waiting
            exchange.advance()
            self.say(
                f"{stage}: done in {self.seconds[stage]:.1f} s" + (f", without {', '.join(missing)}" * bool(missing))
            )

    def announce(self, results: Mapping[str, Mapping[str, Any]], patience: float = 5.0) -> None:
        """Tell each site what became of it; a site that cannot be reached learns it from the coordinator's person.

        Args:
            results: Header fields by site.
            patience: Seconds to wait for their thanks.
        """
        for site, result in results.items():
            if site in self._node:
                self._ask(site, "outcome", pack(Message({**self._about("outcome"), "site": site, **result})))
        waiting, began = set(results) & set(self._node), self.clock()
        while waiting and self.clock() - began < patience:
            waiting -= {site for site, stage, _ in self._answers() if stage == "outcome"}
            self.sleep(self.pause)

    def _stage(self, exchange: Exchange, stage: str, patience: float) -> None:
        began = self.clock()
        requests = exchange.requests()
        asked: dict[str, tuple[float, int]] = {}
        failures = dict.fromkeys(requests, 0)
        while left := [site for site in exchange.waiting if failures[site] < self.most_failures]:
            now = self.clock()
            if now - began > patience:
                self.say(f"{stage}: no answer from {', '.join(left)} in {patience:.0f} s")
                return
            self._greet(now)
            for site in left:
                node = self._node.get(site)
                last, whom = asked.get(site, (0.0, None))
                if node is not None and (whom != node or now - last > self.resend):
                    self._ask(site, stage, requests[site])
                    asked[site] = (now, node)
            for site, about, answer in self._answers():
                if about != stage or site not in exchange.waiting:
                    continue  # a late double of an answer that was taken
                try:
                    if answer.content is None:
                        raise Refused(site, f"declines: {answer.trouble}")
                    exchange.accept(site, answer.content)
                except Refused as refused:
                    failures[site] += 1
                    asked.pop(site, None)
                    self.log[site].refused.append(refused.reason)
                    again = "asked again" if failures[site] < self.most_failures else "given up"
                    self.say(f"{stage}: refused {site}: {refused.reason}; {again}")
                else:
                    self.say(f"{stage}: accepted {site}, {len(answer.content)} bytes")
            self.sleep(self.pause)

    def _greet(self, now: float) -> None:
        if now - self._looked < self.look:
            return
        self._looked = now
        for node in self.post.nodes():
            times, last = self._greeted.get(node, (0, -self.resend))
            if node not in self._node.values() and times < self.most_failures and now - last >= self.resend:
                self._greeted[node] = (times + 1, now)
                ticket = self.post.send(node, pack(Message({**self._about("hello"), "node": str(node)})))
                self._tickets[ticket] = ("hello", None, node)

    def _ask(self, site: str, stage: str, content: bytes) -> None:
        self.log[site].sent += len(content)
        self._tickets[self.post.send(self._node[site], content)] = (stage, site, self._node[site])

    def _answers(self) -> list[tuple[str, str, Answer]]:
        found = []
        for answer in self.post.collect(list(self._tickets)):
            stage, site, node = self._tickets.pop(answer.ticket)
            if answer.content is not None:
                self._keep(stage, site or f"node-{node}", answer.content)
            if site is None:
                self._introduce(node, answer)
            elif stage == "outcome":
                found.append((site, stage, answer))  # a site that has left by now has heard it
            elif answer.content is None and not answer.refused:
                self.say(f"{stage}: {site} is out of reach ({answer.trouble}); waiting for it")
            else:
                self.log[site].received += len(answer.content or b"")
                found.append((site, stage, answer))
        return found

    def _introduce(self, node: int, answer: Answer) -> None:
        if answer.content is None:
            if answer.refused:
                self._strange(node, answer.trouble)
            return
        try:
            claimed = unpack(answer.content[:-64], f"node {node}").header.get("site")
            if not isinstance(claimed, str) or claimed not in self.keys:
                raise Refused(f"node {node}", f"claims to be {claimed!r}, which the study does not list")
            message = unpack(answer.content, f"node {node}, which claims to be {claimed},", self.keys[claimed])
            expected = {**self._about("hello"), "node": str(node)}
            if {name: message.header.get(name) for name in expected} != expected:
                raise Refused(f"node {node}", "answers another question than who it is")
        except MedtrustError as error:
            self._strange(node, str(error))
            return
        self._greeted.pop(node, None)
        if claimed in self._node:
            self.log[claimed].returned += 1
        self.say(f"{claimed} {'came back' if claimed in self._node else 'joined'} as node {node}")
        self._node[claimed] = node

    def _strange(self, node: int, reason: str) -> None:
        self.strangers.setdefault(str(node), []).append(reason)
        self.say(f"hello: refused node {node}: {reason}")

    def _about(self, stage: str) -> dict[str, Any]:
        return {"study": self.study, "run": self.run, "stage": stage}

    def _keep(self, stage: str, who: str, content: bytes) -> None:
        self._files += 1
        name = re.sub(r"[^\w.-]", "_", f"{self._files:05d}-{stage}-{who}")
        write_atomically(self.transcript / name, content)
