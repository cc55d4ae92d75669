"""Writes a new plugin distribution: complete, installable, typed, and tested by the conformance kit."""

from medtrust.scaffold.writing import KINDS, check_name, write_plugin

__all__ = ["KINDS", "check_name", "write_plugin"]
