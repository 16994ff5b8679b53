"""Processes that run other processes: the files that they name are read and put in their places, in whichever form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comagent.aaas import short_form
from comagent.errors import Problem, ProcessError
from comagent.reading import read_process
from comagent.spec import parse


def with_processes(document: Mapping[str, Any], *, folder: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """`document` in the short form, with each `process: other.yaml` replaced by what that file holds.

    Paths are relative to `folder`.

    `within` has the files that lead here. Raises `ProcessError` for a file that cannot be read or is no process, and
    for files that run each other in a circle.
    """
    document = short_form(document)
    tasks = document.get("tasks")
    if not isinstance(tasks, list) or not any(_names_a_file(task) for task in tasks):
        return document
    return {**document, "tasks": [_replaced(task, folder, within) if _names_a_file(task) else task for task in tasks]}


def _names_a_file(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("process"), str)


def _replaced(task: dict[str, Any], folder: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    path = (folder / task["process"]).resolve()
    if path in within:
        circle = " → ".join(each.name for each in (*within[within.index(path) :], path))
        problem = Problem(
            f"processes run each other in a circle: {circle}",
            file=str(within[-1]),
            task=str(task.get("id", "")) or None,
            field="process",
            remedy="Take one of them out: a process cannot run itself.",
        )
        raise ProcessError((problem,))
    inner, marks = read_process(path)
    try:
        inner = with_processes(inner, folder=path.parent, within=(*within, path))
        parse(inner)
    except ProcessError as error:
        raise marks.locate(error) from None
    return {**task, "process": inner}
