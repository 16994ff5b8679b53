"""How a job ended, for people and for machines."""

import json
from collections.abc import Sequence
from typing import Any

from comagent.cli.attend import End
from comagent.cli.readable import outputs_text
from comagent.cli.screen import say, shortened
from comagent.plan import OUTPUTS

FAILURES = 20
"""Failures that are told one by one."""


def print_end(end: End) -> None:
    """The outputs on stdout; what failed on stderr."""
    if end.status == "succeeded":
        print_text(outputs_text(end.outputs))
    print_failures(end)


def print_ends(ends: Sequence[End]) -> None:
    """The same for several jobs, each under its id."""
    for end in ends:
        if end.status == "succeeded":
            print_text(f"# job {end.job_id}")
        else:
            say(f"job {end.job_id} ended as {end.status}")
        print_end(end)


def print_failures(end: End) -> None:
    for path, status, what in end.failures[:FAILURES]:
        verb = "ran out of time" if status == "timed_out" else "failed"
        say(f"{named(path)} {verb}: {shortened(what, 1000)}")
    if len(end.failures) > FAILURES:
        say(f"and {len(end.failures) - FAILURES} more")
    if end.status != "succeeded":
        say(f"`comagent show {end.job_id}` tells more.")


def print_text(text: str) -> None:
    """On stdout, in full before anything else happens."""
    print(text.removesuffix("\n"), flush=True)


def print_json(value: Any) -> None:
    print_text(json.dumps(value, ensure_ascii=False, indent=2))


def end_document(end: End) -> dict[str, Any]:
    return {
        "job_id": end.job_id,
        "status": end.status,
        "outputs": end.outputs,
        "tasks": end.tasks,
        "failures": [
            {"task": None if path == OUTPUTS else path, "status": status, "error": what}
            for path, status, what in end.failures
        ],
    }


def named(path: str) -> str:
    return "the outputs" if path == OUTPUTS else f'task "{path}"'
