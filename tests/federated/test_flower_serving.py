"""Around the transport: the filter before the SuperLink, keys, certificates, and options that do not go together."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys

import pytest

pytest.importorskip("flwr", reason="the transport over Flower needs the extra medtrust[flower]")

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from federated_sites import key_of
from flower_files import ROOT, free_port, write_federation

from medtrust.errors import ConfigError, DataError
from medtrust.federated import Statement, Study, merge
from medtrust.flower.certificate import make_certificate
from medtrust.flower.joining import Connection, join, node_key, node_public
from medtrust.flower.serving import environment, pool_of, serve, told
from medtrust.flower.superlink import FleetOnly


def _ask(path: str, client: str, length: bytes | None = None, kind: str = "http") -> int:
    """Status with which the filter answers; 200 when it lets through."""
    said: list[int] = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        if message["type"] == "http.response.start":
            said.append(message["status"])

    headers = [] if length is None else [(b"content-length", length)]
    scope = {"type": kind, "path": path, "client": (client, 1), "headers": headers}
    asyncio.run(FleetOnly(inner)(scope, None, send))
    return said[0] if said else 0


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/pull-messages", "/health", "/docs", "/", "/v1/fleetx", "//v1/fleet/"]
)
def test_other_machines_reach_the_fleet_api_alone(path):
    for client in ("192.0.2.7", "2001:db8::1", "127.0.0.2", ""):
        assert _ask(path, client) == 403
    for client in ("127.0.0.1", "::1"):
        assert _ask(path, client) == 200


def test_the_fleet_api_takes_messages_of_a_messages_size():
    assert _ask("/v1/fleet/push-object", "192.0.2.7", b"1000") == 200
    for length in (b"400000000", b"-1", b"x", b"1e3"):
        assert _ask("/v1/fleet/push-object", "192.0.2.7", length) == 413
    assert _ask("/v1/fleet/x", "192.0.2.7", kind="websocket") == 0


def test_a_node_key_follows_from_the_sites_key_alone():
    first, again, other = (node_public(key_of(name)) for name in ("a", "a", "b"))
    assert first == again != other
    assert load_ssh_public_key(first.encode()).curve.name == "secp384r1"
    assert node_key(key_of("a")).private_numbers() == node_key(key_of("a")).private_numbers()


def test_a_certificate_names_its_hosts_and_is_made_once(tmp_path):
    made = make_certificate(["coordinator.example", "192.0.2.1"], tmp_path / "tls")
    assert made.key.stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    leaf = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coordinator.example", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "127.0.0.1", "::1"]
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(made.ca.read_bytes()))
    with pytest.raises(ConfigError, match="exists"):
        make_certificate(["coordinator.example"], tmp_path / "tls")


def test_a_coordinator_says_what_is_wrong_before_it_starts(tmp_path):
    write_federation(tmp_path, 3, release="statements")
    study = tmp_path / "study.medtrust"
    given = {"host": "127.0.0.1", "port": free_port(), "tls": None, "node_keys": [], "wait": 1.0, "patience": 1.0}
    for changes, reason in (
        ({"host": "0.0.0.0"}, "name a certificate"),
        ({"node_keys": [tmp_path / "a.pub"]}, "over TLS alone"),
    ):
        with pytest.raises(ConfigError, match=reason):
            serve(study, tmp_path / "c", **{**given, **changes})
    with pytest.raises(ConfigError, match="cannot be read"):
        serve(tmp_path / "missing", tmp_path / "c", **given)
    (tmp_path / "c/study.medtrust").write_bytes(b"another")
    with pytest.raises(ConfigError, match="belongs to another study"):
        serve(study, tmp_path / "c", **given)
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", given["port"]))
        busy.listen()
        with pytest.raises(ConfigError, match="is in use"):
            serve(study, tmp_path / "d", **given)


def test_a_site_says_what_is_wrong_before_it_joins(tmp_path):
    def nothing(request: bytes) -> bytes:
        raise AssertionError(request)

    for connection, reason in (
        (Connection("nowhere", insecure=True), "is no address"),
        (Connection(f"127.0.0.1:{free_port()}", insecure=True, give_up=0.5), "nothing answers at"),
        (Connection("127.0.0.1:1", insecure=True, key=node_key(key_of("a"))), "over TLS alone"),
        (Connection("127.0.0.1:1", ca=tmp_path / "ca.pem"), "cannot read the certificate"),
    ):
        with pytest.raises(ConfigError, match=reason):
            join(connection, nothing, lambda: False)


def test_a_site_talks_to_the_coordinator_of_its_certificate_alone(tmp_path):
    """Another authority, or another name, ends it at once."""
    import socket
    import threading

    ours, other = make_certificate(["127.0.0.1"], tmp_path / "a"), make_certificate(["127.0.0.1"], tmp_path / "b")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.certificate, other.key)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()

        def answer() -> None:
            with (
                door.accept()[0] as plain,
                pytest.raises(ssl.SSLError),
                context.wrap_socket(plain, server_side=True) as it,
            ):
                it.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConfigError, match="does not vouch for"):
            join(Connection(f"127.0.0.1:{door.getsockname()[1]}", ours.ca), lambda request: request, lambda: False)
        thread.join(10)


def test_flower_is_kept_quiet(tmp_path):
    env = environment(tmp_path)
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert env["FLWR_HOME"] == str(tmp_path)
    assert str(ROOT) in env["PYTHONPATH"]


def test_the_sum_of_another_study_is_refused(tmp_path):
    from medtrust.federated.packing import pack

    study = write_federation(tmp_path, 3, release="sums")
    statement = (tmp_path / "site 0/site.statement").read_bytes()
    layout, vector = Statement.from_bytes(statement, study).summable()
    header = {"study": "00" * 32, "sites": ["site 0", "site 1"], "layout": json.loads(json.dumps(layout))}
    (tmp_path / "sum.medtrust").write_bytes(pack(header, {"sum": vector}))
    with pytest.raises(DataError, match="the sum of another study"):
        pool_of(tmp_path / "sum.medtrust", study)
    (tmp_path / "sum.medtrust").write_bytes(pack({**header, "study": study.digest}, {"sum": 2 * vector}))
    assert pool_of(tmp_path / "sum.medtrust", study).sites == ("site 0", "site 1")
    assert isinstance(study, Study)


def test_the_report_is_told_of_refusals_and_of_no_chance(tmp_path):
    """Node numbers, bytes and seconds differ from run to run; they stay in transport.json."""
    result = {
        "transport": "flower",
        "sites": {"a": {"refused": ["x", "x"], "sent": 3}, "b": {"refused": [], "sent": 9}},
        "strangers": {"123": ["node 123, which claims to be a: y", "\x1b[31m" + "z" * 900]},
    }
    said = told(result)
    assert said["refused"] == {"a": ["x"]}
    assert said["strangers"] == ["[31m" + "z" * 196, "a node, which claims to be a: y"]
    study = write_federation(tmp_path, 3, release="statements")
    statements = [Statement.from_bytes(path.read_bytes(), study) for path in tmp_path.glob("*/site.statement")]
    limits = merge(study, statements, transport=said).limitations
    assert "Messages of a were refused on the way: x." in limits
    assert any(line.startswith("Somebody who is no site of the study was turned away: ") for line in limits)


def test_listing_commands_imports_no_flower():
    code = "import sys, medtrust.cli; bad = {'flwr', 'torch', 'cryptography'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)
