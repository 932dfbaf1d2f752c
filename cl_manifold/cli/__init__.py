"""The command line: parse, call, print. Imports nothing heavy before a command needs it."""

from cl_manifold.cli.main import main

__all__ = ["main"]
