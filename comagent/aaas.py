"""The AaaS form of a process ("Agents as a Service"): a `process_id`, and tasks with `dependencies`."""

from collections.abc import Mapping
from typing import Any

from comagent.errors import Problem, ProcessError

__all__ = ["short_form"]


def short_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same process with the keys of the short form; one that has them already comes back as it is.

    Raises `ProcessError` for dependencies that name no task.
    """
    converted = _renamed(document, "process_id", "id")
    tasks = converted.get("tasks")
    if isinstance(tasks, list) and any(isinstance(task, Mapping) and "dependencies" in task for task in tasks):
        converted["tasks"] = [_task(task) if isinstance(task, Mapping) else task for task in tasks]
    return converted


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    converted = _renamed(task, "dependencies", "needs")
    if "dependencies" in task and isinstance(task["dependencies"], list) and "needs" not in task:
        converted["needs"] = [_need(task, each, number) for number, each in enumerate(task["dependencies"])]
    return converted


def _need(task: Mapping[str, Any], dependency: Any, number: int) -> str:
    if isinstance(dependency, str):
        return dependency
    if isinstance(dependency, Mapping) and dependency.keys() == {"task_id"} and isinstance(dependency["task_id"], str):
        return dependency["task_id"]
    remedy = 'Write {"task_id": "…"} with the id of another task.'
    id_ = task.get("id")
    problem = Problem(
        "this names no task", task=id_ if isinstance(id_, str) else None, field=f"dependencies.{number}", remedy=remedy
    )
    raise ProcessError((problem,))


def _renamed(document: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """With another key in the same place. Where both are there, the old one stays, to be refused."""
    if old not in document or new in document:
        return dict(document)
    return {new if key == old else key: value for key, value in document.items()}
