"""A site joins: an outgoing connection to the coordinator's SuperLink, and no code from it.

Flower's own SuperNode runs whatever app the coordinator sends. A hospital should not have to trust that, so this
process speaks the SuperNode's protocol through Flower's own client, and runs the ClientApp that is installed here; the
app that travels with the run is never downloaded.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from medtrust.errors import ConfigError, MedtrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from flwr.app import Message

    from medtrust.federated import SigningKey

__all__ = ["Connection", "join", "node_key", "node_public"]


@dataclass(frozen=True)
class Connection:
    """How to reach the coordinator.

    Args:
        address: host:port.
        ca: Certificate by which the coordinator is known; None to talk without TLS.
        key: Node key, where the coordinator admits registered nodes alone; needs TLS.
        give_up: Seconds without a connection after which to stop.
    """

    address: str
    ca: Path | None = None
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


def join(
    connection: Connection, answer: Callable[[bytes], bytes], done: Callable[[], bool], pause: float = 0.3
) -> None:
    """Answer the coordinator until it says that it is done.

    Args:
        connection: How to reach it.
        answer: From request to reply, see `SiteDesk.answer`.
        done: Whether nothing more is to come.
        pause: Seconds between two looks for a question.

    Raises:
        ConfigError: The coordinator cannot be reached, or does not admit this node.
    """
    from flwr.supernode.fleet_http_connection import http_request_response

    from medtrust.flower.apps import make_client

    app = make_client(answer)
    keys = (connection.key, connection.key.public_key()) if connection.key else None
    if keys and connection.ca is None:
        raise ConfigError("a node key is used over TLS alone: name the coordinator's certificate with --ca")
    _wait_for(connection)
    trouble: Exception | None = None
    try:
        with http_request_response(
            connection.address,
            connection.ca is None,
            connection.ca.read_bytes() if connection.ca else None,
            keys,
            max_wait_time=connection.give_up,
        ) as fleet:
            try:
                while not done():
                    if not _answer_one(fleet, app):
                        time.sleep(pause)
            except Exception as error:  # Flower's connection would log it and swallow it
                trouble = error
    except SystemExit as error:  # how Flower reports that it cannot connect
        raise ConfigError(
            f"no connection to the coordinator at {connection.address}: is it up, is the certificate its own, and was "
            "this site's node key registered there?"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the certificate {connection.ca} ({error.strerror})") from error
    if isinstance(trouble, MedtrustError):
        raise trouble
    if not done():
        raise MedtrustError(
            f"the connection to {connection.address} ended before the coordinator was done"
            f"{f' ({trouble!r})' if trouble else ''}; start the same command again: it goes on where it was"
        ) from trouble


def _wait_for(connection: Connection) -> None:
    """Wait until something listens there; Flower's own retries grow so long that a site would join late."""
    host, _, port = connection.address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{connection.address!r} is no address: write host:port")
    deadline = time.monotonic() + connection.give_up
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"nothing answers at {connection.address} for {connection.give_up:.0f} s ({error}): is the "
                    "coordinator up, and does the firewall let this machine out?"
                ) from error
            time.sleep(0.5)
        else:
            return


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
