"""What one outcome means for the other tasks of a job. How agents and owners come into it is told in test_machine."""

import json
from typing import Any

import pytest

from comagent.job import Job
from comagent.protocol import Row
from comagent.states import Task
from tests.unit.plays import plan_of, process, task

NOW = 1_000.0


def job_of(*tasks: dict[str, Any], **fields: Any) -> Job:
    job = Job("job", plan_of(process(*tasks, **fields)), inputs=b"{}", priority=0)
    job.start()
    return job


def ready(job: Job) -> list[str]:
    """Takes the tasks that have become ready, and marks them as running, as its owner does."""
    fresh, job.fresh = [task for task in job.fresh if job.state[task] == Task.READY], []
    for index in fresh:
        job.state[index] = Task.RUNNING
    return [job.plan.ids[index] for index in fresh]


def succeed(job: Job, *paths: str) -> None:
    for path in paths:
        job.succeeded(job.plan.index[path], row(job, path, Task.SUCCEEDED, path), "d", NOW)


def fail(job: Job, path: str, *, attempt: int = 1, status: Task = Task.FAILED, kind: str = "ToolError") -> None:
    error = {"type": kind, "message": "no"}
    job.attempt_ended_badly(job.plan.index[path], row(job, path, status, error, attempt), "d", NOW)


def row(job: Job, path: str, status: Task, payload: Any, attempt: int = 1) -> Row:
    return Row(job.plan.index[path], attempt, status, NOW, NOW, json.dumps(payload).encode())


def states(job: Job) -> dict[str, str]:
    return {path: Task(state).label for path, state in zip(job.plan.ids, job.state, strict=True)}


def outcomes(job: Job) -> list[tuple[str, str]]:
    return [(job.plan.ids[each.row[0]], Task(each.row[2]).label) for each in job.rows]


def test_a_task_is_ready_when_the_last_of_its_needs_has_succeeded() -> None:
    job = job_of(task("a"), task("b"), task("c", "a", "b"))
    assert ready(job) == ["a", "b"]
    succeed(job, "b")
    assert ready(job) == []
    succeed(job, "a")
    assert ready(job) == ["c"]


def test_the_result_is_ready_when_all_tasks_have_ended() -> None:
    job = job_of(task("a"), task("b"))
    ready(job)
    succeed(job, "a")
    assert ready(job) == []
    succeed(job, "b")
    assert ready(job) == ["/outputs"]
    assert not job.finished
    succeed(job, "/outputs")
    assert job.finished
    assert job.status == "succeeded"


def test_values_are_kept_until_their_last_reader_has_ended() -> None:
    job = job_of(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c", reads=["b"]))
    ready(job)
    succeed(job, "a")
    assert list(job.wires) == [0]
    succeed(job, "b")
    assert list(job.wires) == [0, 1]
    succeed(job, "c")
    assert list(job.wires) == [1]


def test_a_value_that_nobody_reads_is_not_kept() -> None:
    job = job_of(task("a"), task("b", "a", reads=[]))
    succeed(job, "a")
    assert job.wires == {}


def test_readers_that_are_skipped_need_no_values() -> None:
    job = job_of(task("a"), task("b", on_failure="skip"), task("c", "a", "b"))
    succeed(job, "a")
    assert list(job.wires) == [0]
    fail(job, "b")
    assert job.wires == {}


def test_a_failure_tells_why_the_others_were_not_started() -> None:
    job = job_of(task("a"), task("b", "a"), task("c"), task("d", "c"))
    ready(job)
    fail(job, "a")
    assert outcomes(job) == [("a", "failed"), ("b", "skipped"), ("d", "skipped")]
    errors = [json.loads(each.row.payload or b"") for each in job.rows if isinstance(each.row.payload, bytes)]
    assert errors[1]["message"] == 'skipped, because task "a" failed'
    assert errors[2] == {"type": "JobFailed", "message": 'not started, because task "a" failed'}
    assert [each.dispatch for each in job.rows] == ["d", "", ""]
    assert json.loads(job.error or b"")["message"] == "no"
    assert job.status == "running"


def test_the_first_failure_is_the_jobs_error() -> None:
    job = job_of(task("a"), task("b"))
    ready(job)
    fail(job, "b", kind="First")
    fail(job, "a", kind="Second")
    assert json.loads(job.error or b"")["type"] == "First"
    assert job.status == "failed"


@pytest.mark.parametrize("status", [Task.FAILED, Task.TIMED_OUT])
def test_a_failed_attempt_is_an_event_with_all_that_is_known_of_it(status: Task) -> None:
    job = job_of(task("a", retry={"attempts": 2, "delay": 3, "jitter": 0}))
    ready(job)
    fail(job, "a", status=status)
    (event,) = job.events
    assert (event.kind, event.task) == ("attempt_failed", 0)
    assert event.body == {
        "attempt": 1,
        "status": status.label,
        "error": {"type": "ToolError", "message": "no"},
        "started_ms": 1_000,
        "ended_ms": 1_000,
        "retry_in_s": 3.0,
    }
    assert job.retries == [(0, 4_000.0)]
    assert states(job)["a"] == "retrying"
    assert job.attempt_of(0) == 2
    job.retry_due(0)
    assert ready(job) == ["a"]


def test_a_back_off_that_ends_after_the_task_did_starts_nothing() -> None:
    job = job_of(task("a", retry={"attempts": 2}))
    ready(job)
    fail(job, "a")
    job.stop("cancelled", NOW)
    job.retry_due(0)
    assert ready(job) == []
    assert job.status == "cancelled"


def test_a_task_that_is_handed_back_is_ready_again_if_its_needs_have_ended() -> None:
    job = job_of(task("a"), task("b", "a"))
    ready(job)
    job.state[1] = Task.RUNNING
    job.handed_back(1, NOW)
    assert states(job)["b"] == "pending"
    job.handed_back(0, NOW)
    assert ready(job) == ["a"]
    succeed(job, "a")
    assert ready(job) == ["b"]


def test_a_task_that_is_handed_back_after_its_need_failed_is_skipped() -> None:
    job = job_of(task("a", on_failure="skip"), task("b", "a"), task("c", "b"))
    for index in range(3):
        job.state[index] = Task.RUNNING
    fail(job, "a")
    job.handed_back(1, NOW)
    job.handed_back(2, NOW)
    assert states(job) == {"a": "failed", "b": "skipped", "c": "skipped", "/outputs": "ready"}


def test_a_long_chain_of_skips_needs_no_deep_stack() -> None:
    job = job_of(task("0", on_failure="skip"), *[task(f"{n}", f"{n - 1}") for n in range(1, 5_000)])
    ready(job)
    fail(job, "0")
    assert len(job.rows) == 5_000
    assert ready(job) == ["/outputs"]


def test_stopping_cancels_all_that_does_not_run() -> None:
    job = job_of(task("a"), task("b"), task("c", "a"), task("d", "c", trigger="all_done"))
    job.state[0] = Task.RUNNING
    job.stop("timed_out", NOW)
    assert states(job) == {"a": "running", "b": "cancelled", "c": "cancelled", "d": "cancelled", "/outputs": "pending"}
    assert job.status == "cancelling"
    message = "not started, because the job ran out of time"
    assert {json.loads(each.row.payload or b"")["message"] for each in job.rows} == {message}  # type: ignore[arg-type]
    job.ended(0, row(job, "a", Task.CANCELLED, {}), "d", NOW)
    assert job.status == "timed_out"


def test_a_job_that_is_stopped_while_its_result_waits_has_no_result() -> None:
    job = job_of(task("a"))
    ready(job)
    succeed(job, "a")
    job.stop("cancelled", NOW)
    assert outcomes(job)[-1] == ("/outputs", "skipped")
    assert job.status == "cancelled"


# Back from the store --------------------------------------------------------------------------------------------------


def rebuilt(job: Job, stopping: str | None = None) -> Job:
    again = Job(job.job_id, job.plan, inputs=job.inputs, priority=job.priority)
    again.restore([Row(*each.row) for each in job.rows], job.failures, stopping)
    return again


def test_a_job_from_the_store_is_the_one_that_was_lost() -> None:
    job = job_of(
        task("a"), task("b", "a", retry={"attempts": 3}), task("c", "a", on_failure="continue"), task("d", "b", "c")
    )
    for path, succeeds in (("a", True), ("b", False), ("c", False), ("b", True)):
        ready(job)
        if succeeds:
            succeed(job, path)
        else:
            fail(job, path)
        assert rebuilt(job).snapshot() == job.snapshot()


def test_a_job_from_the_store_goes_on_where_it_was() -> None:
    job = job_of(task("a"), task("b", "a"), task("c", "b"), task("d", "a", trigger="one_failed"))
    ready(job)
    succeed(job, "a")
    again = rebuilt(job)
    assert ready(again) == []
    again.go_on(NOW)
    assert ready(again) == ["b"]
    assert states(again)["d"] == "skipped"


def test_what_runs_is_left_alone_when_a_job_from_the_store_goes_on() -> None:
    job = job_of(task("a"), task("b"), task("c", "b"))
    ready(job)
    fail(job, "a")
    again = rebuilt(job)
    again.state[1] = Task.RUNNING
    again.go_on(NOW)
    assert states(again) == {"a": "failed", "b": "running", "c": "skipped", "/outputs": "pending"}


def test_a_job_that_was_being_stopped_is_stopped_when_it_goes_on() -> None:
    job = job_of(task("a"), task("b"))
    ready(job)
    job.stop("cancelled", NOW)
    again = rebuilt(job, "cancelled")
    assert again.status == "cancelling"
    again.go_on(NOW)
    assert again.status == "cancelled"


def test_the_error_of_a_job_from_the_store_is_that_of_its_first_failure() -> None:
    job = job_of(task("a"), task("b"))
    ready(job)
    fail(job, "b", kind="First")
    fail(job, "a", kind="Second")
    again = rebuilt(job)
    assert again.error == job.error


# Sub-processes --------------------------------------------------------------------------------------------------------


def nested(**fields: Any) -> dict[str, Any]:
    inner = process(
        task("x", on_failure=fields.pop("inner_on_failure", "fail")),
        task("y", "x"),
        task("tidy", "x", trigger="all_done"),
        inputs={},
    )
    return {"id": "sub", "needs": [], "process": inner, **fields}


def test_a_sub_process_runs_between_its_inputs_and_its_result() -> None:
    job = job_of(nested(), task("after", "sub"))
    order = []
    while not job.finished:
        paths = ready(job)
        order.append(paths)
        succeed(job, *paths)
    assert order == [["sub//inputs"], ["sub/x"], ["sub/y", "sub/tidy"], ["sub"], ["after"], ["/outputs"]]


def test_a_sub_process_that_fails_runs_its_handlers_and_fails_as_a_task() -> None:
    job = job_of(nested(on_failure="continue"), task("after", "sub"))
    succeed(job, *ready(job))
    ready(job)
    fail(job, "sub/x")
    assert outcomes(job)[-2:] == [("sub/x", "failed"), ("sub/y", "skipped")]
    assert ready(job) == ["sub/tidy"]
    succeed(job, "sub/tidy")
    assert outcomes(job)[-1] == ("sub", "failed")
    assert json.loads(job.errors[job.plan.index["sub"]] or b"")["message"] == "no"
    assert ready(job) == ["after"]
    assert job.ending is None


def test_a_sub_process_that_is_skipped_is_skipped_as_a_whole() -> None:
    job = job_of(task("a", on_failure="skip"), nested(needs=["a"]), task("after", "sub", trigger="none_failed"))
    ready(job)
    fail(job, "a")
    assert {path: state for path, state in states(job).items() if path.startswith("sub")} == {
        "sub//inputs": "skipped",
        "sub/x": "skipped",
        "sub/y": "skipped",
        "sub/tidy": "skipped",
        "sub": "skipped",
    }
    assert ready(job) == ["after"]


def test_a_job_that_fails_ends_the_sub_processes_in_it() -> None:
    job = job_of(nested(), task("bad"))
    succeed(job, "sub//inputs")
    ready(job)
    fail(job, "bad")
    succeed(job, "sub/x")
    assert states(job)["sub/tidy"] == "skipped"
    assert states(job)["sub"] == "skipped"
    assert job.status == "failed"
