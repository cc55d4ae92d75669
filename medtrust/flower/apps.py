"""The Flower App: the coordinator's ServerApp and the sites' ClientApp."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from medtrust.errors import MedtrustError
from medtrust.flower.courier import Answer, Courier
from medtrust.flower.exchange import Exchange, Statements, public_keys
from medtrust.flower.site import SiteDesk, open_desk
from medtrust.secagg import Summation
from medtrust.secagg.wire import Refused
from medtrust.writing import write_atomically

__all__ = ["GridPost", "client", "make_client", "server"]

_RECORD = "medtrust"
_DAY = 24 * 3600.0


class GridPost:
    """Delivers bytes through a Flower Grid.

    Args:
        grid: Flower's Grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def nodes(self) -> Iterable[int]:
        """Nodes that are connected."""
        return list(self.grid.get_node_ids())

    def send(self, node: int, content: bytes) -> str:
        """Send bytes to a node; returns the message's number, empty when the SuperLink did not take it."""
        record = RecordDict({_RECORD: ConfigRecord({"request": content})})
        message = Message(record, dst_node_id=node, message_type="query", ttl=_DAY)
        return str(next(iter(self.grid.push_messages([message])), None) or "")

    def collect(self, tickets: list[str]) -> list[Answer]:
        """Answers that are there."""
        if not tickets:
            return []
        return [_answer(message) for message in self.grid.pull_messages(tickets)]


def _answer(message: Message) -> Answer:
    ticket = message.metadata.reply_to_message_id
    if message.has_error():
        return Answer(ticket, None, f"Flower error {message.error.code}: {message.error.reason}")
    records = message.content.config_records
    record = dict(records[_RECORD]) if _RECORD in records else {}
    reply, refused = record.get("reply"), record.get("refused")
    if isinstance(reply, bytes):
        return Answer(ticket, reply)
    if isinstance(refused, str):
        return Answer(ticket, None, refused[:500], refused=True)
    return Answer(ticket, b"")  # no answer of ours: refused as malformed where it is read


def make_client(answer: Callable[[bytes], bytes]) -> ClientApp:
    """A ClientApp that hands each request on.

    Args:
        answer: From request to reply; raises `Refused` to decline.
    """
    app = ClientApp()

    @app.query()
    def handle(message: Message, context: Context) -> Message:
        return Message(RecordDict({_RECORD: _handle(answer, message)}), reply_to=message)

    return app


def _handle(answer: Callable[[bytes], bytes], message: Message) -> ConfigRecord:
    records = message.content.config_records
    request = records[_RECORD].get("request") if _RECORD in records else None
    if not isinstance(request, bytes):
        return ConfigRecord({"refused": "this is no question of medtrust's"})
    try:
        return ConfigRecord({"reply": answer(request)})
    except Refused as refused:
        return ConfigRecord({"refused": refused.reason})


client = ClientApp()
"""For Flower's own SuperNode: `--node-config` names study, statement, key and folder."""


@client.query()
def _client(message: Message, context: Context) -> Message:
    desk = _desk({name: str(value) for name, value in context.node_config.items()})
    return Message(RecordDict({_RECORD: _handle(desk.answer, message)}), reply_to=message)


def _desk(config: dict[str, str]) -> SiteDesk:
    missing = [name for name in ("study", "statement", "key", "folder") if name not in config]
    if missing:
        raise ValueError(f"start the SuperNode with --node-config that names {', '.join(missing)} (see docs/flower.md)")
    study, statement, key, folder = (Path(config[name]) for name in ("study", "statement", "key", "folder"))
    return open_desk(study, statement, key, folder)


server = ServerApp()
"""Started by `medtrust federated serve`, or by `flwr run` with the run configuration `folder`."""


@server.main()
def _server(grid: Grid, context: Context) -> None:
    coordinate(grid, Path(str(context.run_config["folder"])))


def coordinate(grid: Grid, folder: Path) -> None:
    """Ask the sites for what the study wants and leave it in the folder.

    Args:
        grid: Flower's Grid.
        folder: The coordinator's: holds `study.medtrust` and `settings.json`; receives `statements/` or
            `sum.medtrust`, `coordinator.log`, `transcript/` and `transport.json`.

    Raises:
        MedtrustError: Too few sites came; what came is kept.
    """
    from medtrust.federated import Statement, Study

    study = Study.from_bytes((folder / "study.medtrust").read_bytes())
    settings = json.loads((folder / "settings.json").read_bytes())
    run, keys, say = secrets.token_hex(16), public_keys(study.keys), _logger(folder / "coordinator.log")
    courier = Courier(
        GridPost(grid),
        study=study.digest,
        keys=keys,
        run=run,
        say=say,
        transcript=folder / "transcript" / run,
        resend=float(settings["resend"]),
    )
    have = {} if study.secure_sums else _earlier(folder, study, say)
    exchange: Statements | Summation = (
        Summation(study=study.digest, keys=keys, run=run)
        if study.secure_sums
        else Statements(
            study=study.digest,
            sites=list(keys),
            run=run,
            check=lambda raw: Statement.from_bytes(raw, study).site,
            have=have,
        )
    )
    say(f"study {study.name} ({study.digest[:12]}), run {run[:8]}: {_mode(exchange)} from {', '.join(keys)}")
    began, problem = time.monotonic(), ""
    try:
        courier.carry(
            exchange,
            lambda stage: float(settings["wait" if stage in ("keys", "statement") else "patience"]),
        )
    except MedtrustError as error:
        problem = str(error)
        say(f"stopped: {problem}")
    finally:
        # also after a failure: what the sites sent is theirs, and is never lost
        took_part = _keep(exchange, folder)
    _announce(courier, list(keys), took_part, problem)
    _write_json(
        folder / "transport.json",
        {
            "study": study.digest,
            "run": run,
            "transport": "flower",
            "release": study.header["release"],
            "problem": problem,
            "took_part": took_part,
            "sites": {site: vars(log) for site, log in courier.log.items()},
            "strangers": courier.strangers,
            "seconds": {**courier.seconds, "all": time.monotonic() - began},
        },
    )
    if problem:
        raise MedtrustError(problem)


def _mode(exchange: Exchange) -> str:
    return "one secure sum" if isinstance(exchange, Summation) else "signed statements"


def _keep(exchange: Statements | Summation, folder: Path) -> list[str]:
    if isinstance(exchange, Statements):
        for site, raw in exchange.received.items():
            write_atomically(folder / "statements" / f"{site}.statement", raw)
        return sorted(exchange.received)
    if exchange.vector is None:
        return []
    from medtrust.federated.packing import pack

    header = {"study": exchange.study, "sites": exchange.sites, "layout": json.loads(exchange.layout)}
    write_atomically(folder / "sum.medtrust", pack(header, {"sum": exchange.vector}))
    return exchange.sites


def _earlier(folder: Path, study: Any, say: Callable[[str], None]) -> dict[str, bytes]:
    """Statements that an earlier run of the same study received."""
    from medtrust.federated import Statement

    have = {}
    for path in sorted((folder / "statements").glob("*.statement")):
        raw = path.read_bytes()
        try:
            have[Statement.from_bytes(raw, study).site] = raw
        except MedtrustError as error:
            say(f"{path.name} is not used: {error}")
    for site in have:
        say(f"statement: {site} sent it before")
    return have


def _announce(courier: Courier, sites: list[str], took_part: list[str], problem: str) -> None:
    courier.announce(
        {
            site: {
                "result": "stopped" if problem else "took part" if site in took_part else "left out",
                "reasons": [*courier.log[site].refused, *([problem] if problem else [])],
            }
            for site in sites
        }
    )


def _logger(path: Path) -> Callable[[str], None]:
    def say(line: str) -> None:
        stamped = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}"
        print(stamped, flush=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in stamped) + "\n")

    return say


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
