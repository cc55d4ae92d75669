"""Flower's SuperLink with its side doors closed: `python -m medtrust.flower.superlink`, options as `flower-superlink`.

SuperLink 1.42 serves its Fleet API (for the sites), its Control API (which starts any app on this machine, and asks
nobody's name unless an account service is set up) and its Runtime API on one port. The sites need the first alone, so
the others are answered to this machine alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medtrust.secagg.wire import LARGEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["FleetOnly", "main"]

_HERE = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_LARGEST_BODY = LARGEST + (1 << 20)


class FleetOnly:
    """Lets other machines reach the Fleet API alone, and nobody send more than a message's size.

    Args:
        app: The SuperLink's own application.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        client = scope.get("client") or ("", 0)
        sizes = [value for name, value in scope["headers"] if name == b"content-length"]
        if client[0] not in _HERE and not scope["path"].startswith("/v1/fleet/"):
            await _refuse(send, 403, b"sites reach the Fleet API alone\n")
        elif any(not size.isdigit() or int(size) > _LARGEST_BODY for size in sizes):
            await _refuse(send, 413, b"too large\n")
        else:
            await self.app(scope, receive, send)


async def _refuse(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Run the SuperLink."""
    from importlib import import_module

    import uvicorn
    from flwr.supercore.http_logging import get_uvicorn_log_config
    from flwr.supercore.logger import console_handler
    from flwr.superlink.main import create_app

    # the package hides this module behind its function of the same name
    flower_superlink = import_module("flwr.superlink.cli.flower_superlink")
    config = flower_superlink._parse_superlink_lifespan_config()
    app = create_app(config, flower_superlink.SuperLinkLifespan)
    uvicorn.run(
        FleetOnly(app),
        host=config.host,
        port=config.port,
        log_config=get_uvicorn_log_config(console_handler.level),
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
