"""Where definitions of agents are: in the project, and among what comes with ComAgent."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from comagent.agents.definition import Agent, AgentTool, folded, parse_agent
from comagent.errors import Problem, ProcessError
from comagent.reading import read_process

__all__ = ["Agents", "load_agents"]

_FOLDER = Path("configs", "agents")
_SHIPPED = Path(__file__).parents[1] / _FOLDER


class Agents:
    """Definitions of agents, found by their ids and names. Case, spaces and punctuation do not count."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            for name in (agent.id, agent.name):
                if folded(name):
                    self._agents.setdefault(folded(name), agent)

    def __iter__(self) -> Iterator[Agent]:
        return iter({id(agent): agent for agent in self._agents.values()}.values())

    def find(self, *names: str) -> Agent | None:
        """The agent that has the first of these names that any has."""
        return next((self._agents[folded(name)] for name in names if folded(name) in self._agents), None)

    def tools(self, names: set[str]) -> list[AgentTool]:
        """The tools that agents know under one of these folded names; equal ones count once."""
        found: list[AgentTool] = []
        for entry in (entry for agent in self for entry in agent.tools):
            if not entry.tool or entry.own_names.isdisjoint(names):
                continue
            if all(entry.differs_from(each) for each in found):
                found.append(entry)
        return found

    def names(self) -> list[str]:
        return [agent.id or agent.name for agent in self]


def load_agents(base: Path | None = None) -> Agents:
    """The definitions in `configs/agents` of the project and of ComAgent; of two with one id the project's counts.

    The project is the folder of the process file, `base`, or the one that has it in `configs/processes`, and the
    working folder. Raises `ProcessError` for a file that is no definition.
    """
    return Agents(agent for folder in _folders(base) for agent in _in_folder(folder))


def _folders(base: Path | None) -> list[Path]:
    projects = [Path.cwd()]
    if base is not None:
        base = base.resolve()
        projects.insert(0, base)
        if base.parts[-2:] == ("configs", "processes"):
            projects.insert(1, base.parents[1])
    return list(dict.fromkeys([*(project.resolve() / _FOLDER for project in projects), _SHIPPED.resolve()]))


def _in_folder(folder: Path) -> Iterator[Agent]:
    files: dict[str, Path] = {}
    for path in sorted(each for suffix in ("yaml", "yml", "json") for each in folder.glob(f"*.{suffix}")):
        document, marks = read_process(path)
        try:
            agent = parse_agent(document)
        except ProcessError as error:
            raise marks.locate(error) from None
        key = folded(agent.id or agent.name)
        if key in files:
            problem = f'{files[key].name} defines the agent "{agent.id or agent.name}" too'
            located = marks.locate(ProcessError((Problem(problem, field="id", remedy="Rename one of them."),)))
            raise ProcessError(tuple(replace(each, file=str(path)) for each in located.problems))
        files[key] = path
        yield agent
