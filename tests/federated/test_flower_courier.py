"""Carrying statements and secure sums: what a site does wrong costs that site alone, and is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("Crypto", reason="the transport over Flower needs the extra medtrust[flower]")

from federated_sites import key_of
from flower_files import write_federation
from needles import found, needles, stored

from medtrust.errors import ConfigError, Insufficient, SafetyError
from medtrust.federated import Statement, Study, from_sum, merge
from medtrust.flower.courier import Answer, Courier
from medtrust.flower.exchange import Statements, public_keys
from medtrust.flower.site import SiteDesk, open_desk
from medtrust.report import to_json
from medtrust.secagg import Refused, Summation
from medtrust.secagg.wire import Message, pack

RUN = "5a" * 16


class FakePost:
    """Delivers at once; nodes can vanish, and a call can answer anything."""

    def __init__(self) -> None:
        self.answers: dict[int, Callable[[bytes], bytes]] = {}
        self.inbox: list[Answer] = []
        self.count = 0

    def nodes(self) -> list[int]:
        return list(self.answers)

    def send(self, node: int, content: bytes) -> str:
        self.count += 1
        ticket = str(self.count)
        if node not in self.answers:
            self.inbox.append(Answer(ticket, None, "node unavailable"))
            return ticket
        try:
            reply = self.answers[node](content)
        except Refused as refused:
            self.inbox.append(Answer(ticket, None, refused.reason, refused=True))
        except KeyboardInterrupt:  # the site's process is killed: no answer, ever
            del self.answers[node]
        else:
            self.inbox.append(Answer(ticket, reply))
        return ticket

    def collect(self, tickets: list[str]) -> list[Answer]:
        ready = [answer for answer in self.inbox if answer.ticket in tickets]
        self.inbox = [answer for answer in self.inbox if answer.ticket not in tickets]
        return ready


class Case:
    """Three or more sites on disk, a coordinator with a clock of its own."""

    def __init__(self, folder: Path, release: str, n: int = 3) -> None:
        self.folder, self.now, self.lines = folder, 0.0, []
        self.study = write_federation(folder, n, release=release)
        self.names = sorted(self.study.keys)
        self.post = FakePost()
        for node, name in enumerate(self.names, 1):
            self.post.answers[node] = self.desk(name).answer
        self.courier = Courier(
            self.post,
            study=self.study.digest,
            keys=public_keys(self.study.keys),
            run=RUN,
            say=self.lines.append,
            transcript=folder / "coordinator/transcript",
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def desk(self, name: str) -> SiteDesk:
        home = self.folder / name
        return open_desk(
            self.folder / "study.medtrust",
            home / "site.statement",
            home / "site.key",
            home / "state",
            say=lambda line: None,
        )

    def statement(self, name: str) -> Statement:
        return Statement.from_bytes((self.folder / name / "site.statement").read_bytes(), self.study)

    def exchange(self, **have: bytes) -> Statements | Summation:
        if self.study.secure_sums:
            return Summation(study=self.study.digest, keys=public_keys(self.study.keys), run=RUN)
        return Statements(
            study=self.study.digest,
            sites=self.names,
            run=RUN,
            check=lambda raw: Statement.from_bytes(raw, self.study).site,
            have=have,
        )

    def carry(self, exchange: Statements | Summation, patience: float = 60.0) -> Statements | Summation:
        self.courier.carry(exchange, lambda stage: patience)
        return exchange

    def log(self) -> str:
        return "\n".join(self.lines)


def _stage(request: bytes) -> str:
    return json.loads(request[request.index(b"{") : request.rindex(b"}") + 1])["stage"]


def test_statements_arrive_as_they_are(tmp_path):
    case = Case(tmp_path, "statements")
    done = case.carry(case.exchange())
    sent = {name: (tmp_path / name / "site.statement").read_bytes() for name in case.names}
    assert done.received == sent
    direct = merge(case.study, [case.statement(name) for name in case.names])
    carried = merge(case.study, [Statement.from_bytes(raw, case.study) for raw in done.received.values()])
    assert to_json(direct) == to_json(carried)


def test_the_secure_sum_is_the_plain_sum(tmp_path):
    """The sum over Flower's protocol equals math.fsum, and the report made of it the one of the pooled sums."""
    case = Case(tmp_path, "sums", n=4)
    done = case.carry(case.exchange())
    layouts, vectors = zip(*(case.statement(name).summable() for name in case.names), strict=True)
    plain = np.array([math.fsum(column) for column in zip(*vectors, strict=True)])
    assert np.array_equal(done.vector, plain)
    layout = tuple((name, tuple(shape)) for name, shape in json.loads(done.layout))
    assert layout == layouts[0]
    reports = [merge(case.study, from_sum(case.study, layout, v, case.names)) for v in (done.vector, plain)]
    assert to_json(reports[0]) == to_json(reports[1])


@pytest.mark.parametrize("release", ["statements", "sums"])
def test_malformed_messages_wrong_signatures_and_a_killed_site(tmp_path, release):
    """Each is refused or recovered, named, and nothing is lost."""
    case = Case(tmp_path, release)
    seen: list[str] = []
    stage = "masked" if release == "sums" else "statement"

    def once(name: str, wrong: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        right = case.desk(name).answer

        def answer(request: bytes) -> bytes:
            if _stage(request) == stage and name not in seen:
                seen.append(name)
                return wrong(right(request))
            return right(request)

        return answer

    def killed(reply: bytes) -> bytes:
        case.post.answers[11] = case.desk("site 0").answer  # it comes back as another node, with the same folder
        raise KeyboardInterrupt

    case.post.answers[1] = once("site 0", killed)
    case.post.answers[2] = once("site 1", lambda reply: b"\x00 this is no message \xff")
    case.post.answers[3] = once("site 2", lambda reply: reply[:-70] + bytes(64) + reply[-6:])
    done = case.carry(case.exchange())
    assert sorted(seen) == case.names
    log = case.log()
    assert "site 0 came back as node 11" in log
    assert f"{stage}: refused site 1: " in log
    assert f"{stage}: refused site 2: " in log
    assert case.courier.log["site 0"].returned == 1
    assert len(case.courier.log["site 1"].refused) == len(case.courier.log["site 2"].refused) == 1
    assert "wrong signature" in log if release == "sums" else "changed or cut off" in log
    if release == "sums":
        vectors = [case.statement(name).summable()[1] for name in case.names]
        assert np.array_equal(done.vector, [math.fsum(column) for column in zip(*vectors, strict=True)])
    else:
        assert sorted(done.received) == case.names
    kept = stored(tmp_path / "coordinator/transcript")
    assert any(b"this is no message" in content for content in kept.values())


def test_a_site_that_only_ever_sends_rubbish_is_given_up_and_the_others_count(tmp_path):
    case = Case(tmp_path, "statements")
    right = case.desk("site 1").answer
    case.post.answers[2] = lambda request: right(request) if _stage(request) == "hello" else b"rubbish"
    done = case.carry(case.exchange())
    assert sorted(done.received) == ["site 0", "site 2"]
    assert len(case.courier.log["site 1"].refused) == 3
    assert "refused site 1" in case.log()
    assert "given up" in case.log()
    assert "without site 1" in case.log()
    late = case.exchange(**done.received)
    case.post.answers[2] = right
    assert sorted(case.carry(late).received) == case.names  # a second run asks the missing site alone


def test_the_statement_of_another_site_is_refused(tmp_path):
    case = Case(tmp_path, "statements")
    right, other = case.desk("site 1").answer, case.desk("site 0").answer
    case.post.answers[2] = lambda request: right(request) if _stage(request) == "hello" else other(request)
    case.carry(case.exchange())
    assert "refused site 1: sent the statement of another site, site 0" in case.log()


def test_nobody_is_introduced_who_cannot_sign(tmp_path):
    """A stranger, a site's name under another key, and an introduction that was overheard."""
    case = Case(tmp_path, "statements")
    case.post.answers[21] = lambda request: b""
    case.post.answers[22] = lambda request: pack(Message({"site": "elsewhere"}), key_of("elsewhere").private)
    case.post.answers[23] = lambda request: pack(Message({"site": "site 0"}), key_of("site 1").private)
    heard = case.desk("site 0").answer(
        pack(Message({"study": case.study.digest, "run": RUN, "stage": "hello", "node": "1"}))
    )
    case.post.answers[24] = lambda request: heard
    done = case.carry(case.exchange())
    assert sorted(done.received) == case.names
    reasons = {node: " ".join(case.courier.strangers[node]) for node in ("21", "22", "23", "24")}
    assert "malformed" in reasons["21"]
    assert "'elsewhere', which the study does not list" in reasons["22"]
    assert "claims to be site 0,: wrong signature" in reasons["23"]
    assert "answers another question" in reasons["24"]


def test_without_enough_sites_the_run_stops_with_their_names(tmp_path):
    case = Case(tmp_path, "sums")
    del case.post.answers[2]
    with pytest.raises(Insufficient, match=r"2 of the 3 sites .* stage keys .*missing: site 1"):
        case.carry(case.exchange())
    assert "keys: no answer from site 1 in 60 s" in case.log()


def test_a_site_refuses_what_its_study_does_not_reveal(tmp_path):
    sums, plain = Case(tmp_path / "a", "sums"), Case(tmp_path / "b", "statements")
    for case, stage in ((sums, "statement"), (plain, "keys")):
        about = {"study": case.study.digest, "run": RUN, "stage": stage, "site": "site 0"}
        with pytest.raises(Refused):
            case.desk("site 0").answer(pack(Message(about)))
        with pytest.raises(Refused, match="asks about the study"):
            case.desk("site 0").answer(pack(Message({**about, "study": "00" * 32})))


def test_a_desk_opens_with_the_right_files_only(tmp_path):
    case = Case(tmp_path, "sums")
    home, study = tmp_path / "site 0", tmp_path / "study.medtrust"
    statement, key = home / "site.statement", home / "site.key"
    with pytest.raises(ConfigError, match="cannot be read"):
        open_desk(study, home / "missing", key, home / "state")
    with pytest.raises(ConfigError, match="not the one that the study lists for site 0"):
        open_desk(study, statement, tmp_path / "site 1/site.key", home / "state")
    with pytest.raises(SafetyError, match="another study"):
        open_desk(study, _other(tmp_path, case.study), key, home / "state")
    (home / "open").mkdir(mode=0o755)
    with pytest.raises(SafetyError, match="chmod 700"):
        open_desk(study, statement, key, home / "open")


def _other(folder: Path, study: Study) -> Path:
    write_federation(folder / "other", 3, release="sums", seed=9)
    return folder / "other/site 0/site.statement"


def test_the_coordinator_stores_no_single_sites_numbers(tmp_path):
    """Nothing of a site is in what arrived with secure sums; with statements, the same search finds all of it."""
    for release in ("statements", "sums"):
        case = Case(tmp_path / release, release)
        case.carry(case.exchange())
        kept = stored(tmp_path / release / "coordinator")
        for name in case.names:
            wanted = needles(case.statement(name))
            hits = found(case.statement(name), kept)
            assert len(wanted) > 50
            assert (hits == {}) if release == "sums" else (max(hits.values()) == len(wanted))


def test_the_search_finds_numbers_in_every_form(tmp_path):
    """The search that finds nothing is one that would have found it."""
    import base64

    from medtrust.secagg import encode

    case = Case(tmp_path, "sums")
    statement = case.statement("site 1")
    _, vector = statement.summable()
    for text in (
        vector.tobytes(),
        vector.tobytes().hex().encode(),
        base64.b64encode(b"?" + vector.tobytes()),
        base64.b64encode(b"??" + vector.tobytes()),
        encode(vector, 3).astype("<u8").tobytes(),
        repr(vector.tolist()).encode(),
        np.array2string(vector, precision=10, threshold=10**6).encode(),
        json.dumps(vector.tolist()).encode(),
        b" ".join(f"{v:.10e}".encode() for v in vector),
    ):
        assert sum(found(statement, {"log": text}).values()) > 30
