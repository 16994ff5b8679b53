"""From a task's agent to the tool it calls and the arguments it gives, before anything runs.

A parameter has its value from the first of these that has one:

1. what the task says under `with`;
2. the agent: its arguments for this tool, then its arguments for all its tools;
3. if it is required, or the agent's tool `takes` it: the tasks that `needs` names. If exactly one of them is known to
   return an object that always has a key of the parameter's name (by the declared result of its tool, or the outputs of
   its process), it is what is under that key;
4. if it is the only one left then, and `needs` names exactly one task: the whole result of that one.

A result whose declared type does not fit is never taken. A required or taken parameter for which nothing is found is
an error. What the agent's tool `may_take` has the third rule only, and is left out where that finds nothing.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from comagent.agents.catalogue import Agents, load_agents
from comagent.agents.definition import Agent, AgentTool, folded, parse_agent
from comagent.errors import ComAgentError, InputError, Problem, ProcessError, UnknownToolError
from comagent.expressions import Reference
from comagent.nearest import did_you_mean
from comagent.spec import Process, Task
from comagent.tools.base import ToolSpec
from comagent.tools.registry import builtin_names, resolve

__all__ = ["assigned"]

Schema = Mapping[str, Any]


class _Choice(NamedTuple):
    """The tool of a task, as its agents know it."""

    tool: str
    entries: tuple[AgentTool, ...]
    """Those that come first count first."""
    agents: tuple[Agent, ...]


def assigned(process: Process, *, base: Path | None = None) -> Process:
    """The process with tool and arguments written in each task that has an agent; the agents stay.

    `base` is the folder of the process file. Raises `ProcessError` with all tasks for which that cannot be done.
    """
    if not any(task.agent is not None for _, task in process.all_tasks()):
        return process
    assignment = _Assignment(load_agents(base), base)
    complete = assignment.complete(process, "")
    if assignment.problems:
        raise ProcessError(tuple(assignment.problems))
    return complete


class _Assignment:
    def __init__(self, agents: Agents, base: Path | None) -> None:
        self.problems: list[Problem] = []
        self._agents = agents
        self._base = base
        self._specs: dict[str, ToolSpec | None] = {}

    def complete(self, process: Process, prefix: str) -> Process:
        tasks: list[Task] = []
        choices: dict[str, _Choice] = {}
        for task in process.tasks:
            if task.process is not None:
                task = task.model_copy(update={"process": self.complete(task.process, f"{prefix}{task.id}/")})
            elif task.agent is not None:
                try:
                    choices[task.id] = choice = self._choose(task)
                except InputError as error:
                    self._report(error, prefix + task.id)
                    continue
                task = task.model_copy(update={"tool": choice.tool})
            tasks.append(task)
        returns = {task.id: self._returns(task) for task in tasks}
        return process.model_copy(
            update={
                "tasks": tuple(
                    self._with_arguments(task, choices[task.id], returns, prefix) if task.id in choices else task
                    for task in tasks
                )
            }
        )

    def _report(self, error: InputError, path: str) -> None:
        if not isinstance(error, ProcessError):
            self.problems.append(Problem(str(error), task=path, field="agent"))
            return
        for each in error.problems:
            field = ".".join(filter(None, ("agent", each.field)))
            self.problems.append(Problem(each.message, task=path, field=field, remedy=each.remedy))

    def _choose(self, task: Task) -> _Choice:
        """Raises `ProcessError` or `UnknownToolError`."""
        if isinstance(task.agent, str):
            found = self._agents.find(task.agent)
            if found is None:
                remedy = did_you_mean(task.agent, self._agents.names(), otherwise="Define it in `configs/agents`.")
                raise _refusal(f'no agent is called "{task.agent}"', remedy)
            agents: tuple[Agent, ...] = (found,)
        else:
            own = parse_agent(task.agent or {})
            found = self._agents.find(own.id, own.name)
            agents = (own,) if found is None else (own, found)
        choice = self._tool(agents, AgentTool(tool=task.tool) if task.tool else _only_tool(agents))
        for agent in agents:
            if not agent.policy.permits(choice.tool):
                remedy = "Let the task call another tool, or change the policy of the agent."
                raise _refusal(f'the policy of agent "{agent.shown}" does not permit tool "{choice.tool}"', remedy)
        return choice

    def _tool(self, agents: tuple[Agent, ...], wanted: AgentTool) -> _Choice:
        own = tuple(entry for agent in agents for entry in _entries(agent, wanted))
        names = (*(entry.tool for entry in own), wanted.tool, wanted.id, wanted.name)
        named = next((name for name in names if self._spec(name)), None)
        if named is not None:
            return _Choice(named, own, agents)
        known = self._agents.tools(wanted.names)
        if len(known) == 1:
            return _Choice(known[0].tool, (*own, known[0]), agents)
        if known:
            tools = " and ".join(f'"{entry.tool}"' for entry in known)
            problem = f'agents know several tools as "{wanted.shown}": {tools}, or one with several arguments'
            raise _refusal(problem, "Say which one under `tool`.")
        for name in filter(None, names):
            with suppress(UnknownToolError):
                resolve(name, base=self._base)  # one that is there and of no use says why
        close = [*builtin_names(), *(entry.shown for agent in self._agents for entry in agent.tools)]
        remedy = did_you_mean(wanted.shown, close, otherwise="Define it under `tools` of an agent in `configs/agents`.")
        raise _refusal(f'no tool is called "{wanted.shown}", and no agent has one of that name', remedy)

    def _spec(self, name: str | None) -> ToolSpec | None:
        """What is known of a tool, None where it cannot be used."""
        if not name:
            return None
        if name not in self._specs:
            try:
                self._specs[name] = resolve(name, base=self._base)
            except ComAgentError:
                self._specs[name] = None
        return self._specs[name]

    def _returns(self, task: Task) -> Schema | None:
        if task.process is not None:
            keys = task.process.outputs
            if keys is None:
                return None
            return {"type": "object", "properties": {key: {} for key in keys}, "required": list(keys)}
        spec = self._spec(task.tool)
        return None if spec is None else spec.returns

    def _with_arguments(self, task: Task, choice: _Choice, returns: Mapping[str, Schema | None], prefix: str) -> Task:
        spec = self._spec(choice.tool)
        parameters: Schema = {} if spec is None else spec.parameters
        properties: Mapping[str, Schema] = parameters.get("properties", {})
        given: dict[str, Any] = {}
        for agent in reversed(choice.agents):
            given |= {name: value for name, value in agent.arguments.items() if name in properties}
        for entry in reversed(choice.entries):
            given |= entry.arguments
        given |= task.arguments
        if any(need not in returns for need in task.needs):
            return task.model_copy(update={"arguments": given})  # that need is told about anyhow
        above = {need: returns[need] for need in task.needs}
        taken = [name for entry in choice.entries for name in entry.takes if name in properties]
        missing = [name for name in dict.fromkeys((*parameters.get("required", ()), *taken)) if name not in given]
        optional = [name for entry in choice.entries for name in entry.may_take if name in properties]
        for name in dict.fromkeys((*missing, *(name for name in optional if name not in given))):
            wanted = properties[name]
            sources = [need for need, schema in above.items() if _fits(_under(schema, name), wanted, parameters)]
            if len(sources) == 1:
                given[name] = f"${{{Reference('tasks', sources[0], (name,))}}}"
            elif sources and name in missing:
                listed = " and ".join(f'"{need}"' for need in sources)
                self._missing(f"tasks {listed} all give one", name, task, choice, prefix)
                given[name] = None
        missing = [name for name in missing if name not in given]
        if len(missing) == 1 and len(above) == 1:
            ((need, schema),) = above.items()
            if schema is None or _fits((schema, schema), properties[missing[0]], parameters):
                given[missing.pop()] = f"${{{Reference('tasks', need)}}}"
        for name in missing:
            known = "; ".join(f'task "{need}" gives {_described(schema)}' for need, schema in above.items())
            self._missing(known or "no task comes before it", name, task, choice, prefix)
        return task.model_copy(update={"arguments": given})

    def _missing(self, why: str, name: str, task: Task, choice: _Choice, prefix: str) -> None:
        entry = next((each.name for each in choice.entries if each.name), None)
        tool = f'"{choice.tool}"' if entry is None else f'"{choice.tool}" ("{entry}")'
        problem = f'nothing tells the parameter "{name}" of tool {tool}: {why}'
        remedy = f'Give it under `with` in the task, or in a definition of agent "{choice.agents[0].shown}".'
        self.problems.append(Problem(problem, task=prefix + task.id, field="with", remedy=remedy))


def _refusal(problem: str, remedy: str) -> ProcessError:
    return ProcessError((Problem(problem, remedy=remedy),))


def _entries(agent: Agent, wanted: AgentTool) -> list[AgentTool]:
    """What the agent has under these names. One that is called by its tool's own name must be the only one of it."""
    named = [entry for entry in agent.tools if not entry.own_names.isdisjoint(wanted.names)]
    found = named or [entry for entry in agent.tools if entry.tool and folded(entry.tool) in wanted.names]
    return found if len(found) == 1 else []


def _only_tool(agents: Iterable[Agent]) -> AgentTool:
    for agent in agents:
        if len(agent.tools) == 1:
            return agent.tools[0]
        if agent.tools:
            listed = ", ".join(entry.shown for entry in agent.tools)
            raise _refusal(f'agent "{agent.shown}" has several tools: {listed}', "Name one of them under `tool`.")
    shown = next(agent.shown for agent in agents)
    raise _refusal(f'agent "{shown}" has no tool', "Name one under `tool`, or in the definition of the agent.")


def _under(schema: Schema | None, key: str) -> tuple[Schema, Schema] | None:
    """The schema of what an object always has under `key`, with the one that it is in; None where none is known."""
    if schema is None:
        return None
    declared = _target(schema, schema)
    if key not in declared.get("required", ()) or key not in declared.get("properties", {}):
        return None
    return declared["properties"][key], schema


def _fits(value: tuple[Schema, Schema] | None, wanted: Schema, parameters: Schema) -> bool:
    """Whether a value that has the first schema may be one of the second, as far as their types tell."""
    if value is None:
        return False
    have, want = _types(*value), _types(wanted, parameters)
    return have is None or want is None or not have.isdisjoint(want)


def _types(schema: Schema, root: Schema) -> set[str] | None:
    """The JSON types of a schema's values; None for any."""
    schema = _target(schema, root)
    if "anyOf" in schema:
        options = [_types(option, root) for option in schema["anyOf"]]
        return None if None in options else set().union(*(option for option in options if option is not None))
    types = schema.get("type")
    if types is None:
        return None
    found = {types} if isinstance(types, str) else set(types)
    return found | {"integer"} if "number" in found else found


def _target(schema: Schema, root: Schema) -> Schema:
    """What a schema that only refers to a definition refers to."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    target: Schema = root.get("$defs", {}).get(name, schema)
    return target


def _described(schema: Schema | None) -> str:
    if schema is None:
        return "what is not known before it runs"
    declared = _target(schema, schema)
    keys = declared.get("properties")
    types = _types(schema, schema)
    return f"an object with {', '.join(keys)}" if keys else f"a value of type {' or '.join(sorted(types or {'any'}))}"
