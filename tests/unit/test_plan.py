from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent import spec
from comagent.compiling import compile_process
from comagent.errors import Problem, ProcessError
from comagent.expressions import Expression, Reference
from comagent.plan import OUTPUTS, Plan, ToolUse, paths_of
from comagent.steps import RESULT_TOOL, decode_step

TOOLS = {
    "echo": ToolUse("echo", "inline", "cheap", "none", ("echo",)),
    "wait": ToolUse("wait", "async", "unknown", "none", ("wait",)),
}


def task(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "tool": "echo", **fields}


def document(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "p", "tasks": list(tasks), **fields}


def compiled(*tasks: dict[str, Any], **fields: Any) -> Plan:
    process = spec.parse(document(*tasks, **fields))
    return compile_process(process, TOOLS, process_hash="hash", check=lambda *_: ())


def problems(*tasks: dict[str, Any], **fields: Any) -> list[Problem]:
    with pytest.raises(ProcessError) as caught:
        compiled(*tasks, **fields)
    return list(caught.value.problems)


def problem(*tasks: dict[str, Any], **fields: Any) -> str:
    (found,) = problems(*tasks, **fields)
    return str(found)


def needs(plan: Plan) -> dict[str, list[str]]:
    return {path: [plan.ids[need] for need in plan.needs_of(number)] for number, path in enumerate(plan.ids)}


# Edges ----------------------------------------------------------------------------------------------------------------


def test_tasks_are_numbered_in_the_order_of_the_file_and_the_result_comes_last() -> None:
    plan = compiled(task("b", needs=["a"]), task("a"))
    assert plan.ids == ["b", "a", OUTPUTS]
    assert len(plan) == 2
    assert plan.index == {"b": 0, "a": 1, OUTPUTS: 2}


def test_edges_go_both_ways() -> None:
    plan = compiled(task("a"), task("b", needs=["a"]), task("c", needs=["a", "b"]))
    assert needs(plan) == {"a": [], "b": ["a"], "c": ["a", "b"], OUTPUTS: []}
    assert plan.feeds_of(0) == [1, 2]
    assert plan.feeds_of(1) == [2]


def test_references_say_what_a_task_needs_where_it_does_not_say_so_itself() -> None:
    plan = compiled(
        task("a"),
        task("b"),
        task("c", **{"with": {"value": ["${tasks.a}", "x ${tasks.b.rows} ${tasks.a}"]}}),
        task("d", when="status.c == 'succeeded' && errors.b == null"),
    )
    assert {name: set(found) for name, found in needs(plan).items()} == {
        "a": set(),
        "b": set(),
        "c": {"a", "b"},
        "d": {"b", "c"},
        OUTPUTS: set(),
    }


def test_a_need_that_is_written_twice_counts_once() -> None:
    assert needs(compiled(task("a"), task("b", needs=["a", "a"])))["b"] == ["a"]


def test_a_task_may_read_what_is_further_upstream_than_what_it_needs() -> None:
    plan = compiled(
        task("a"), task("b", needs=["a"]), task("c", needs=["b"], **{"with": {"value": "${tasks.a}"}})
    )  # fmt: skip
    assert needs(plan)["c"] == ["b"]
    assert plan.uses_of(2) == [0]


def test_who_reads_a_value_is_counted_with_the_result() -> None:
    plan = compiled(
        task("a"),
        task("b", **{"with": {"value": "${tasks.a}"}}),
        task("c", needs=["a"]),
        outputs={"first": "${tasks.a}", "again": "${tasks.a}", "last": "${tasks.b}"},
    )
    assert plan.readers == [2, 1, 0, 0]


def test_the_result_reads_the_tasks_that_nothing_needs_where_nothing_is_declared() -> None:
    plan = compiled(task("a"), task("b", needs=["a"]), task('odd "one"'))
    step = decode_step(plan.steps[-1])
    assert step.tool == RESULT_TOOL
    assert [name for name, _ in step.arguments.references] == ["b", 'odd "one"']
    assert plan.uses_of(3) == [1, 2]


def test_only_what_reads_how_others_ended_is_marked_so() -> None:
    plan = compiled(task("a"), task("b", when="status.a == 'failed'"), task("c", needs=["a"]))
    assert list(plan.reads_ends) == [0, 1, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60))
def test_edges_are_those_of_the_file_whatever_their_number(pairs: list[tuple[int, int]]) -> None:
    rows: dict[int, list[int]] = {number: [] for number in range(20)}
    for one, other in pairs:
        if one != other and min(one, other) not in rows[max(one, other)]:
            rows[max(one, other)].append(min(one, other))
    plan = compiled(*[task(str(number), needs=[str(need) for need in row]) for number, row in rows.items()])
    assert {number: plan.needs_of(number) for number in range(20)} == rows
    for number in range(20):
        assert plan.feeds_of(number) == [fed for fed, row in rows.items() if number in row]


# Policies and steps ---------------------------------------------------------------------------------------------------


def test_tasks_that_are_treated_alike_share_their_policy_and_their_step() -> None:
    plan = compiled(*[task(str(number), **{"with": {"value": 1}}) for number in range(100)])
    assert len(plan.policies) == 2
    assert plan.steps[0] is plan.steps[99]


def test_what_a_task_does_not_say_is_taken_from_the_defaults() -> None:
    plan = compiled(
        task("a"), task("b", timeout="1m", retry={"attempts": 2}), defaults={"timeout": 5, "retry": {"attempts": 7}}
    )
    first, second = (plan.policies[plan.policy[number]] for number in range(2))
    assert (first.timeout_s, first.retry.attempts) == (5, 7)
    assert (second.timeout_s, second.retry.attempts) == (60, 2)
    assert decode_step(plan.steps[1]).timeout_s == 60


def test_only_tasks_that_wait_for_all_to_succeed_are_plain() -> None:
    plan = compiled(task("a"), task("b", needs=["a"], trigger="all_done"))
    assert list(plan.plain) == [1, 0, 0]


def test_a_step_comes_out_as_it_went_in() -> None:
    plan = compiled(
        task("a"),
        task("b", when="tasks.a.rows > 1", **{"with": {"one": 1, "two": "${tasks.a.rows[0]}", "more": "${1 + 1}"}}),
    )
    step = decode_step(plan.steps[1])
    assert step.arguments.constants == {"one": 1}
    assert step.arguments.references == (("two", Reference("tasks", "a", ("rows", 0))),)
    assert [name for name, _ in step.arguments.rest] == ["more"]
    assert isinstance(step.when, Expression)


# Defects --------------------------------------------------------------------------------------------------------------


def test_all_defects_are_named_at_once() -> None:
    found = problems(
        task("a", needs=["nobody"]),
        task("b", **{"with": {"value": "${inputs.nothing}"}}),
        task("c", **{"with": {"value": "${tasks.b +}"}}),
        task("d", when="status.e == 'x'"),
        outputs={"x": "${tasks.f}"},
    )
    assert [(each.task, each.field) for each in found] == [
        ("a", "needs"),
        ("b", "with"),
        ("c", "with"),
        ("d", "when"),
        (None, "outputs"),
    ]


def test_an_unknown_need_is_answered_with_the_nearest_name() -> None:
    text = problem(task("fetch"), task("load", needs=["fetc"]))
    assert 'no task is called "fetc"' in text
    assert 'Did you mean "fetch"?' in text


def test_an_unknown_input_is_answered_with_the_nearest_name() -> None:
    text = problem(task("a", **{"with": {"value": "${inputs.pth}"}}), inputs={"path": {}})
    assert 'Did you mean "inputs.path"?' in text


def test_a_circle_is_shown_as_it_runs() -> None:
    text = problem(task("a", needs=["c"]), task("b", needs=["a"]), task("c", needs=["b"]), task("d", needs=["a"]))
    assert "a → b → c → a" in text


def test_a_task_cannot_need_or_read_itself() -> None:
    assert "the task needs itself" in problem(task("a", needs=["a"]))
    assert "refers to its own result" in problem(task("a", **{"with": {"value": "${tasks.a}"}}))


def test_what_is_not_upstream_cannot_be_read() -> None:
    text = problem(task("a"), task("b", needs=[], **{"with": {"value": "${tasks.a}"}}))
    assert 'refers to "a", which is not upstream of it' in text


@pytest.mark.parametrize("trigger", ["one_succeeded", "one_failed"])
def test_a_trigger_that_waits_for_one_needs_one(trigger: str) -> None:
    assert f"`{trigger}` waits for what the task needs" in problem(task("a", trigger=trigger))


def test_an_item_stands_for_nothing_outside_of_a_map() -> None:
    assert "`item` stands for nothing here" in problem(task("a", **{"with": {"value": "${item}"}}))


# Sub-processes --------------------------------------------------------------------------------------------------------


def nested(**fields: Any) -> dict[str, Any]:
    inner = document(task("x", **{"with": {"value": "${inputs.given}"}}), task("y", needs=["x"]))
    return {"id": "sub", "process": {**inner, "inputs": {"given": {}}}, "with": {"given": 1}, **fields}


def test_the_tasks_of_a_sub_process_lie_between_its_inputs_and_its_result() -> None:
    plan = compiled(task("a"), nested(needs=["a"]), task("b", needs=["sub"]))
    assert plan.ids == ["a", "sub//inputs", "sub/x", "sub/y", "sub", "b", OUTPUTS]
    assert needs(plan) == {
        "a": [],
        "sub//inputs": ["a"],
        "sub/x": ["sub//inputs"],
        "sub/y": ["sub/x"],
        "sub": [],
        "b": ["sub"],
        OUTPUTS: [],
    }
    assert plan.group == [0, 1, 1, 1, 0, 0, 0]
    assert plan.results == {4: 1, 6: 0}
    assert [(group.entry, group.first, group.last, group.size) for group in plan.groups] == [
        (None, 0, 6, 3),
        (1, 1, 4, 3),
    ]


def test_paths_can_be_told_from_the_document_alone() -> None:
    tasks = task("a"), nested(needs=["a"]), task("b", needs=["sub"])
    assert [*paths_of(document(*tasks)), OUTPUTS] == compiled(*tasks).ids


def test_a_task_may_read_what_comes_before_a_sub_process_that_it_needs() -> None:
    plan = compiled(task("a"), nested(needs=["a"]), task("b", needs=["sub"], **{"with": {"value": "${tasks.a}"}}))
    assert plan.uses_of(plan.index["b"]) == [0]


def test_a_circle_through_a_sub_process_is_found() -> None:
    text = problem(task("a", needs=["sub"]), nested(needs=["a"]))
    assert "in a circle: " in text
    assert "//inputs" not in text


def test_a_circle_inside_a_sub_process_is_found() -> None:
    inner = document(task("x", needs=["y"]), task("y", needs=["x"]))
    assert "sub/x" in problem({"id": "sub", "process": inner})


def test_what_is_given_to_a_sub_process_must_be_what_it_takes() -> None:
    (found,) = problems(nested(**{"with": {"given": 1, "surplus": 2}}))
    assert (found.task, found.field) == ("sub", "with.surplus")


def test_a_sub_process_is_not_tried_again_as_a_whole() -> None:
    (found,) = problems(nested(retry={"attempts": 2}))
    assert (found.task, found.field) == ("sub", "retry")
