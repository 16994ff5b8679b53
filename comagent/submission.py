"""A process and its inputs, checked and compiled: what a client sends, and what a job is read from again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from comagent import spec
from comagent.errors import ComAgentError, Problem, ProcessError
from comagent.expressions import is_constant, parse
from comagent.plan import Plan, ToolUse, compile_process
from comagent.spec import Process
from comagent.tools.base import ToolSpec
from comagent.tools.registry import check_arguments, resolve


class Prepared(NamedTuple):
    """A process that is ready to be submitted with any inputs."""

    process: Process
    plan: Plan
    process_doc: bytes
    """Canonical JSON."""
    tools_doc: bytes
    """JSON: what the engine knows of each tool, by name."""
    key: str
    """Equal where process and tools are."""
    root_path: str


class Submission(NamedTuple):
    """One job to be. The plan and the documents may be left out where the receiver has them under `key`."""

    job_id: str
    tenant: str
    principal: str
    key: str
    process_name: str
    process_hash: str
    inputs_doc: bytes
    root_path: str
    priority: int
    idem_key: str
    payload_hash: str
    plan: Plan | None
    process_doc: bytes
    tools_doc: bytes

    def without_plan(self) -> "Submission":
        return self._replace(plan=None, process_doc=b"", tools_doc=b"")


def prepare(
    process: Process, *, base: Path | None = None, file: str | None = None, lines: Mapping[str, int] | None = None
) -> Prepared:
    """Finds the tools, checks everything that can be checked before a job runs, and compiles.

    `base` is the folder in which Python tools are looked for, the working folder if it is left out.
    Raises `ProcessError` with all defects.
    """
    document = process.document()
    process_doc = spec.canonical_json(document).encode()
    process_hash = hashlib.sha256(process_doc).hexdigest()
    found: dict[str, ToolSpec] = {}
    refused: dict[str, ComAgentError] = {}
    for name in dict.fromkeys(task.tool for task in process.tasks):
        try:
            found[name] = resolve(name, base=base)
        except ComAgentError as error:
            refused[name] = error
    problems: list[Problem] = []
    for task in process.tasks:
        line = (lines or {}).get(task.id) if refused or lines else None
        if task.tool in refused:
            problems.append(Problem(str(refused[task.tool]), file=file, line=line, task=task.id, field="tool"))
        else:
            tool = found[task.tool]
            for message in _argument_problems(tool, task.arguments):
                problems.append(Problem(message, file=file, line=line, task=task.id, field="with"))
    tools = {name: ToolUse(name, tool.kind, tool.cost, tool.effects, tuple(tool.code)) for name, tool in found.items()}
    try:
        plan = compile_process(process, tools, process_hash=process_hash, lines=lines, file=file)
    except ProcessError as error:
        raise ProcessError((*problems, *error.problems)) from None
    if problems:
        raise ProcessError(tuple(problems))
    tools_doc = json.dumps({name: list(use[1:]) for name, use in tools.items()}, separators=(",", ":")).encode()
    key = hashlib.sha256(process_hash.encode() + tools_doc).hexdigest()
    return Prepared(process, plan, process_doc, tools_doc, key, str((base or Path.cwd()).resolve()))


def _argument_problems(tool: ToolSpec, arguments: dict[str, Any]) -> list[str]:
    dynamic = {name for name, value in arguments.items() if not is_constant(value)}
    constants = {name: parse(value) for name, value in arguments.items() if name not in dynamic}
    return check_arguments(tool, constants, dynamic=dynamic)


def submission(
    prepared: Prepared, inputs: Mapping[str, Any], *, job_id: str, idempotency_key: str | None = None
) -> Submission:
    """A job of `prepared` with these inputs. Raises `ProcessError` if they do not fit."""
    bound = spec.bind_inputs(prepared.process, inputs)
    try:
        inputs_doc = spec.canonical_json(bound).encode()
    except (TypeError, ValueError) as error:
        raise ProcessError((Problem(f"the inputs hold a value that JSON cannot: {error}", field="inputs"),)) from None
    payload_hash = hashlib.sha256(prepared.key.encode() + inputs_doc).hexdigest()
    return Submission(
        job_id=job_id,
        tenant="default",
        principal="local",
        key=prepared.key,
        process_name=prepared.process.name,
        process_hash=prepared.plan.process_hash,
        inputs_doc=inputs_doc,
        root_path=prepared.root_path,
        priority=prepared.process.priority,
        idem_key=idempotency_key or job_id,
        payload_hash=payload_hash,
        plan=prepared.plan,
        process_doc=prepared.process_doc,
        tools_doc=prepared.tools_doc,
    )


def plan_from(process_doc: bytes, tools_doc: bytes, *, process_hash: str) -> Plan:
    """The plan of a process that was accepted before: from its stored documents, without looking at any tool."""
    tools = {
        name: ToolUse(name, kind, cost, effects, tuple(code))
        for name, (kind, cost, effects, code) in json.loads(tools_doc).items()
    }
    return compile_process(spec.parse(json.loads(process_doc)), tools, process_hash=process_hash)
