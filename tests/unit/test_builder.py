"""Processes written in Python say the same as files, and what cannot be written is refused where it is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import comagent
from comagent import spec
from comagent.builder import Process, Value
from comagent.errors import ExpressionError, ProcessError, ToolDefinitionError
from comagent.expressions import evaluate, parse
from comagent.reading import load_process, read_process
from comagent.submission import prepare
from comagent.tools.text import render
from comagent.writing import to_yaml


@comagent.tool(cost="cheap")
def count_words(text: str) -> int:
    return len(text.split())


@comagent.tool(name="tests.greet")
async def greet(name: str, greeting: str = "Hello") -> str:
    return f"{greeting}, {name}"


@comagent.tool
def collect(id: str, **values: Any) -> dict[str, Any]:
    return {"id": id, **values}


def add(left: int, right: int) -> int:
    return left + right


HERE = f"python:{__name__}"


def tasks(process: Process) -> list[dict[str, Any]]:
    return list(process.document()["tasks"])


# Steps ---------------------------------------------------------------------------------------------------------------


def test_steps_become_tasks_and_their_handles_references() -> None:
    process = Process("words", description="Counts.", timeout="5m", priority="high")
    count = process.step(count_words, text=process.input("text", str))
    process.step(add, left=count, right=[count["rows"][0], {"odd key": count.deep["odd key"]}], id="sum")
    process.outputs(words=count, fixed=3)

    assert json.loads(json.dumps(process.document())) == {
        "name": "words",
        "description": "Counts.",
        "inputs": {"text": {"type": "string"}},
        "tasks": [
            {"id": "count_words", "tool": f"{HERE}.count_words", "with": {"text": "${inputs.text}"}},
            {
                "id": "sum",
                "tool": f"{HERE}.add",
                "with": {
                    "left": "${tasks.count_words}",
                    "right": ["${tasks.count_words.rows[0]}", {"odd key": '${tasks.count_words.deep["odd key"]}'}],
                },
            },
        ],
        "outputs": {"words": "${tasks.count_words}", "fixed": 3},
        "timeout": 300.0,
        "priority": 10,
    }


def test_options_of_a_step_are_those_of_a_task() -> None:
    process = Process("options")
    first = process.step("debug.echo", value=1)
    process.step(
        "debug.echo",
        {"value": 2},
        id="second",
        name="The second",
        description="Comes last.",
        needs=[first],
        retries=3,
        timeout="30s",
        when="tasks.echo > 0",
        trigger="all_done",
        on_failure="continue",
        cost="cheap",
    )
    process.step("debug.echo", value=3, id="third", when=first, retries={"attempts": 2, "delay": "1s"})

    _, second, third = process.definition().tasks
    assert (second.name, second.needs, second.when) == ("The second", ("echo",), "tasks.echo > 0")
    assert (second.retry, second.timeout_s) == (spec.Retry(attempts=4), 30.0)
    assert (second.trigger, second.on_failure, second.cost) == ("all_done", "continue", "cheap")
    assert (third.when, third.retry, third.declares_needs) == ("${tasks.echo}", spec.Retry(attempts=2), False)
    prepare(process.definition())


def test_written_needs_come_together_with_those_of_the_arguments() -> None:
    process = Process("needs")
    one, two = process.step("debug.echo", value=1), process.step("debug.echo", value=2)
    process.step("debug.echo", value="${tasks.echo_2}", needs=[one], when=two, id="both")

    assert tasks(process)[2]["needs"] == ("echo", "echo_2")
    prepare(process.definition())


def test_a_tool_that_comes_with_comagent_is_known_by_its_name() -> None:
    process = Process("tools")
    process.step(render, template="x")
    process.step(greet, name="you")
    assert [task["tool"] for task in tasks(process)] == ["text.render", f"{HERE}.greet"]


def test_arguments_that_are_called_like_options_go_into_the_mapping() -> None:
    process = Process("arguments")
    process.step(collect, {"id": "theirs", "needs": 1}, id="ours", colour="red")
    assert tasks(process) == [
        {"id": "ours", "tool": f"{HERE}.collect", "with": {"id": "theirs", "needs": 1, "colour": "red"}}
    ]
    with pytest.raises(ProcessError, match="twice"):
        process.step(collect, {"colour": "red"}, colour="blue")


def test_a_process_is_a_step_of_another_one() -> None:
    inner = Process("inner")
    inner.outputs(words=inner.step(count_words, text=inner.input("text", str)))
    outer = Process("outer")
    words = outer.step(inner, text="a b")
    outer.step(add, left=words["words"], right=1)

    plan = prepare(outer.definition()).plan
    assert "inner/count_words" in plan.ids
    with pytest.raises(ProcessError, match="belongs to another process"):
        outer.step(inner, text=inner.input("text"))


def test_add_step_takes_what_workflow_agents_take() -> None:
    process = Process("workflow")
    process.add_step("load", "Load data", "debug.echo", arguments={"value": 1})
    process.add_step("save", "Save data", add, ["load"], max_retries=0, timeout=10, arguments={"left": 1, "right": 2})

    load, save = process.definition().tasks
    assert (load.name, load.needs, load.timeout_s) == ("Load data", (), 300.0)
    assert load.retry == spec.Retry(attempts=4, delay_s=2.0), "three retries are four tries"
    assert (save.needs, save.timeout_s, save.retry) == (("load",), 10.0, spec.Retry(attempts=1, delay_s=2.0))


def test_an_input_is_declared_once() -> None:
    process = Process("inputs")
    process.input("n", int, default=3, description="How many.")
    process.input("n")
    process.step("debug.echo", value=process.input("n"))
    assert process.document()["inputs"] == {"n": {"type": "integer", "default": 3, "description": "How many."}}
    with pytest.raises(ProcessError, match="declared twice"):
        process.input("n", str)


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda step: f"{step}", 'Write "${tasks.echo}" in a text without an f before it'),
        (lambda step: "n: " + str(step), 'Write "${tasks.echo}"'),
        (lambda step: f"{step.rows[0]:>5}", 'Write "${tasks.echo.rows[0]}"'),
        (lambda step: 1 if step else 2, "Write a condition as text"),
        (lambda step: [row for row in step], "Give it to a step that takes the whole list"),  # noqa: C416
        (lambda step: step[-1], "-1 is neither a place counted from 0 nor a key"),
        (lambda step: step["a\n"], "without control characters"),
        (lambda step: step[0:2], "neither a place counted from 0"),
    ],
)
def test_a_value_that_is_not_known_yet_says_what_to_do_instead(use: Any, said: str) -> None:
    step = Process("values").step("debug.echo", value=1)
    with pytest.raises(ExpressionError) as raised:
        use(step)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({1, 2}, 'task "echo", field "with.value": a set cannot be written'),
        ([object()], 'field "with.value.0": a object cannot be written'),
        ({1: "x"}, "the key 1 is no text"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(argument: Any, said: str) -> None:
    with pytest.raises(ProcessError) as raised:
        Process("values").step("debug.echo", value=argument)
    assert said in str(raised.value)


def test_a_function_that_no_other_process_finds_is_refused_at_once() -> None:
    with pytest.raises(ToolDefinitionError, match="top level of a module"):
        Process("lambda").step(lambda: 1)


def test_two_steps_cannot_have_one_id() -> None:
    process = Process("twice")
    process.step("debug.echo", value=1, id="a")
    with pytest.raises(ProcessError, match='task "a", field "id": several steps have this id'):
        process.step("debug.echo", value=1, id="a")


def test_the_result_of_a_step_is_no_action() -> None:
    process = Process("action")
    with pytest.raises(ProcessError, match="not a tool"):
        process.step(process.step("debug.echo", value=1))  # type: ignore[arg-type]


def test_the_whole_is_checked_as_a_file_is() -> None:
    process = Process("checked", priority="urgent", defaults={"timeout": "soon"})
    process.step("debug.echo", value=1, timeout="later")
    with pytest.raises(ProcessError) as raised:
        process.definition()
    assert {problem.field for problem in raised.value.problems} == {"priority", "defaults.timeout", "timeout"}


# Functions -----------------------------------------------------------------------------------------------------------


def test_calls_of_tools_in_a_process_function_are_steps() -> None:
    @comagent.process
    def words(text: str, times: int = 2, names: list[str] | None = None) -> dict[str, Any]:
        """How many words there are."""
        count = count_words(text)
        assert isinstance(count, Value)
        hello = greet("you", greeting=text)
        everything = collect("x", count=count, hello=hello, names=names)
        total = comagent.step(add, left=count, right=times, retries=1, id="total")
        return {"total": total, "all": everything}

    assert isinstance(words, comagent.Process)
    document = words.document()
    assert document["description"] == "How many words there are."
    assert document["inputs"] == {
        "text": {"type": "string"},
        "times": {"type": "integer", "default": 2},
        "names": {"type": "array", "default": None},
    }
    assert [task["id"] for task in document["tasks"]] == ["count_words", "greet", "collect", "total"]
    assert document["tasks"][2]["with"] == {
        "id": "x",
        "count": "${tasks.count_words}",
        "hello": "${tasks.greet}",
        "names": "${inputs.names}",
    }
    assert document["outputs"] == {"total": "${tasks.total}", "all": "${tasks.collect}"}
    prepare(words.definition())


def test_outside_a_process_function_tools_are_called() -> None:
    @comagent.process(name="short", priority="low")
    def named() -> int:
        return count_words("a b")

    assert count_words("a b c") == 3
    assert json.loads(json.dumps(named.document())) == {
        "name": "short",
        "tasks": [{"id": "count_words", "tool": f"{HERE}.count_words", "with": {"text": "a b"}}],
        "outputs": {"result": "${tasks.count_words}"},
        "priority": -10,
    }
    with pytest.raises(ProcessError, match="no process that a step could belong to"):
        comagent.step(add, left=1, right=2)


def test_a_call_with_arguments_that_do_not_fit_is_refused_where_it_stands() -> None:
    with pytest.raises(TypeError, match="colour"):

        @comagent.process
        def wrong() -> None:
            count_words(colour="red")  # type: ignore[call-arg]


def test_a_process_function_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError):

        @comagent.process
        def fails() -> float:
            return 1 / 0

    assert count_words("a b") == 2
    with pytest.raises(ProcessError):
        comagent.step(add)


# Files ---------------------------------------------------------------------------------------------------------------

HARD = [
    "1e5",
    "0x10",
    "0o17",
    "010",
    "1_000",
    "1:30",
    "on",
    "No",
    "~",
    "null",
    "2026-01-01",
    ".5",
    "-",
    "=",
    "<<",
    "+.5e3",
]
TEXTS = st.one_of(
    st.sampled_from(HARD),
    st.from_regex(r"[-+.0-9eExob_:]{1,6}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: "${" not in text),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_yaml_says_what_the_document_says(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(to_yaml({"value": value}), encoding="utf-8", newline="")
    assert read_process(path)[0] == {"value": value}


@pytest.mark.parametrize("text", ["1e5", "0x10", "0o17", "1_000", "1:30", "007"])
def test_text_that_some_yaml_takes_for_a_number_is_in_quotes(text: str) -> None:
    assert to_yaml({"value": text}) == f"value: '{text}'\n"


def test_a_process_written_as_a_file_is_the_same_process(tmp_path: Path) -> None:
    inner = Process("inner")
    inner.outputs(echo=inner.step("debug.echo", value=inner.input("x", default=None), needs=[]))
    process = Process("1e5", id="0x10", defaults={"timeout": "30s"})
    first = process.step("debug.echo", value="on", id="010", retries=2)
    process.step(inner, x=first, id="part")
    path = tmp_path / "process.yaml"
    path.write_text(process.to_yaml())

    assert load_process(path) == process.definition()
    assert path.read_text().splitlines()[4:7] == ["tasks:", "  - id: '010'", "    tool: debug.echo"]


KEYS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=8)


@given(st.lists(KEYS | st.integers(0, 10), max_size=4))
def test_any_part_of_a_value_can_be_referred_to(path: list[str | int]) -> None:
    process = Process("path")
    step: Value = process.step("debug.echo", value=1, id="a-b")
    sought: Any = 42
    for key in reversed(path):
        sought = {key: sought} if isinstance(key, str) else [*[0] * key, sought]
    for key in path:
        step = step[key]
    process.outputs(part=step)

    reference = process.document()["outputs"]["part"]
    assert evaluate(parse(reference), {"tasks": {"a-b": sought}}) == 42
