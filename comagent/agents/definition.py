"""What an agent is: the models behind a file in `configs/agents`, or behind the agent of a single task."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from comagent.errors import Problem, ProcessError
from comagent.nearest import did_you_mean

__all__ = ["Agent", "AgentTool", "Policy", "folded", "parse_agent"]


def folded(name: str) -> str:
    """The name without case, spaces and punctuation: "ETL Tool", "etl-tool" and "ETLTool" are one name."""
    return "".join(character for character in name.casefold() if character.isalnum())


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class AgentTool(_Model):
    """A tool as an agent knows it: under a name of its own, and with arguments that are settled. In a file also just
    the name of a tool."""

    id: str = ""
    name: str = ""
    tool: str = ""
    """The name of the tool itself. Where it is not written, id or name say it."""
    arguments: dict[str, Any] = Field({}, validation_alias="with", serialization_alias="with")
    """What it is called with where a task says nothing else."""
    takes: tuple[str, ...] = ()
    """Optional parameters that get results of the tasks before, as the required ones do."""
    may_take: tuple[str, ...] = ()
    """Optional parameters that get what one of the tasks before has under their name, and are left out otherwise."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: object) -> object:
        return {"tool": data} if isinstance(data, str) else data

    def differs_from(self, other: "AgentTool") -> bool:
        """Whether it is another tool, or one that is called otherwise, apart from its names."""
        fields = ("tool", "arguments", "takes", "may_take")
        return any(getattr(self, field) != getattr(other, field) for field in fields)

    @property
    def own_names(self) -> set[str]:
        """What the agent calls it, folded."""
        return {folded(name) for name in (self.id, self.name) if name}

    @property
    def names(self) -> set[str]:
        """The same, and the name of the tool itself."""
        return self.own_names | ({folded(self.tool)} if self.tool else set())

    @property
    def shown(self) -> str:
        return self.name or self.tool or self.id


class Policy(_Model):
    """What an agent may use."""

    allow: tuple[str, ...] = ("*",)
    """Names of tools, with `*`, `?` and `[abc]`."""
    deny: tuple[str, ...] = ()
    """Those of them that it may not use after all."""

    def permits(self, tool: str) -> bool:
        return any(fnmatchcase(tool, each) for each in self.allow) and not any(
            fnmatchcase(tool, each) for each in self.deny
        )


class Agent(_Model):
    """Who does a task."""

    id: str = ""
    name: str = ""
    description: str = ""
    capabilities: tuple[str, ...] = ()
    tools: tuple[AgentTool, ...] = ()
    arguments: dict[str, Any] = {}
    """By parameter, for every tool of the agent that has one of that name."""
    policy: Policy = Policy()
    model: str | dict[str, Any] | None = None
    """The model it works with, where a task calls no tool."""

    @model_validator(mode="after")
    def _is_called_something(self) -> "Agent":
        if not (folded(self.id) or folded(self.name)):
            raise ValueError("an agent has an id or a name")
        return self

    @property
    def shown(self) -> str:
        return self.name or self.id


def parse_agent(document: Mapping[str, Any]) -> Agent:
    """The agent that `document` describes. Raises `ProcessError` with all defects."""
    try:
        return Agent.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise ProcessError(tuple(map(_problem, details))) from None


def _problem(detail: ErrorDetails) -> Problem:
    path = detail["loc"]
    field = ".".join(map(str, path)) or None
    if detail["type"] == "extra_forbidden":
        known = [str(each.validation_alias or name) for name, each in _model_at(path[:-1]).model_fields.items()]
        remedy = did_you_mean(str(path[-1]), known, otherwise=f"Fields here: {', '.join(known)}.")
        return Problem("there is no such field", field=field, remedy=remedy)
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "this must be")
    return Problem(message, field=field)


def _model_at(path: tuple[int | str, ...]) -> type[_Model]:
    match path:
        case ("tools", *_):
            return AgentTool
        case ("policy",):
            return Policy
    return Agent
