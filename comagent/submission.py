"""A process and its inputs, checked and compiled: what a client sends, and what a job is read from again."""

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from comagent import spec
from comagent.agents import assigned
from comagent.compiling import compile_process
from comagent.errors import ComAgentError, Problem, ProcessError
from comagent.nesting import with_processes
from comagent.plan import Plan, ToolUse
from comagent.reading import read_process
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


@contextmanager
def building() -> Iterator[None]:
    """Building a plan makes many objects and no garbage: collecting meanwhile would cost a quarter of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@building()
def prepare(process: Process, *, base: Path | None = None) -> Prepared:
    """Finds agents and tools, checks everything that can be checked before a job runs, and compiles.

    `base` is the folder in which Python tools are looked for, the working folder if it is left out.
    Raises `ProcessError` with all defects.
    """
    process = assigned(process, base=base)
    process_doc = _document(process)
    process_hash = hashlib.sha256(process_doc).hexdigest()
    found: dict[str, ToolSpec] = {}
    refused: dict[str, ComAgentError] = {}
    named = [(path, task.tool) for path, task in process.all_tasks() if task.tool is not None]
    for name in dict.fromkeys(tool for _, tool in named):
        try:
            found[name] = resolve(name, base=base)
        except ComAgentError as error:
            refused[name] = error

    def check(tool: str, constants: dict[str, Any], dynamic: frozenset[str]) -> list[str]:
        return check_arguments(found[tool], constants, dynamic=set(dynamic)) if tool in found else []

    tools = {name: ToolUse(name, tool.kind, tool.cost, tool.effects, tuple(tool.code)) for name, tool in found.items()}
    missing = [Problem(str(refused[tool]), task=path, field="tool") for path, tool in named if tool in refused]
    try:
        plan = compile_process(process, tools, process_hash=process_hash, check=check)
    except ProcessError as error:
        raise ProcessError((*missing, *error.problems)) from None
    if missing:
        raise ProcessError(tuple(missing))
    tools_doc = json.dumps({name: list(use[1:]) for name, use in tools.items()}, separators=(",", ":")).encode()
    key = hashlib.sha256(process_hash.encode() + tools_doc).hexdigest()
    return Prepared(process, plan, process_doc, tools_doc, key, str((base or Path.cwd()).resolve()))


def prepare_file(path: str | Path) -> Prepared:
    """Reads, checks and compiles the process in a file. Raises `ProcessError` with file and line."""
    path = Path(path)
    document, marks = read_process(path)
    try:
        document = with_processes(document, folder=path.parent, within=(path.resolve(),))
        return prepare(spec.parse(document), base=path.parent)
    except ProcessError as error:
        raise marks.locate(error) from None


def _document(process: Process) -> bytes:
    try:
        return spec.canonical_json(process.document()).encode()
    except (TypeError, ValueError, RecursionError) as error:
        remedy = "Use text, numbers, true, false, null, lists and mappings only."
        raise ProcessError((Problem(f"the process holds a value that JSON cannot: {error}", remedy=remedy),)) from None


def submission(
    prepared: Prepared, inputs: Mapping[str, Any], *, job_id: str, idempotency_key: str | None = None
) -> Submission:
    """A job of `prepared` with these inputs. Raises `ProcessError` if they do not fit."""
    bound = spec.bind_inputs(prepared.process, inputs)
    try:
        inputs_doc = spec.canonical_json(bound).encode()
    except (TypeError, ValueError, RecursionError) as error:
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


@building()
def plan_from(process_doc: bytes, tools_doc: bytes, *, process_hash: str) -> Plan:
    """The plan of a process that was accepted before: from its stored documents, without looking at any tool."""
    tools = {
        name: ToolUse(name, kind, cost, effects, tuple(code))
        for name, (kind, cost, effects, code) in json.loads(tools_doc).items()
    }
    return compile_process(spec.parse(json.loads(process_doc)), tools, process_hash=process_hash, check=_unchecked)


def _unchecked(_tool: str, _constants: dict[str, Any], _dynamic: frozenset[str]) -> tuple[str, ...]:
    """Arguments were checked when the process was accepted."""
    return ()
