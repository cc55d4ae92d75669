"""A site's process for tests: `flower_site.py FOLDER ADDRESS FAULT [STAGE] [CA]` misbehaves once, as FAULT says.

Faults: none; kill (it dies before its answer leaves); malformed; forged (signed with another key); stranger (introduces
itself under a name whose key it does not have); unregistered (its node key is one that nobody registered).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medtrust.flower.joining import Connection, join, node_key
from medtrust.flower.site import open_desk
from medtrust.secagg.wire import Message, pack, unpack


def main() -> None:
    home, address, fault, stage, ca = Path(sys.argv[1]), *sys.argv[2:]
    desk = open_desk(home.parent / "study.medtrust", home / "site.statement", home / "site.key", home / "state")
    marker = home / f"did-{fault}"

    def answer(request: bytes) -> bytes:
        asked = unpack(request, "coordinator").header["stage"]
        if fault == "stranger":
            return pack(Message({"site": desk.site, "stage": asked}), Ed25519PrivateKey.generate())
        reply = desk.answer(request)
        if asked != stage or marker.exists():
            return reply
        marker.touch()
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "malformed":
            return b"\x89HDF\r\n this is no message of medtrust's"
        if fault == "forged":
            return (
                reply[:-64] + Ed25519PrivateKey.generate().sign(reply[:-64])
                if b"secagg" in reply[:32]
                else (reply[:-32] + bytes(32))
            )
        return reply

    own = node_key(desk.key) if ca else None
    if fault == "unregistered":
        own = generate_private_key(SECP384R1())
    join(
        Connection(address, Path(ca) if ca else None, not ca, own, 5 if fault == "unregistered" else 60),
        answer,
        lambda: desk.outcome is not None,
    )
    print(json.dumps(desk.outcome))


if __name__ == "__main__":
    main()
