"""The command line: options in, exit code out. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from medtrust import __version__
from medtrust.cli import flower, plugging  # noqa: F401 - they add their commands to `federated` and `plugins`
from medtrust.cli.auditing import audit, compare, gate, report
from medtrust.cli.explaining import explain
from medtrust.cli.federated import federated
from medtrust.cli.listing import data, info, plugins
from medtrust.cli.making import demo, sample, train
from medtrust.cli.testing import selftest
from medtrust.errors import ConfigError, MedtrustError

__all__ = ["cli", "main"]

INTERRUPTED = 130
INTERNAL = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="medtrust")
def cli() -> None:
    """Can this generator of medical images be trusted?

    \b
    Exit codes: 0 PASS or WARN, 1 FAIL, 2 usage or input, 3 INCONCLUSIVE, 4 refused for safety,
    5 nothing selected, 70 internal or plugin error, 130 interrupted.
    """


for command in (audit, gate, report, compare, explain, sample, train, demo, federated, selftest, plugins, data, info):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after `medtrust`; those of the process when not given.

    Returns:
        The exit code.
    """
    try:
        code = cli.main(args=None if arguments is None else list(arguments), standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Abort:
        return _stop("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED)
    except KeyboardInterrupt:
        return _stop("interrupted; what was finished is kept, the same command goes on from there", INTERRUPTED)
    except click.ClickException as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if isinstance(error, click.UsageError) and error.ctx else ""
        return _stop(error.format_message() + hint, ConfigError.exit_code)
    except MedtrustError as error:
        return _stop(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception:
        import traceback

        traceback.print_exc()
        return _stop("internal error: the lines above say where; please report them", INTERNAL)


def _stop(message: str, code: int) -> int:
    # control characters in a hostile file name must not reach the terminal
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in message)
    click.echo(f"medtrust: {clean}", err=True)
    return code
