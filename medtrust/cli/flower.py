"""federated serve, join, certificate, node-key: the same over Flower instead of files."""

from __future__ import annotations

from pathlib import Path

import click

from medtrust.cli.common import PATH, show, words
from medtrust.cli.federated import federated

__all__ = ["certificate", "join", "node_key_", "serve"]


@federated.command()
@click.argument("study", type=PATH)
@click.option("--folder", type=PATH, required=True, help="The coordinator's folder; a second run in it goes on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; another needs TLS.")
@click.option("--port", type=click.IntRange(1, 65535), default=9092, show_default=True, help="The only open port.")
@click.option("--tls", type=PATH, help="Folder with ca.pem, server.pem and server.key (see `certificate`).")
@click.option("--node-key", "node_keys", type=PATH, multiple=True, help="A site's public node key; admits no others.")
@click.option("--wait", type=float, default=3600, show_default=True, help="Seconds to wait for the sites.")
@click.option("--patience", type=float, default=300, show_default=True, help="Seconds per later stage of secure sums.")
@click.option("--policy", default="federated", show_default=True, help="Policy file, or the name of a ready one.")
@click.option("--out", type=PATH, default=Path("medtrust-report"), show_default=True, help="Folder for the report.")
@click.option("--format", "format_", default="json,html", show_default=True, help="Report formats, comma-separated.")
@click.option("--strict", is_flag=True, help="A WARN exits 1.")
def serve(
    study: Path,
    folder: Path,
    host: str,
    port: int,
    tls: Path | None,
    node_keys: tuple[Path, ...],
    wait: float,
    patience: float,
    policy: str,
    out: Path,
    format_: str,
    strict: bool,
) -> int:
    """Coordinate: wait for the sites of STUDY, collect statements or one secure sum, report; exit by the verdict."""
    from medtrust.flower.serving import Tls, collect, told
    from medtrust.flower.serving import serve as run

    files = Tls(tls / "ca.pem", tls / "server.pem", tls / "server.key") if tls else None
    result = run(
        study,
        folder,
        host=host,
        port=port,
        tls=files,
        node_keys=list(node_keys),
        wait=wait,
        patience=patience,
        say=lambda line: click.echo(line, err=True),
    )

    from medtrust.api import render_report
    from medtrust.federated import Study, merge
    from medtrust.host import build_host
    from medtrust.writing import ensure_folder, write_atomically

    agreed = Study.from_bytes(study.read_bytes())
    report = merge(agreed, collect(folder, agreed), policy=policy, strict=strict, transport=told(result))
    ensure_folder(out)
    for filename, content in render_report(report, out, words(format_), build_host()).items():
        write_atomically(out / filename, content)
    return show(report, out)


@federated.command()
@click.argument("study", type=PATH)
@click.argument("statement", type=PATH)
@click.option("--key", type=PATH, required=True, help="This site's private key.")
@click.option("--server", required=True, metavar="HOST:PORT", help="Where the coordinator listens.")
@click.option("--ca", type=PATH, help="The coordinator's ca.pem.  [default: what this machine trusts]")
@click.option("--insecure", is_flag=True, help="Talk without TLS: on one machine, to try it out.")
@click.option("--registered", is_flag=True, help="Use the node key that the coordinator registered (see `node-key`).")
@click.option("--state", type=PATH, help="Private folder for a run's state.  [default: the key with .state]")
@click.option("--give-up", type=float, default=3600, show_default=True, help="Seconds without a connection.")
def join(
    study: Path,
    statement: Path,
    key: Path,
    server: str,
    ca: Path | None,
    insecure: bool,
    registered: bool,
    state: Path | None,
    give_up: float,
) -> None:
    """Take part with a STATEMENT from `federated site`; in a study of secure sums it leaves masked alone."""
    from medtrust.errors import Insufficient
    from medtrust.flower.joining import Connection, node_key
    from medtrust.flower.joining import join as run
    from medtrust.flower.site import open_desk

    desk = open_desk(
        study, statement, key, state or key.with_suffix(".state"), say=lambda line: click.echo(line, err=True)
    )
    own = node_key(desk.key) if registered else None
    run(Connection(server, ca, insecure, own, give_up), desk.answer, lambda: desk.outcome is not None)
    outcome = desk.outcome or {}
    for reason in outcome["reasons"]:
        click.echo(f"the coordinator refused: {reason}", err=True)
    if outcome["result"] != "took part":
        raise Insufficient(f"{desk.site}: {outcome['result']}; start the same command again for the next run")
    click.echo(f"{desk.site}: {outcome['result']}")


@federated.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for ca.pem, server.pem and server.key.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
def certificate(names: tuple[str, ...], out: Path, days: int) -> None:
    """Make a TLS certificate for the coordinator's host NAMES; the sites get ca.pem."""
    from medtrust.flower.certificate import make_certificate

    made = make_certificate(list(names), out, days)
    click.echo(f"{made.ca} goes to the sites; {made.certificate} and {made.key} stay here")


@federated.command("node-key")
@click.argument("key", type=PATH)
def node_key_(key: Path) -> None:
    """Print the public node key of a site's private KEY, for a coordinator that admits registered nodes alone."""
    from medtrust.federated import read_key
    from medtrust.flower.joining import node_public

    click.echo(node_public(read_key(key)))
