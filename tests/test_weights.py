"""Weights come from where the user says, are checked by digest, and an offline run opens no socket."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from medtrust import weights
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.weights import KNOWN, WeightFile, install_weights, resolve_weights, sha256_of

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A publisher on this machine: /good has the content, /bad has other bytes, /long never ends in time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies = {"/good": CONTENT, "/bad": CONTENT[::-1], "/long": CONTENT * 2}
            if self.path not in bodies:
                self.send_error(404)
                return
            self.server.asked += 1  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def know(monkeypatch: pytest.MonkeyPatch, server: HTTPServer | None, page: str = "good") -> WeightFile:
    url = f"http://127.0.0.1:{server.server_port}/{page}" if server else ""
    file = WeightFile("net.pth", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), url)
    monkeypatch.setattr(weights, "KNOWN", {"net": (file,)})
    return file


def test_the_users_file_comes_first(tmp_path: Path) -> None:
    """A named file is taken whatever is cached; a missing one is an error, even for known weights."""
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"x")
    assert resolve_weights("inception", {"inception": mine}, offline=True, cache_dir=tmp_path) == mine
    assert resolve_weights("other", {"other": mine}, offline=True, cache_dir=tmp_path) == mine
    with pytest.raises(ConfigError, match="no such file"):
        resolve_weights("inception", {"inception": tmp_path / "gone"}, offline=False, cache_dir=tmp_path)


def test_fetched_once_then_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HTTPServer) -> None:
    """The first online run fetches and checks; the next ones, offline too, take it from the cache."""
    file = know(monkeypatch, server)
    first = resolve_weights("net", {}, offline=False, cache_dir=tmp_path)
    assert first.read_bytes() == CONTENT
    assert sha256_of(first) == file.sha256
    assert resolve_weights("net", {}, offline=False, cache_dir=tmp_path) == first
    assert resolve_weights("net", {}, offline=True, cache_dir=tmp_path) == first
    assert server.asked == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["bad", "long"])
def test_other_bytes_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HTTPServer, page: str
) -> None:
    """A file whose digest is not the published one is refused and leaves nothing behind."""
    know(monkeypatch, server, page)
    with pytest.raises(SafetyError, match="SHA-256"):
        resolve_weights("net", {}, offline=False, cache_dir=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_publisher_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HTTPServer
) -> None:
    """A missing page and a closed port are errors that name the address and the way out."""
    know(monkeypatch, server, "missing")
    with pytest.raises(ConfigError, match=r"/missing .*--weights net=PATH"):
        resolve_weights("net", {}, offline=False, cache_dir=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    closed = WeightFile("net.pth", "00" * 32, 1, f"http://127.0.0.1:{port}/net")
    monkeypatch.setattr(weights, "KNOWN", {"net": (closed,)})
    with pytest.raises(ConfigError, match="could not fetch"):
        resolve_weights("net", {}, offline=False, cache_dir=tmp_path)


def test_offline_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, without the file, the answer is the line that fetches it, and no socket is made."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ConfigError, match="medtrust data get inception"):
        resolve_weights("inception", {}, offline=True, cache_dir=tmp_path)
    with pytest.raises(AssertionError, match="a socket"):
        resolve_weights("inception", {}, offline=False, cache_dir=tmp_path)


def test_unknown_weights_must_be_named(tmp_path: Path) -> None:
    """Weights of somebody else's plugin have no publisher here, online or not."""
    for offline in (True, False):
        with pytest.raises(ConfigError, match="--weights radimagenet=PATH"):
            resolve_weights("radimagenet", {}, offline=offline, cache_dir=tmp_path)


def test_a_damaged_cached_file_is_replaced_online_and_named_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HTTPServer
) -> None:
    """A cached file with the wrong digest is never used."""
    know(monkeypatch, server)
    place = resolve_weights("net", {}, offline=False, cache_dir=tmp_path)
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(ConfigError, match="damaged"):
        resolve_weights("net", {}, offline=True, cache_dir=tmp_path)
    assert resolve_weights("net", {}, offline=False, cache_dir=tmp_path).read_bytes() == CONTENT


def test_installing_puts_a_known_file_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe's file is taken into the cache by its digest, and anything else is refused."""
    know(monkeypatch, None)
    source = tmp_path / "from_a_package.pt"
    source.write_bytes(CONTENT)
    place = install_weights("net", source, tmp_path / "cache")
    assert resolve_weights("net", {}, offline=True, cache_dir=tmp_path / "cache") == place
    source.write_bytes(b"other")
    with pytest.raises(DataError, match="not a known file"):
        install_weights("net", source, tmp_path / "cache")
    with pytest.raises(DataError, match="cannot read"):
        sha256_of(tmp_path / "gone")


def test_the_published_names_carry_their_digest() -> None:
    """pytorch-fid puts the first eight digits of the SHA-256 into the file name, as torch.hub checks them."""
    (published,) = (file for file in KNOWN["inception"] if file.url)
    assert published.sha256[:8] == published.filename.removesuffix(".pth").rsplit("-", 1)[1]
    assert all(len(file.sha256) == 64 and file.size > 0 for file in KNOWN["inception"])
