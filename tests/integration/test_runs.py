"""Jobs from submit to result, on a real Ray with a real store: what a process says is what happens."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import comagent
from comagent.client import Client, Job
from comagent.job_view import TaskEnd
from tests.toolbox import named
from tests.waiting import until, written

WAIT_S = 60.0


def process(*tasks: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "test", "tasks": list(tasks), **rest}


def echo(id: str, value: Any, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "debug.echo", "with": {"value": value}, **rest}


def fail(id: str, message: str = "no", times: int | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": "debug.fail", "with": {"message": message, "times": times}, **rest}


def task(id: str, function: str, arguments: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": named(function), "with": arguments or {}, **rest}


def ends(job: Job) -> dict[str, TaskEnd]:
    """How each task of an ended job ended, as the progress tells it; attempts that were not the last are left out."""
    assert job.wait(WAIT_S) is not None
    told = [end for progress in job.progress() for end in progress.ends if end.status != "retrying"]
    assert len({end.path for end in told}) == len(told)
    return {end.path: end for end in told}


def statuses(job: Job) -> dict[str, str]:
    return {path: end.status for path, end in ends(job).items() if not path.startswith("/")}


def failed(job: Job) -> comagent.JobFailedError:
    with pytest.raises(comagent.JobFailedError) as raised:
        job.result(WAIT_S)
    return raised.value


# Shapes --------------------------------------------------------------------------------------------------------------


def test_a_chain_passes_values_on(client: Client) -> None:
    tasks = [echo("t0", 1), *(task(f"t{n}", "double", {"value": f"${{tasks.t{n - 1}}}"}) for n in range(1, 30))]

    assert client.submit(process(*tasks)).result(WAIT_S) == {"t29": 2**29}


def test_a_diamond_joins_what_it_splits(client: Client) -> None:
    job = client.submit(
        process(
            echo("top", 3),
            task("left", "double", {"value": "${tasks.top}"}),
            task("right", "add", {"left": "${tasks.top}", "right": 10}),
            task("bottom", "add", {"left": "${tasks.left}", "right": "${tasks.right}"}),
        )
    )

    assert job.result(WAIT_S) == {"bottom": 19}


def test_a_wide_fan_is_joined_by_one_task(client: Client) -> None:
    count = 300
    tasks = [echo("start", 1)]
    tasks += [task(f"t{n}", "add", {"left": "${tasks.start}", "right": n}) for n in range(count)]
    tasks += [echo("sum", [f"${{tasks.t{n}}}" for n in range(count)])]

    assert client.submit(process(*tasks)).result(WAIT_S) == {"sum": [n + 1 for n in range(count)]}


def test_kinds_of_tools_may_alternate_along_a_chain(client: Client) -> None:
    functions = ("add", "add_later", "add_in_process", "add") * 2
    tasks = [echo("t0", 0)]
    tasks += [task(f"t{n + 1}", name, {"left": f"${{tasks.t{n}}}", "right": 1}) for n, name in enumerate(functions)]

    assert client.submit(process(*tasks)).result(WAIT_S) == {"t8": 8}


def test_the_result_has_the_values_of_all_leaves(client: Client) -> None:
    job = client.submit(process(echo("a", 1), echo("b", "${tasks.a}"), echo("c", [2]), echo("d", None)))

    assert job.result(WAIT_S) == {"b": 1, "c": [2], "d": None}


def test_outputs_are_the_result_where_they_are_declared(client: Client) -> None:
    job = client.submit(
        process(echo("a", {"x": [1, 2]}), outputs={"first": "${tasks.a.x[0]}", "text": "x is ${tasks.a.x}", "k": 1})
    )

    assert job.result(WAIT_S) == {"first": 1, "text": "x is [1,2]", "k": 1}


def test_outputs_that_cannot_be_made_fail_the_job(client: Client) -> None:
    job = client.submit(process(echo("a", {"x": 1}), outputs={"y": "${tasks.a.y}"}))

    assert 'tasks.a has no key "y"' in str(failed(job))
    assert job.status == "failed"
    assert statuses(job) == {"a": "succeeded"}


# Inputs and expressions ----------------------------------------------------------------------------------------------


def test_inputs_are_bound_and_defaults_applied(client: Client) -> None:
    document = process(
        echo("a", "${inputs.name} is ${inputs.age + 1}"),
        inputs={"name": {"type": "string"}, "age": {"type": "integer", "default": 41}},
    )

    assert client.submit(document, {"name": "Ada"}).result(WAIT_S) == {"a": "Ada is 42"}
    assert client.submit(document, {"name": "Ada", "age": 1}).result(WAIT_S) == {"a": "Ada is 2"}


def test_inputs_that_do_not_fit_are_refused_before_anything_runs(client: Client) -> None:
    document = process(echo("a", "${inputs.n}"), inputs={"n": {"type": "integer"}})

    for given in ({}, {"n": "one"}, {"n": 1, "m": 2}):
        with pytest.raises(comagent.ProcessError):
            client.submit(document, given)


def test_a_large_input_is_read_by_all_that_use_it(client: Client) -> None:
    document = process(
        *(task(f"t{n}", "length", {"value": "${inputs.text}"}) for n in range(3)), inputs={"text": {"type": "string"}}
    )

    assert client.submit(document, {"text": "x" * 1_000_000}).result(WAIT_S) == dict.fromkeys(("t0", "t1", "t2"), 10**6)


def test_a_large_value_goes_from_task_to_task(client: Client) -> None:
    job = client.submit(
        process(
            task("make", "large_list", {"megabytes": 3}),
            task("inline", "length", {"value": "${tasks.make}"}),
            task("process", "length_in_process", {"value": "${tasks.make}"}),
            echo("first", "${size(tasks.make[0])}"),
        )
    )

    assert job.result(WAIT_S) == {"inline": 3072, "process": 3072, "first": 1023}


def test_a_large_result_comes_back_whole(client: Client) -> None:
    assert client.submit(process(task("make", "large_text", {"megabytes": 3}))).result(WAIT_S) == {
        "make": "x" * (3 << 20)
    }


# Conditions, triggers, failures --------------------------------------------------------------------------------------


def test_a_false_condition_skips_the_task_and_what_needs_it(client: Client) -> None:
    job = client.submit(
        process(
            echo("a", 1),
            echo("no", 2, needs=["a"], when="tasks.a > 1"),
            echo("after", 3, needs=["no"]),
            echo("yes", 4, needs=["a"], when="tasks.a == 1"),
            echo("always", "${status.no}", needs=["no"], trigger="all_done"),
        )
    )

    assert job.result(WAIT_S) == {"after": None, "yes": 4, "always": "skipped"}
    assert statuses(job) == {
        "a": "succeeded",
        "no": "skipped",
        "after": "skipped",
        "yes": "succeeded",
        "always": "succeeded",
    }


@pytest.mark.parametrize(
    ("trigger", "after_both", "after_mixed", "after_none"),
    [
        ("all_succeeded", "succeeded", "skipped", "skipped"),
        ("all_done", "succeeded", "succeeded", "succeeded"),
        ("one_succeeded", "succeeded", "succeeded", "skipped"),
        ("one_failed", "skipped", "succeeded", "succeeded"),
        ("none_failed", "succeeded", "skipped", "skipped"),
    ],
)
def test_triggers(client: Client, trigger: str, after_both: str, after_mixed: str, after_none: str) -> None:
    job = client.submit(
        process(
            echo("good", 1),
            echo("good2", 1),
            fail("bad", on_failure="skip"),
            fail("bad2", on_failure="skip"),
            echo("both", 1, needs=["good", "good2"], trigger=trigger),
            echo("mixed", 1, needs=["good", "bad"], trigger=trigger),
            echo("none", 1, needs=["bad", "bad2"], trigger=trigger),
        )
    )
    ended = statuses(job)

    assert (ended["both"], ended["mixed"], ended["none"]) == (after_both, after_mixed, after_none)
    assert job.status == "succeeded"


def test_a_failure_fails_the_job_and_what_completed_stays_visible(client: Client) -> None:
    job = client.submit(
        process(
            echo("a", 1), fail("b", "it broke", needs=["a"]), echo("c", 2, needs=["b"]), outputs={"a": "${tasks.a}"}
        )
    )
    error = failed(job)

    assert error.status == "failed"
    assert error.job_id == job.job_id
    assert 'task "b": ' in str(error)
    assert "it broke" in str(error)
    assert statuses(job) == {"a": "succeeded", "b": "failed", "c": "skipped"}
    view = job.view()
    assert (view.status, view.done, view.total) == ("failed", 3, 3)
    assert view.summary() == {"succeeded": 1, "failed": 1, "skipped": 1}
    ((path, status, what),) = client.failures(job.job_id)
    assert (path, status) == ("b", "failed")
    assert what.endswith("DebugError: it broke")
    error_of_b = ends(job)["b"].error
    assert error_of_b is not None
    assert error_of_b["message"] == "it broke"


def test_on_failure_continue_goes_on_as_if_it_had_succeeded(client: Client) -> None:
    job = client.submit(
        process(fail("a", on_failure="continue"), echo("b", "${tasks.a}", needs=["a"]), outputs={"b": "${tasks.b}"})
    )

    assert job.result(WAIT_S) == {"b": None}
    assert statuses(job) == {"a": "failed", "b": "succeeded"}


def test_on_failure_skip_skips_what_needs_it_and_the_job_succeeds(client: Client) -> None:
    job = client.submit(process(fail("a", on_failure="skip"), echo("b", 1, needs=["a"]), echo("c", 2)))

    assert job.result(WAIT_S) == {"b": None, "c": 2}
    assert statuses(job) == {"a": "failed", "b": "skipped", "c": "succeeded"}


def test_a_handler_reads_what_went_wrong_and_runs_although_the_job_fails(client: Client) -> None:
    job = client.submit(
        process(
            fail("bad", "it broke"),
            echo(
                "handler",
                {"was": "${status.bad}", "why": "${errors.bad.message}", "type": "${errors.bad.type}"},
                needs=["bad"],
                trigger="one_failed",
            ),
        )
    )
    failed(job)
    handler = ends(job)["handler"]

    assert handler.status == "succeeded"
    # A failed job has no result: what its handlers made is read with the job.
    assert job.view().summary() == {"succeeded": 1, "failed": 1}


def test_a_handler_of_an_allowed_failure_makes_the_result(client: Client) -> None:
    job = client.submit(
        process(
            fail("bad", "it broke", on_failure="skip"),
            echo("told", "${status.bad}: ${errors.bad.message}", needs=["bad"], trigger="one_failed"),
            outputs={"told": "${tasks.told}"},
        )
    )

    assert job.result(WAIT_S) == {"told": "failed: it broke"}


# Retries -------------------------------------------------------------------------------------------------------------

AT_ONCE = {"delay": "10ms", "jitter": 0}


def test_failed_attempts_are_retried_and_told(client: Client) -> None:
    job = client.submit(
        process(fail("a", "not yet", times=2, retry={"attempts": 3, **AT_ONCE}), echo("b", "${tasks.a}"))
    )

    assert job.result(WAIT_S) == {"b": {"attempt": 3}}
    told = [end for progress in job.progress() for end in progress.ends if end.path == "a"]
    assert [(end.status, end.attempt) for end in told] == [("retrying", 1), ("retrying", 2), ("succeeded", 3)]
    assert told[0].error is not None
    assert told[0].error["message"] == "not yet"
    assert told[0].retry_in_s is not None


def test_the_last_attempt_that_fails_is_the_outcome(client: Client) -> None:
    job = client.submit(process(fail("a", retry={"attempts": 3, **AT_ONCE})))
    failed(job)

    assert (ends(job)["a"].status, ends(job)["a"].attempt) == ("failed", 3)


def test_only_the_named_errors_are_retried(client: Client) -> None:
    retry = {"attempts": 3, **AT_ONCE, "on": ["DebugError"]}
    job = client.submit(
        process(
            fail("a", times=1, retry=retry, on_failure="skip"),
            task("b", "raise_thread", {"what": "ValueError"}, retry=retry, on_failure="skip"),
        )
    )

    assert {path: end.attempt for path, end in ends(job).items() if path in "ab"} == {"a": 2, "b": 1}


# Time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_an_attempt_that_takes_too_long_times_out(client: Client, kind: str) -> None:
    job = client.submit(process(task("a", f"hang_{kind}", timeout="1s"), echo("b", 1)))
    error = failed(job)

    assert error.status == "failed"
    assert "the attempt took longer than its timeout of 1 s" in str(error)
    assert statuses(job) == {"a": "timed_out", "b": "succeeded"}
    assert client.submit(process(echo("a", 1), task("b", f"return_{kind}", {"what": ""}))).result(WAIT_S)["a"] == 1


def test_a_timeout_is_retried_like_a_failure(client: Client) -> None:
    job = client.submit(
        process(task("a", "hang_async", timeout="100ms", retry={"attempts": 2, **AT_ONCE, "on": ["timeout"]}))
    )
    failed(job)

    assert ends(job)["a"].attempt == 2


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_a_job_that_takes_too_long_times_out_with_all_that_it_runs(client: Client, kind: str) -> None:
    job = client.submit(process(echo("a", 1), task("b", f"hang_{kind}"), echo("c", 1, needs=["b"]), timeout="1s"))
    error = failed(job)

    assert error.status == "timed_out"
    assert statuses(job) == {"a": "succeeded", "b": "cancelled", "c": "cancelled"}


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_cancelling_stops_what_runs(client: Client, tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    job = client.submit(
        process(echo("a", 1), task("b", f"hang_{kind}", {"mark": str(mark)}, needs=["a"]), echo("c", 1, needs=["b"]))
    )
    until(written(mark))
    job.cancel()
    view = job.wait(WAIT_S)

    assert view is not None
    assert view.status == "cancelled"
    assert statuses(job) == {"a": "succeeded", "b": "cancelled", "c": "cancelled"}
    assert failed(job).status == "cancelled"


def test_the_agent_of_a_stuck_thread_is_replaced(client: Client, tmp_path: Path) -> None:
    def agents() -> set[int]:
        """The processes of all agents: enough tasks for one to come to each, whichever is free."""
        tasks = [task(f"t{n}", "meet", {"folder": str(folder), "count": 16}) for n in range(16)]
        tasks += [task(f"p{n}", "where_thread") for n in range(16)]
        result = client.submit(process(*tasks)).result(WAIT_S)
        for file in folder.iterdir():
            file.unlink()
        return {result[f"p{n}"][0] for n in range(16)}

    folder = tmp_path / "folder"
    folder.mkdir()
    marks = [tmp_path / f"mark{n}" for n in range(2)]
    tasks = [task(f"t{n}", "hang_thread_of", {"mark": str(mark)}) for n, mark in enumerate(marks)]
    job = client.submit(process(*tasks))
    for mark in marks:
        until(written(mark))
    stuck = {int(mark.read_text()) for mark in marks}
    job.cancel()
    assert job.wait(WAIT_S) is not None

    assert not agents() & stuck


def test_cancelling_a_job_that_has_ended_changes_nothing(client: Client) -> None:
    job = client.submit(process(echo("a", 1)))
    assert job.result(WAIT_S) == {"a": 1}
    job.cancel()

    assert job.status == "succeeded"


def test_a_result_that_is_not_there_in_time_leaves_the_job_alone(client: Client) -> None:
    job = client.submit(process({"id": "a", "tool": "debug.sleep", "with": {"seconds": 1, "value": 5}}))
    with pytest.raises(comagent.JobTimeoutError) as raised:
        job.result(timeout=0.05)

    assert raised.value.job_id == job.job_id
    assert job.status == "running"
    assert job.result(WAIT_S) == {"a": 5}


# Clients -------------------------------------------------------------------------------------------------------------


def test_two_hundred_jobs_at_once_all_end_with_their_own_result(client: Client) -> None:
    document = process(
        echo("a", "${inputs.n}"),
        task("b", "add_later", {"left": "${tasks.a}", "right": 1}),
        task("c", "add", {"left": "${tasks.b}", "right": 1}),
        inputs={"n": {"type": "integer"}},
    )
    prepared = client.prepare(document)
    jobs = client.submit_many([(prepared, {"n": n}) for n in range(200)])
    left = {job.job_id: n for n, job in enumerate(jobs)}
    deadline = time.monotonic() + WAIT_S
    while left and time.monotonic() < deadline:
        for job_id, view in client.wait_any([Job(client, job_id) for job_id in left], timeout=WAIT_S).items():
            assert view.status == "succeeded"
            assert client.value(view.result) == {"c": left.pop(job_id) + 2}

    assert not left


def test_wait_any_is_empty_when_nothing_ends_in_time(client: Client) -> None:
    jobs = client.submit_many([(process({"id": "a", "tool": "debug.sleep", "with": {"seconds": 0.5}}), {})] * 2)

    assert client.wait_any(jobs, timeout=0.01) == {}
    for job in jobs:
        job.result(WAIT_S)


def test_one_idempotency_key_is_one_job(client: Client) -> None:
    document = process(echo("a", "${inputs.n}"), inputs={"n": {"default": 1}})
    first = client.submit(document, {"n": 1}, idempotency_key="test-key")
    again = client.submit(document, {"n": 1}, idempotency_key="test-key")
    assert first.result(WAIT_S) == {"a": 1}
    late = client.submit(document, {"n": 1}, idempotency_key="test-key")

    assert first.job_id == again.job_id == late.job_id
    for other in ({"n": 2}, {}):
        if other == {}:
            assert client.submit(document, other, idempotency_key="test-key").job_id == first.job_id
            continue
        with pytest.raises(comagent.ConflictError) as raised:
            client.submit(document, other, idempotency_key="test-key")
        assert raised.value.job_id == first.job_id


def test_jobs_of_threads_that_submit_at_the_same_time_do_not_mix(client: Client) -> None:
    document = process(echo("a", "${inputs.n}"), inputs={"n": {"type": "integer"}})
    results: dict[int, Any] = {}

    def run(n: int) -> None:
        results[n] = client.submit(document, {"n": n}).result(WAIT_S)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {n: {"a": n} for n in range(8)}


def test_progress_is_told_while_the_job_runs(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = client.submit(process(echo("a", 1), task("b", "hang_async", {"mark": str(mark)}, needs=["a"])))
    until(written(mark))
    seen = {end.path: end.status for end in client.progress(job.job_id, 0, 5.0).ends}
    running = until(lambda: client.progress(job.job_id, 0, 0.0).running)
    job.cancel()

    assert seen == {"a": "succeeded"}
    assert running == [("b", 1)]
    assert statuses(job) == {"a": "succeeded", "b": "cancelled"}


def test_a_job_is_found_again_by_its_id(client: Client) -> None:
    job = client.submit(process(echo("a", 1)))

    assert client.job(job.job_id).result(WAIT_S) == {"a": 1}
    with pytest.raises(comagent.UnknownJobError):
        client.job("no-such-job")


@pytest.mark.parametrize("make", [lambda path: path, str])
def test_a_process_is_read_from_its_file(client: Client, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    file = tmp_path / "process.yaml"
    file.write_text("name: x\ntasks:\n  - {id: a, tool: debug.echo, with: {value: 1}}\n")

    assert client.submit(make(file)).result(WAIT_S) == {"a": 1}


def test_a_defect_in_a_file_is_told_with_its_place(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "process.yaml"
    file.write_text("name: x\ntasks:\n  - {id: a, tool: debug.echoo, with: {value: 1}}\n")
    with pytest.raises(comagent.ProcessError) as raised:
        client.submit(file)

    assert f'{file}:3:13: task "a", field "tool"' in str(raised.value)
    assert 'Did you mean "debug.echo"' in str(raised.value)
