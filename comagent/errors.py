"""Everything that ComAgent raises, as one tree.

    ComAgentError
    ├── InputError                  what the caller gave is wrong
    │   ├── ProcessError            a process, its file or its inputs: all defects at once
    │   ├── ExpressionError         a reference or an expression
    │   ├── UnknownToolError        no tool has that name
    │   ├── ToolDefinitionError     a tool is there but cannot be used
    │   ├── ArgumentError           arguments do not fit a tool's parameters
    │   ├── UnknownJobError         no job has that id
    │   └── ConflictError           the request contradicts what is stored or running
    ├── CannotConnectError          a cluster, gateway, database or etcd cannot be reached
    ├── StaleEpochError             an owner that has been replaced tried to go on
    ├── BusyError                   no room at the moment
    ├── StoreError                  the store cannot do its work
    ├── ValueNotStorableError       a result cannot be written down
    ├── JobFailedError              a job ended otherwise than succeeded
    └── JobTimeoutError             waiting for a result took too long; the job goes on

Every error survives pickling: all arguments of a constructor go to `super().__init__`, the text is made in `__str__`.
"""

from dataclasses import dataclass

__all__ = [
    "ArgumentError",
    "BusyError",
    "CannotConnectError",
    "ComAgentError",
    "ConflictError",
    "ExpressionError",
    "InputError",
    "JobFailedError",
    "JobTimeoutError",
    "Problem",
    "ProcessError",
    "StaleEpochError",
    "StoreError",
    "ToolDefinitionError",
    "UnknownJobError",
    "UnknownToolError",
    "ValueNotStorableError",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect of a process, with the place where it is and what to do about it."""

    message: str
    """What is wrong: a clause without a full stop."""
    file: str | None = None
    line: int | None = None
    """Counted from 1, as is `column`."""
    column: int | None = None
    task: str | None = None
    field: str | None = None
    """A dotted path inside the task, or inside the process where `task` is None."""
    remedy: str | None = None
    """What to do: a whole sentence."""

    def __str__(self) -> str:
        position = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        within = ", ".join(
            f'{label} "{name}"' for label, name in (("task", self.task), ("field", self.field)) if name is not None
        )
        where = ": ".join(part for part in (position, within) if part)
        return _sentence(f"{where}: {self.message}" if where else self.message, self.remedy)


class ComAgentError(Exception):
    """Base of all errors of ComAgent."""


class InputError(ComAgentError):
    """What the caller gave is wrong; trying again with the same input fails again."""


class ProcessError(InputError):
    """A process, its file or its inputs have defects. The text has one line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class ExpressionError(InputError):
    """A reference or an expression cannot be read, or cannot be evaluated with the values at hand."""

    def __init__(self, source: str, problem: str, remedy: str = "") -> None:
        super().__init__(source, problem, remedy)
        self.source = source
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        shown = self.source if len(self.source) <= 200 else f"{self.source[:200]}…"
        return _sentence(f"in ${{{shown}}}: {self.problem}", self.remedy)


class UnknownToolError(InputError):
    """No tool has that name."""

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(name, nearest)
        self.name = name
        self.nearest = nearest

    def __str__(self) -> str:
        alternatives = " or ".join(f'"{name}"' for name in self.nearest)
        remedy = f"Did you mean {alternatives}?" if alternatives else "`comagent tools` lists the tools there are."
        return _sentence(f'no tool is called "{self.name}"', remedy)


class ToolDefinitionError(InputError):
    """A tool was found, but it cannot be imported or used as one."""

    def __init__(self, name: str, problem: str, remedy: str = "") -> None:
        super().__init__(name, problem, remedy)
        self.name = name
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f'tool "{self.name}": {self.problem}', self.remedy)


class ArgumentError(InputError):
    """Arguments do not fit the parameters of a tool."""

    def __init__(self, tool: str, problem: str, remedy: str = "") -> None:
        super().__init__(tool, problem, remedy)
        self.tool = tool
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f'tool "{self.tool}": {self.problem}', self.remedy)


class UnknownJobError(InputError):
    """No job has that id in this store."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f'no job has the id "{self.job_id}" in this store. `comagent jobs` lists the jobs there are.'


class ConflictError(InputError):
    """The request contradicts what is stored or running: another payload under one key, a job with a live owner."""

    def __init__(self, job_id: str, problem: str) -> None:
        super().__init__(job_id, problem)
        self.job_id = job_id
        self.problem = problem

    def __str__(self) -> str:
        return _sentence(f'job "{self.job_id}": {self.problem}')


class CannotConnectError(ComAgentError):
    """A cluster, gateway, database or etcd cannot be reached."""

    def __init__(self, what: str, problem: str, remedy: str = "") -> None:
        super().__init__(what, problem, remedy)
        self.what = what
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f"cannot connect to {self.what}: {self.problem}", self.remedy)


class StaleEpochError(ComAgentError):
    """An owner that has been replaced tried to go on; nothing of that was committed."""

    def __init__(self, job_id: str, epoch: tuple[int, int]) -> None:
        super().__init__(job_id, epoch)
        self.job_id = job_id
        self.epoch = epoch

    def __str__(self) -> str:
        shown = f"({self.epoch[0]}, {self.epoch[1]})"
        return f'job "{self.job_id}" has a newer owner than epoch {shown}, which goes on with it; nothing was committed'


class BusyError(ComAgentError):
    """There is no room at the moment."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return _sentence(self.problem, "Try again later.")


class StoreError(ComAgentError):
    """The store cannot do its work."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(self.problem, self.remedy)


class ValueNotStorableError(ComAgentError):
    """A tool returned something that cannot be written down."""

    def __init__(self, tool: str, problem: str, remedy: str = "") -> None:
        super().__init__(tool, problem, remedy)
        self.tool = tool
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f'the result of tool "{self.tool}" cannot be stored: {self.problem}', self.remedy)


class JobFailedError(ComAgentError):
    """A job ended otherwise than succeeded."""

    def __init__(self, job_id: str, status: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(job_id, status, failures)
        self.job_id = job_id
        self.status = status
        self.failures = failures

    def __str__(self) -> str:
        return "\n".join((f'job "{self.job_id}" ended as {self.status}', *(f"  {line}" for line in self.failures)))


class JobTimeoutError(ComAgentError):
    """Waiting for a result took too long. The job itself goes on."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        super().__init__(job_id, timeout_s)
        self.job_id = job_id
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return (
            f'job "{self.job_id}" has no result after {self.timeout_s:g} s; it goes on. '
            "Wait longer, or watch it with `comagent watch`."
        )


def _sentence(problem: str, remedy: str | None = None) -> str:
    """The problem alone, or problem and remedy with exactly one mark of punctuation between them."""
    if not remedy:
        return problem
    return f"{problem} {remedy}" if problem.endswith((".", "!", "?", ":")) else f"{problem}. {remedy}"
