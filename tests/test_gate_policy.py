"""Policies: what is accepted, and that everything else is refused with a sentence."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import pytest

from medtrust.errors import ConfigError
from medtrust.gate import READY_POLICIES, Requirement, demands, exit_code, load_policy
from medtrust.types import Demand

HEAD = 'schema = "medtrust.policy/1"\n'
GATE = '[[gate]]\nid = "g"\nresult = "fidelity.fd[a]"\nop = "<="\nthreshold = 5\n'


def write(folder: Path, text: str, head: str = HEAD) -> Path:
    path = folder / "policy.toml"
    path.write_text(head + text, "utf-8")
    return path


@pytest.mark.parametrize("name", READY_POLICIES)
def test_ready_policies_load_and_block_on_copies(name):
    """Every shipped policy is valid and lets no exact copy of a training image pass."""
    policy = load_policy(name)
    assert policy.name == name
    assert len(policy.sha256) == 64
    if name != "federated":  # sums of several sites hold no digests of images
        copies = next(g for g in policy.gates if g.result == "privacy.duplicates")
        assert (copies.mode, copies.op, copies.threshold, copies.severity) == ("point", "<=", 0, "fail")
    copying = next(g for g in policy.gates if g.result == "privacy.cpm")
    assert Requirement("selftest.status", "==", "ok") in copying.require


def test_a_whole_policy_is_read(tmp_path):
    """Every key arrives where it belongs, and the digest is that of the file."""
    path = write(
        tmp_path,
        """
        [defaults]
        level = 0.9
        mode = "point"
        on_inconclusive = "warn"
        [[gate]]
        id = "copy"
        result = "privacy.cpm"
        field = "p_adj"
        op = ">="
        threshold = 0.01
        require = { "resolution.min_detectable" = "<=0.02", "selftest.status" = "ok", "facts.pairs" = 20 }
        [[gate]]
        id = "fd"
        result = "fidelity.fd[*]"
        mode = "nonregression"
        tolerance = "5%"
        severity = "warn"
        level = 0.99
        [[gate]]
        id = "ratio"
        result = "fidelity.fd[a]"
        field = "facts.ratio to real"
        op = ">"
        threshold = -1
        [[waiver]]
        gate = "fd"
        until = 2027-01-31
        reason = "new scanner"
        [baseline]
        report = "old/report.json"
        """,
    )
    policy = load_policy(path)
    copy, fd, ratio = policy.gates
    assert (policy.level, policy.mode, policy.on_inconclusive) == (0.9, "point", "warn")
    assert (copy.mode, copy.field, copy.threshold, copy.level) == ("test", "p_adj", 0.01, 0.9)
    assert copy.require == (
        Requirement("resolution.min_detectable", "<=", 0.02),
        Requirement("selftest.status", "==", "ok"),
        Requirement("facts.pairs", "==", 20.0),
    )
    assert (fd.mode, fd.tolerance, fd.severity, fd.level, fd.threshold) == (
        "nonregression",
        (0.05, True),
        "warn",
        0.99,
        None,
    )
    assert (ratio.mode, ratio.field, ratio.threshold) == ("point", "facts.ratio to real", -1.0)
    assert policy.waivers[0].until == datetime.date(2027, 1, 31)
    assert policy.baseline == tmp_path / "old/report.json"
    assert policy.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert policy.name == "policy.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GATE.replace("threshold", "treshold"), "'threshold' is missing (is it the one written as 'treshold'?)"),
        (GATE + 'severty = "warn"\n', "unknown key 'severty' (did you mean 'severity'?)"),
        (GATE + "[default]\nlevel = 0.9\n", "unknown key 'default' (did you mean 'defaults'?)"),
        ("[defaults]\nmod = 'ci'\n" + GATE, "[defaults]: unknown key 'mod' (did you mean 'mode'?)"),
        (GATE + 'mode = "cl"\n', "mode must be one of ci, point, nonregression, it is 'cl'"),
        (GATE + 'severity = "fial"\n', "severity must be one of fail, warn, it is 'fial' (did you mean 'fail'?)"),
        (GATE.replace('"<="', '"=<"'), "op must be one of"),
        (GATE.replace('"<="', '"=="'), "an interval cannot prove equality"),
        (GATE.replace("= 5", "= nan"), "threshold must be finite"),
        (GATE.replace("= 5", "= true"), "threshold must be a number, it is True"),
        (GATE.replace("= 5", "= '5'"), "threshold must be a number, it is '5'"),
        (GATE.replace('id = "g"', 'id = ""'), "id is empty"),
        (GATE + GATE, "two gates are called 'g'"),
        ("", "has no [[gate]]"),
        ("[gate]\nid = 'g'\n", "written [[gate]]"),
        (GATE + 'field = "p_ajd"\n', "'p_ajd' is not a field of a result (did you mean 'p_adj'?)"),
        (GATE + 'field = "facts."\n', "is not a field of a result"),
        (GATE + 'field = "facts.n"\n', 'has no interval to judge by; write mode = "point"'),
        (GATE + 'field = "p"\n', 'use op = ">="'),
        (GATE.replace("<=", ">=") + 'field = "p"\n', "a high p alone proves nothing"),
        (GATE.replace("<=", ">=") + 'field = "p"\nmode = "ci"\n', "mode must be one of test"),
        (GATE + 'mode = "nonregression"\n', "unknown key 'op'"),
        ('[[gate]]\nid = "g"\nresult = "r"\nmode = "nonregression"\ntolerance = "-5%"\n', "tolerance must be"),
        ('[[gate]]\nid = "g"\nresult = "r"\nmode = "nonregression"\ntolerance = "five"\n', "tolerance must be"),
        (GATE + 'tolerance = "5%"\n', "unknown key 'tolerance'"),
        (GATE + 'require = { "resolution.min_detectible" = "<=1" }\n', "did you mean 'resolution.min_detectable'?"),
        (GATE + 'require = { "resolution.power" = "<=one" }\n', "'one' is not a number"),
        (GATE + 'require = { "resolution.power" = true }\n', "must be a word"),
        (GATE + "level = 95\n", "level must be a confidence level"),
        (GATE + '[[waiver]]\ngate = "h"\nuntil = 2027-01-01\nreason = "r"\n', "names a gate 'h' that does not exist"),
        (GATE + '[[waiver]]\ngate = "g"\nuntil = "2027-01-01"\nreason = "r"\n', "until must be a date"),
        (GATE + '[[waiver]]\ngate = "g"\nuntil = 2027-01-01T00:00:00\nreason = "r"\n', "without a time"),
        (GATE + '[[waiver]]\ngate = "g"\nuntil = 2027-01-01\n', "'reason' is missing"),
        (GATE + '[[waiver]]\ngate = "g"\nuntil = 2027-01-01\nreason = "r"\n' * 2, "is waived twice"),
        (GATE + "[baseline]\npath = 'x'\n", "[baseline]: unknown key 'path'"),
        ("gate = [1]\n", "must be a list of tables"),
        ("x = ", "is not TOML"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, text, message):
    """A misspelt, missing or impossible key stops with the file's name, the place and a hint."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("head", ["", 'schema = "medtrust.policy/2"\n', "schema = 1\n"])
def test_a_policy_of_another_schema_is_refused(tmp_path, head):
    """Only version 1 is read."""
    with pytest.raises(ConfigError, match="schema"):
        load_policy(write(tmp_path, GATE, head))


def test_a_policy_that_is_not_there_is_named(tmp_path):
    """A misspelt ready policy gets a hint, a missing file its name, and binary is no TOML."""
    with pytest.raises(ConfigError, match="did you mean research"):
        load_policy("reserch")
    with pytest.raises(ConfigError, match=r"gone.toml cannot be read .*one of research, clinical-strict"):
        load_policy(tmp_path / "gone.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_policy(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((), 0), ((0,), 0), ((0, 1), 1), ((3, 1), 1), ((1, 4), 4), ((4, 2), 2), ((2, 70), 70), ((0, 5), 5), ((5, 3), 3),
        ((70, 130), 130), ((17,), 70), ((0, 17, 2), 70), ((0, 5, 3, 1, 4, 2, 70), 70),
    ],
)  # fmt: skip
def test_exit_codes_have_an_order(codes, expected):
    """70 > 2 > 4 > 1 > 3 > 5 > 0; an interrupt wins, and an unknown code counts as internal."""
    assert exit_code(*codes) == expected


def test_the_policy_in_the_docs_loads(tmp_path):
    """The example that people copy is valid, and uses every mode."""
    page = (Path(__file__).parents[1] / "docs" / "policy.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    policy = load_policy(write(tmp_path, example, head=""))
    assert {gate.mode for gate in policy.gates} == {"ci", "point", "test", "nonregression"}
    assert policy.waivers
    assert policy.baseline == tmp_path / "baseline.json"


def test_a_policy_tells_tests_what_it_asks(tmp_path):
    """The strictest level and the smallest effect of the gates on one result's p-value; other gates ask nothing."""
    gates = "".join(
        f'[[gate]]\nid = "{i}"\nresult = "privacy.cpm"\nfield = "p_adj"\nop = ">="\nthreshold = {alpha}\n'
        f'require = {{ "resolution.min_detectable" = "<={effect}" }}\n'
        for i, (alpha, effect) in enumerate([(0.05, 0.02), (0.01, 0.1)])
    )
    point = '[[gate]]\nid = "x"\nresult = "privacy.duplicates"\nmode = "point"\nop = "<="\nthreshold = 0\n'
    path = tmp_path / "policy.toml"
    path.write_text(f'schema = "medtrust.policy/1"\n{gates}{point}')
    assert demands(load_policy(path)) == {"privacy.cpm": Demand(alpha=0.01, effect=0.02)}
