"""The command line. Progress and errors go to stderr, results to stdout; nothing imports Ray before it is needed."""

from comagent.cli.app import main

__all__ = ["main"]
