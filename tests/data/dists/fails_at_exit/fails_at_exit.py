"""A plugin that is fine until the program ends."""

import atexit

from medtrust import hookimpl


@atexit.register
def last():
    raise SystemExit(9)


@hookimpl
def medtrust_metrics():
    return []
