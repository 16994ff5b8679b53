import inspect
import pickle

import pytest

from comagent import errors
from comagent.errors import (
    ArgumentError,
    BusyError,
    CannotConnectError,
    ComAgentError,
    ConflictError,
    ExpressionError,
    InputError,
    JobFailedError,
    JobTimeoutError,
    Problem,
    ProcessError,
    StaleEpochError,
    StoreError,
    ToolDefinitionError,
    UnknownJobError,
    UnknownToolError,
    ValueNotStorableError,
)

EXAMPLES = [
    ProcessError((Problem("is wrong", "p.yaml", 3, 1, task="a", field="tool", remedy="Mend it."), Problem("too"))),
    ExpressionError("1 +", "it ends too early", "Go on."),
    UnknownToolError("debug.ecko", ("debug.echo",)),
    ToolDefinitionError("python:m.f", "is a class", "Name a function."),
    ArgumentError("debug.echo", 'there is no parameter "valve"', 'Did you mean "value"?'),
    UnknownJobError("j1"),
    ConflictError("j1", "it is run by another process"),
    CannotConnectError("etcd at localhost:1", "connection refused", "Is it running?"),
    StaleEpochError("j1", (1, 2)),
    BusyError("50,000 rows wait to be committed"),
    StoreError("the disk is full", "Make room."),
    ValueNotStorableError("m.f", "it holds NaN", "Return null."),
    JobFailedError("j1", "failed", ('task "a": boom',)),
    JobTimeoutError("j1", 1.5),
]


def test_there_is_an_example_of_every_error_that_is_raised() -> None:
    concrete = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, ComAgentError) and cls not in (ComAgentError, InputError)
    }
    assert {type(error) for error in EXAMPLES} == concrete


def test_the_docstring_draws_every_error() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__ or name == "Problem"


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_text_and_attributes(error: ComAgentError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("it is empty"), "it is empty"),
        (Problem("it is empty", "p.yaml"), "p.yaml: it is empty"),
        (Problem("it is empty", "p.yaml", 3), "p.yaml:3: it is empty"),
        (Problem("it is empty", task="a"), 'task "a": it is empty'),
        (Problem("it is empty", field="name", remedy="Write one."), 'field "name": it is empty. Write one.'),
        (
            Problem('no task is called "fetc"', "p.yaml", 12, 3, "load", "needs", 'Did you mean "fetch"?'),
            'p.yaml:12:3: task "load", field "needs": no task is called "fetc". Did you mean "fetch"?',
        ),
    ],
)
def test_a_problem_says_what_where_and_what_to_do(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_process_error_has_a_line_for_each_problem() -> None:
    assert str(ProcessError((Problem("one"), Problem("two")))) == "one\ntwo"


def test_an_unknown_tool_names_what_is_near_or_where_to_look() -> None:
    assert str(UnknownToolError("a.c", ("a.b", "a.d"))) == 'no tool is called "a.c". Did you mean "a.b" or "a.d"?'
    assert "comagent tools" in str(UnknownToolError("zzz"))


def test_a_long_expression_is_shortened_in_the_message() -> None:
    assert len(str(ExpressionError("x" * 9_000, "it is wrong"))) < 300
