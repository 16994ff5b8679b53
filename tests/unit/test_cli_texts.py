"""What the command line shows: values, durations, progress."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from comagent.cli.board import FEW, Board
from comagent.cli.readable import outputs_text, readable
from comagent.cli.screen import clean, duration, shortened
from comagent.job_view import JobView, Progress, TaskEnd

texts = st.text() | st.sampled_from(
    ["true", "no", "1e3", "- a", "a: b", "# c", "x\ny", "x\n", " x\n y", "~", "2020-01-01"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_printed_reads_back_as_the_same_value(value: Any) -> None:
    if isinstance(value, str):
        assert readable(value) == value
    else:
        assert yaml.safe_load(readable(value)) == value


def test_values_look_as_a_person_would_write_them() -> None:
    value: Any = {"report": "one\n  two\n", "found": [{"id": 1, "tags": ["a b", "yes"]}, []], "none": None, "empty": {}}
    assert readable(value) == (
        'report: |\n  one\n    two\nfound:\n- id: 1\n  tags:\n  - a b\n  - "yes"\n- []\nnone: null\nempty: {}'
    )


def test_a_single_output_is_printed_without_its_name() -> None:
    assert outputs_text({"report": "line\nline\n"}) == "line\nline\n"
    assert outputs_text({"figures": [1, 2]}) == "- 1\n- 2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.004, "0.00 s"),
        (0.25, "0.25 s"),
        (0.999, "1.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_have_three_figures_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_texts_of_others_cannot_move_the_cursor() -> None:
    assert clean("a\x1b[2Jb\u202ec\rd\te") == "a\\x1b[2Jb\\x202ec\nd\te"
    assert shortened("one\n  two three", 9) == "one two …"


def news(*ends: TaskEnd, running: list[tuple[str, int]] | None = None, status: str = "running") -> Progress:
    counts = {"succeeded": sum(end.status == "succeeded" for end in ends)}
    return Progress(status, 0, len(ends), counts, running or [], list(ends), 1)


def end(path: str, status: str, *, attempt: int = 1, retry_in_s: float | None = None) -> TaskEnd:
    error = None if status == "succeeded" else {"type": "ValueError", "message": "no\nsuch table"}
    return TaskEnd(1, path, status, attempt, 1000, 1250, error, retry_in_s)


def test_an_attempt_that_failed_and_the_one_after_it_are_two_lines() -> None:
    board = Board("p", ["a", "b"], noun="task")
    told = board.told(news(end("a", "retrying", retry_in_s=2.0), end("a", "succeeded", attempt=2)), 0.0)
    assert [line.text() for line in told] == [
        "a: failed in 0.25 s, attempt 1: ValueError: no such table (tried again in 2.0 s)",
        "a: succeeded in 0.25 s, attempt 2",
    ]


def test_a_task_is_running_from_when_it_was_first_seen_until_it_is_not() -> None:
    board = Board("p", ["a", "b"], noun="task")
    board.told(news(running=[("a", 1)]), 10.0)
    board.told(news(running=[("a", 1)]), 11.0)
    assert (board.lines["a"].status, board.lines["a"].since_s) == ("running", 10.0)
    board.told(news(), 12.0)
    assert (board.lines["a"].status, board.lines["a"].since_s) == ("pending", None)


def test_of_many_tasks_only_those_that_run_or_failed_are_kept() -> None:
    board = Board("p", [f"t{number}" for number in range(FEW + 1)], noun="task")
    assert not board.lines
    told = board.told(news(end("t1", "succeeded"), end("t2", "failed"), running=[("t3", 1)]), 0.0)
    assert [line.name for line in told] == ["t1", "t2"]
    assert sorted(board.lines) == ["t2", "t3"]
    assert board.summary(1.0) == f"2 of {FEW + 1} tasks, 1.0 s"


def test_the_outputs_are_a_line_only_when_they_failed() -> None:
    board = Board("p", ["a"], noun="task")
    assert board.told(news(end("/outputs", "skipped")), 0.0) == []
    (line,) = board.told(news(end("/outputs", "failed")), 0.0)
    assert line.text() == "outputs: failed in 0.25 s: ValueError: no such table"


def test_several_jobs_are_told_when_each_ends() -> None:
    board = Board("resumed jobs", ["j1", "j2"], noun="job")
    first, second = JobView("j1", 3, known=True), JobView("j2", 1, known=True)
    assert board.seen([first, second]) == []
    first.status = "failed"
    assert [line.text() for line in board.seen([first])] == ["j1: failed: 0 of 3 tasks"]
    assert not board.over
    second.status = "succeeded"
    board.seen([first, second])
    assert board.over
    assert board.ending(1.0) == "ended in 1.0 s: 1 failed, 1 succeeded"
