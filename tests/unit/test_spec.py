import json
import math
import pickle
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent.errors import ProcessError
from comagent.spec import (
    Process,
    Retry,
    Task,
    bind_inputs,
    canonical_json,
    content_hash,
    parse,
    parse_duration,
    too_deep,
)


def process(*tasks: dict[str, Any], **rest: Any) -> Process:
    return parse({"name": "p", "tasks": list(tasks) or [{"id": "a", "tool": "t"}], **rest})


def defects(document: Any) -> list[str]:
    with pytest.raises(ProcessError) as caught:
        parse(document)
    return [str(problem) for problem in caught.value.problems]


def task_defects(**task: Any) -> list[str]:
    return defects({"name": "p", "tasks": [{"id": "a", "tool": "t"} | task]})


def test_the_short_form_is_read() -> None:
    read = parse(
        {
            "name": "cluster-health",
            "inputs": {"path": {"type": "string", "default": "/"}},
            "defaults": {"timeout": "30s", "retry": {"attempts": 3}},
            "tasks": [
                {"id": "disk", "tool": "system.disk", "with": {"path": "${inputs.path}"}},
                {"id": "report", "tool": "text.render", "needs": ["disk"], "when": "tasks.disk.percent > 90.0"},
            ],
            "outputs": {"report": "${tasks.report}"},
            "timeout": "1h30m",
            "priority": "high",
        }
    )
    disk, report = read.tasks
    assert disk.arguments == {"path": "${inputs.path}"}
    assert report.needs == ("disk",)
    assert (read.timeout_s_of(disk), read.retry_of(disk).attempts) == (30, 3)
    assert (read.timeout_s, read.priority) == (5400, 10)


def test_a_task_s_own_limits_come_before_the_defaults() -> None:
    read = process(
        {"id": "a", "tool": "t", "timeout": 5, "max_retries": 1}, defaults={"timeout": "1m", "max_retries": 3}
    )
    assert read.timeout_s_of(read.tasks[0]) == 5
    assert read.retry_of(read.tasks[0]).attempts == 2
    assert read.defaults.retry == Retry(attempts=4)


def test_no_limits_at_all_mean_one_try_for_ever() -> None:
    read = process()
    assert read.timeout_s_of(read.tasks[0]) is None
    assert read.retry_of(read.tasks[0]) == Retry(attempts=1)


def test_max_retries_are_tries_after_the_first_beside_or_inside_retry() -> None:
    beside = process({"id": "a", "tool": "t", "max_retries": 3, "retry": {"delay": "2s"}})
    inside = process({"id": "a", "tool": "t", "retry": {"max_retries": 3, "delay": 2}})
    assert beside.tasks[0].retry == inside.tasks[0].retry == Retry(attempts=4, delay_s=2)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5), ("1d", 86400), (3, 3), (0.5, 0.5)],
)
def test_durations_are_read_as_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "30", "s", "-1s", "1x", "1s!", "5 minutes", -1, True, None, math.nan, math.inf, 10**400, []]
)
def test_other_durations_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration; write 30s"):
        parse_duration(written)


def test_all_defects_are_told_at_once_with_task_and_field() -> None:
    tasks = [
        {"id": "a", "tool": "t", "need": ["b"]},
        {"id": "b", "tool": "t", "retry": {"delay": "soon"}},
        {"tool": "t"},
        {"id": "d", "tool": "t", "trigger": "all_success"},
    ]
    assert defects({"name": "p", "tasks": tasks, "output": {}}) == [
        'task "a", field "need": there is no such field. Did you mean "needs"?',
        'task "b", field "retry.delay": "soon" is no duration; write 30s, 5m, 1h30m, 250ms or a number of seconds',
        'task "#3", field "id": this field is required',
        "task \"d\", field \"trigger\": must be one of 'all_succeeded', 'all_done', 'one_succeeded', 'one_failed' or "
        '\'none_failed\', not "all_success". Did you mean "all_succeeded"?',
        'field "output": there is no such field. Did you mean "outputs"?',
    ]


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ({"id": 7}, 'field "id": must be a string, not 7. Put it in quotes: "7".'),
        ({"id": "a/b"}, "holds one of [ ] / or a control character"),
        ({"id": "a\nb"}, "holds one of [ ] / or a control character"),
        ({"id": ""}, 'field "id": must not be empty'),
        ({"id": "x" * 201}, "is longer than 200 characters"),
        ({"tool": ""}, 'field "tool": must not be empty'),
        ({"needs": "b"}, 'field "needs": must be a list, not "b"'),
        ({"with": [1]}, 'field "with": must be a mapping, not a list'),
        ({"arguments": {}}, 'field "arguments": there is no such field'),
        ({"when": True}, 'field "when": must be a string, not true. Put it in quotes: "true".'),
        ({"timeout": 1 << 20_000}, 'field "timeout": a number that long is no duration'),
        ({"timeout": 0}, 'field "timeout": must be greater than 0, not 0'),
        ({"retry": 3}, 'field "retry": must be a mapping, not 3'),
        ({"retry": {"attempts": 0}}, 'field "retry.attempts": must be greater than or equal to 1, not 0'),
        ({"retry": {"attempts": "3"}}, 'field "retry.attempts": must be a whole number, not "3"'),
        ({"retry": {"attempts": 3}, "max_retries": 2}, "attempts and max_retries say the same"),
        ({"max_retries": -1}, "max_retries must be a whole number from 0, not -1"),
    ],
)
def test_a_wrong_task_is_refused_in_plain_words(task: dict[str, Any], part: str) -> None:
    (problem,) = task_defects(**task)
    assert part in problem
    assert "pydantic" not in problem


@pytest.mark.parametrize(
    ("rest", "part"),
    [
        ({"tasks": []}, 'field "tasks": there must be at least one task'),
        ({"tasks": {"a": {}}}, 'field "tasks": must be a list, not a mapping'),
        ({"tasks": [3]}, 'task "#1": must be a mapping, not 3'),
        ({"tasks": [{"id": "a", "tool": "t"}] * 2}, 'task "a", field "id": several tasks have this id'),
        ({"name": ""}, 'field "name": must not be empty'),
        ({"priority": "urgent"}, '"urgent" is no priority; write critical, high, normal, low or a whole number'),
        ({"priority": True}, 'field "priority": must be a whole number, not true'),
        ({"inputs": {"x": {"type": "text"}}}, 'field "inputs.x.type": must be one of'),
        ({"inputs": {"x": {"type": "string", "default": 1}}}, "its default must be a string, not 1"),
        ({"inputs": {"x": {"required": True, "default": 1}}}, "it is required and yet has a default"),
    ],
)
def test_a_wrong_process_is_refused_in_plain_words(rest: dict[str, Any], part: str) -> None:
    (problem,) = defects({"name": "p", "tasks": [{"id": "a", "tool": "t"}]} | rest)
    assert part in problem


def test_what_is_no_mapping_is_no_process() -> None:
    assert defects([]) == ["a process is a mapping with name and tasks, not a list"]


def test_the_file_is_part_of_each_problem() -> None:
    with pytest.raises(ProcessError, match=r'p\.yaml: field "tasks": this field is required'):
        parse({"name": "p"}, file="p.yaml")


def test_nesting_beyond_the_limit_is_refused_without_recursion() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"x": deep}
    assert defects({"name": "p", "tasks": [{"id": "a", "tool": "t", "with": deep}]}) == [
        "lists and mappings are nested more than 100 deep"
    ]


def test_depth_is_counted_in_containers() -> None:
    assert not too_deep(1, limit=0)
    assert not too_deep([[1], {"a": {}}], limit=3)
    assert too_deep([[1], {"a": {}}], limit=2)


def test_a_document_leaves_out_defaults_and_gives_an_equal_process() -> None:
    original = process(
        {"id": "a", "tool": "t", "needs": [], "with": {"x": [1, {"y": None}]}, "timeout": "2s", "max_retries": 1},
        {"id": "b", "tool": "t", "on_failure": "fail"},
        inputs={"x": {"default": None}, "y": {"type": "integer", "required": False}},
        priority="high",
    )
    document = original.document()
    assert json.loads(canonical_json(document)) == {
        "name": "p",
        "priority": 10,
        "inputs": {"x": {"default": None}, "y": {"type": "integer", "required": False}},
        "tasks": [
            {
                "id": "a",
                "tool": "t",
                "needs": [],
                "with": {"x": [1, {"y": None}]},
                "timeout": 2.0,
                "retry": {"attempts": 2},
            },
            {"id": "b", "tool": "t"},
        ],
    }
    again = parse(json.loads(canonical_json(document)))
    assert again == original
    assert [task.declares_needs for task in again.tasks] == [True, False]


def test_the_hash_depends_on_content_and_not_on_the_order_of_keys() -> None:
    one = content_hash(parse({"name": "p", "tasks": [{"id": "a", "tool": "t"}]}).document())
    two = content_hash(parse({"tasks": [{"tool": "t", "id": "a", "trigger": "all_succeeded"}], "name": "p"}).document())
    three = content_hash(parse({"name": "q", "tasks": [{"id": "a", "tool": "t"}]}).document())
    assert one == two != three
    assert len(one) == 64


@pytest.mark.parametrize("value", [math.nan, date(2024, 1, 1), {1, 2}, b"x", "\ud800"])
def test_what_json_cannot_hold_has_no_hash(value: object) -> None:
    document = process({"id": "a", "tool": "t", "with": {"x": value}}).document()
    with pytest.raises(ProcessError, match="the process holds a value that JSON cannot"):
        content_hash(document)


def test_a_process_is_frozen_and_picklable() -> None:
    read = process({"id": "a", "tool": "t", "max_retries": 1})
    assert pickle.loads(pickle.dumps(read)) == read
    with pytest.raises(ValueError, match="frozen"):
        read.name = "q"  # type: ignore[misc]


def test_tasks_are_made_in_python_with_names_that_python_can_write() -> None:
    made = Process(name="p", tasks=(Task(id="a", tool="t", arguments={"x": 1}, timeout_s=2),))
    assert made == process({"id": "a", "tool": "t", "with": {"x": 1}, "timeout": 2})


INPUTS = {
    "path": {"type": "string", "default": "/"},
    "limit": {"type": "integer"},
    "note": {"type": "string", "required": False},
}


def test_inputs_get_their_defaults_and_null_where_optional() -> None:
    assert bind_inputs(process(inputs=INPUTS), {"limit": 3}) == {"path": "/", "limit": 3, "note": None}


def test_inputs_that_are_unknown_missing_or_of_a_wrong_type_are_told_together() -> None:
    with pytest.raises(ProcessError) as caught:
        bind_inputs(process(inputs=INPUTS), {"paht": "/", "path": 3})
    assert [str(problem) for problem in caught.value.problems] == [
        'field "inputs.paht": process "p" has no such input. Did you mean "path"?',
        'field "inputs.path": must be a string, not 3',
        'field "inputs.limit": this input is required. Give a whole number, for example `--input limit=…`.',
    ]


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("string", ["", "x"], [1, None, ["x"]]),
        ("integer", [0, -5], [1.5, "1", True]),
        ("number", [0, 1.5], ["1", False]),
        ("boolean", [True, False], [0, "true"]),
        ("array", [[], [1]], ["x", {}]),
        ("object", [{}, {"a": 1}], [[], "x"]),
        ("any", [None, 1, "x", []], []),
    ],
)
def test_inputs_are_checked_by_type(kind: str, right: list[Any], wrong: list[Any]) -> None:
    declared = process(inputs={"x": {"type": kind}})
    for value in right:
        assert bind_inputs(declared, {"x": value}) == {"x": value}
    for value in wrong:
        with pytest.raises(ProcessError, match=r"inputs\.x"):
            bind_inputs(declared, {"x": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    tasks=st.lists(
        st.fixed_dictionaries(
            {"id": st.uuids().map(str), "tool": st.text(min_size=1, max_size=5)},
            optional={
                "with": st.dictionaries(st.text(), json_values, max_size=3),
                "needs": st.lists(st.uuids().map(str), max_size=2),
                "timeout": st.integers(1, 9).map(lambda n: f"{n}m"),
                "max_retries": st.integers(0, 9),
                "when": st.text(),
                "trigger": st.sampled_from(["all_done", "one_failed", "all_succeeded"]),
            },
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda task: task["id"],
    )
)
def test_reading_a_document_back_changes_nothing(tasks: list[dict[str, Any]]) -> None:
    original = process(*tasks)
    again = parse(original.document())
    assert again == original
    assert [task.declares_needs for task in again.tasks] == [task.declares_needs for task in original.tasks]
