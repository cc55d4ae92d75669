"""A site joins: an outgoing connection to the coordinator's SuperLink, and no code from it.

Flower's own SuperNode runs whatever app the coordinator sends. A hospital should not have to trust that, so this
process speaks the SuperNode's protocol through Flower's own client, and runs the ClientApp that is installed here; the
app that travels with the run is never downloaded.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from medtrust.errors import ConfigError, MedtrustError
from medtrust.flower.serving import quiet

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from flwr.app import Message

    from medtrust.federated import SigningKey

_SHORTEST, _LONGEST = 0.25, 1.0
"""Seconds between two looks for a question, just after one and long after."""

__all__ = ["Connection", "join", "node_key", "node_public"]


@dataclass(frozen=True)
class Connection:
    """How to reach the coordinator.

    Args:
        address: host:port.
        ca: Certificate by which the coordinator is known; None for those that this machine trusts anyway.
        insecure: Talk without TLS.
        key: Node key, where the coordinator admits registered nodes alone; needs TLS.
        give_up: Seconds without a connection after which to stop.
    """

    address: str
    ca: Path | None = None
    insecure: bool = False
    key: EllipticCurvePrivateKey | None = None
    give_up: float = 600.0


def node_key(key: SigningKey) -> EllipticCurvePrivateKey:
    """The P-384 key by which Flower knows this site's node, derived from the site's signing key.

    Args:
        key: The site's key; whoever knows it knows this one, and nobody else does.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key

    return derive_private_key(int.from_bytes(key.secret("flower node"), "big") + 1, SECP384R1())


def node_public(key: SigningKey) -> str:
    """The public half of `node_key` as one line of OpenSSH text, for the coordinator to register."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return node_key(key).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def join(connection: Connection, answer: Callable[[bytes], bytes], done: Callable[[], bool]) -> None:
    """Answer the coordinator until it says that it is done.

    Args:
        connection: How to reach it.
        answer: From request to reply, see `SiteDesk.answer`.
        done: Whether nothing more is to come.

    Raises:
        ConfigError: The coordinator cannot be reached, is not the one of the certificate, or does not admit this node.
        MedtrustError: The connection broke.
    """
    quiet()
    if connection.key and connection.insecure:
        raise ConfigError("a node key is used over TLS alone: leave --insecure away and name the certificate with --ca")
    try:
        certificate = connection.ca.read_bytes() if connection.ca else None
    except OSError as error:
        raise ConfigError(f"cannot read the certificate {connection.ca} ({error.strerror})") from error
    deadline = time.monotonic() + connection.give_up
    while True:
        _wait_for(connection, deadline)
        try:
            trouble = _work(connection, certificate, answer, done)
            break
        except SystemExit as error:  # how Flower reports that it was turned away; perhaps it is not registered yet
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the coordinator at {connection.address} turns this node away: was its node key registered "
                    "there (`medtrust federated node-key`), and do you join with --registered?"
                ) from error
            time.sleep(2)
    if isinstance(trouble, MedtrustError):
        raise trouble
    if not done():
        raise MedtrustError(
            f"the connection to {connection.address} ended before the coordinator was done"
            f"{f' ({trouble!r})' if trouble else ''}; start the same command again: it goes on where it was"
        ) from trouble


def _work(
    connection: Connection, certificate: bytes | None, answer: Callable[[bytes], bytes], done: Callable[[], bool]
) -> Exception | None:
    from flwr.supernode.fleet_http_connection import http_request_response

    from medtrust.flower.apps import make_client

    app = make_client(answer)
    keys = (connection.key, connection.key.public_key()) if connection.key else None
    address, insecure = connection.address, connection.insecure
    with http_request_response(address, insecure, certificate, keys, max_wait_time=connection.give_up) as fleet:
        pause = _SHORTEST
        try:
            while not done():
                if _answer_one(fleet, app):
                    pause = _SHORTEST
                else:
                    time.sleep(pause)
                    pause = min(1.1 * pause, _LONGEST)
        except Exception as error:  # Flower's connection would log it and swallow it
            return error
    return None


def _wait_for(connection: Connection, deadline: float) -> None:
    """Wait until the coordinator listens; Flower's own retries grow so long that a site would join late."""
    host, _, port = connection.address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{connection.address!r} is no address: write host:port")
    host = host.strip("[]")
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=10) as plain:
                if not connection.insecure:
                    ca = None if connection.ca is None else str(connection.ca)
                    ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname=host).close()
            return
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"{connection.address} shows a certificate that {connection.ca or 'this machine'} does not vouch for "
                f"({error.verify_message}): is it the coordinator, and is this its ca.pem?"
            ) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"nothing answers at {connection.address} for {connection.give_up:.0f} s ({error}): is the "
                    "coordinator up, does it use TLS, and does the firewall let this machine out?"
                ) from error
            time.sleep(0.5)


def _answer_one(fleet: tuple, app: Callable) -> bool:  # type: ignore[type-arg]
    """Take one question and answer it; False when there was none."""
    from flwr.app import Context, RecordDict
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        iterate_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import (
        inflate_object_from_contents,
        pull_objects,
        push_object_contents_from_iterable,
    )

    node, receive, send, _get_run, _get_app, pull_object, push_object, confirm = fleet
    received = receive()
    if received is None:
        return False
    message, tree = received
    run, number = message.metadata.run_id, message.metadata.message_id
    contents = pull_objects([part.object_id for part in iterate_object_tree(tree)], lambda part: pull_object(run, part))
    confirm(run, number)
    question = cast("Message", inflate_object_from_contents(number, contents))
    question.metadata.__dict__["_message_id"] = number
    began = time.monotonic()
    context = Context(run_id=run, node_id=node, node_config={}, state=RecordDict(), run_config={})
    reply = app(question, context)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        parts = get_all_nested_objects(reply)
        wanted, session = send(reply, get_object_tree(reply), time.monotonic() - began)
        push_object_contents_from_iterable(
            ((part, parts[part].deflate()) for part in parts if part in wanted),
            push_object_fn=lambda part, content: push_object(run, session, part, content),
        )
    return True
