"""What the engine promises, one sentence at a time: dispatch, agents that die or come late, takeovers, cancelling."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from comagent.dispatching import TIMEOUT_GRACE_MS
from comagent.events import Answer, CancelRequested
from comagent.machine import CANCEL_GRACE_MS, RETIRE_GRACE_MS
from comagent.plan import OUTPUTS
from comagent.protocol import BATCH, Report, Row
from comagent.states import Task
from tests.unit.model import World
from tests.unit.plays import FAIL, PLAIN, SKIP, Play, process, task


def world(
    *tasks: dict[str, Any], plays: Mapping[str, Play] = PLAIN, agents: int = 1, ref_edges: bool = False, **fields: Any
) -> World:
    """A world in which a job with these tasks has just been submitted."""
    made = World(agents=agents, ref_edges=ref_edges)
    made.submit(process(*tasks, **fields), plays)
    return made


def ended(*tasks: dict[str, Any], plays: Mapping[str, Play] = PLAIN, **fields: Any) -> World:
    made = world(*tasks, plays=plays, **fields)
    made.run()
    return made


def error(made: World, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.outcome(path).error or b"{}")
    return found


# Triggers -------------------------------------------------------------------------------------------------------------

GOOD, BAD, SKIPPED = Play(), FAIL, SKIP


@pytest.mark.parametrize(
    ("trigger", "needs", "status"),
    [
        ("all_succeeded", (GOOD, GOOD), "succeeded"),
        ("all_succeeded", (GOOD, BAD), "skipped"),
        ("all_succeeded", (GOOD, SKIPPED), "skipped"),
        ("all_done", (GOOD, BAD), "succeeded"),
        ("all_done", (SKIPPED, BAD), "succeeded"),
        ("one_succeeded", (GOOD, BAD), "succeeded"),
        ("one_succeeded", (BAD, BAD), "skipped"),
        ("one_succeeded", (SKIPPED, BAD), "skipped"),
        ("one_failed", (GOOD, BAD), "succeeded"),
        ("one_failed", (GOOD, GOOD), "skipped"),
        ("one_failed", (GOOD, SKIPPED), "skipped"),
        ("none_failed", (GOOD, SKIPPED), "succeeded"),
        ("none_failed", (GOOD, BAD), "skipped"),
    ],
)
@pytest.mark.parametrize("tool", ["cheap", "wait"])
def test_a_trigger_says_by_the_ends_of_its_needs_whether_a_task_runs(
    trigger: str, needs: tuple[Play, Play], status: str, tool: str
) -> None:
    made = ended(
        task("a", tool=tool, on_failure="skip"),
        task("b", tool=tool, on_failure="skip"),
        task("c", "a", "b", tool=tool, trigger=trigger),
        plays=dict(zip("ab", needs, strict=True)),
    )
    assert made.statuses()["c"] == status
    assert made.status() == "succeeded"


@pytest.mark.parametrize("trigger", ["one_succeeded", "one_failed"])
def test_one_is_enough_while_the_others_still_run(trigger: str) -> None:
    play = GOOD if trigger == "one_succeeded" else BAD
    made = world(
        task("a", on_failure="continue"), task("b"), task("c", "a", "b", trigger=trigger), plays={"a": play}, agents=2
    )
    made.held.add("b")
    made.settle()
    assert made.statuses()["c"] == "succeeded"
    assert "b" in made.running()


def test_one_failure_settles_none_failed_while_the_others_still_run() -> None:
    made = world(
        task("a", on_failure="continue"), task("b"), task("c", "a", "b", trigger="none_failed"), plays={"a": FAIL}
    )
    made.held.add("b")
    made.settle()
    assert made.statuses() == {"a": "failed", "c": "skipped"}


# What a failure does to the rest --------------------------------------------------------------------------------------


def test_a_failed_job_starts_nothing_more_but_what_deals_with_failures() -> None:
    made = ended(
        task("bad", on_failure="fail"),
        task("after", "bad"),
        task("slow", tool="wait"),
        task("later", "slow"),
        task("alarm", "bad", trigger="one_failed"),
        task("cleanup", "bad", "slow", trigger="all_done"),
        task("untouched", "later", trigger="none_failed"),
        plays={"bad": FAIL},
        agents=1,
    )
    assert made.status() == "failed"
    assert made.statuses() == {
        "bad": "failed",
        "after": "skipped",
        "slow": "succeeded",
        "later": "skipped",
        "alarm": "succeeded",
        "cleanup": "succeeded",
        "untouched": "skipped",
    }
    assert made.outcome(OUTPUTS).status == "skipped"


def test_what_runs_when_a_job_fails_is_let_run_to_its_end() -> None:
    made = world(task("bad"), task("good"), plays={"bad": FAIL})
    made.held.add("good")
    made.settle()
    assert made.statuses() == {"bad": "failed"}
    assert made.status() == "running"
    made.held.clear()
    made.run()
    assert made.statuses()["good"] == "succeeded"
    assert made.status() == "failed"


def test_what_deals_with_failures_is_tried_again_in_a_failed_job_and_nothing_else_is() -> None:
    retry = {"attempts": 2, "delay": 1}
    made = world(
        task("bad"),
        task("other", retry=retry),
        task("alarm", "bad", trigger="one_failed", retry=retry),
        plays={"bad": FAIL, "other": Play(fails=1), "alarm": Play(fails=1)},
    )
    made.held.add("other")
    made.settle()
    made.held.clear()
    made.run()
    assert made.statuses() == {"bad": "failed", "other": "failed", "alarm": "succeeded"}


def test_after_a_failure_that_is_to_be_continued_dependents_run_and_find_no_value() -> None:
    made = ended(task("a", on_failure="continue"), task("b", "a"), plays={"a": FAIL})
    assert made.statuses() == {"a": "failed", "b": "succeeded"}
    assert made.status() == "succeeded"
    unit = next(unit for _, unit in made.sent if unit.parts[0][2] == "b")
    assert unit.literals == {}


def test_after_a_failure_that_is_to_be_skipped_dependents_are_skipped_and_the_job_goes_on() -> None:
    made = ended(
        task("a", on_failure="skip"), task("b", "a"), task("c", "b"), task("d", "c", trigger="all_done"),
        plays={"a": FAIL},
    )  # fmt: skip
    assert made.statuses() == {"a": "failed", "b": "skipped", "c": "skipped", "d": "succeeded"}
    assert made.status() == "succeeded"
    assert error(made, "b") == {"type": "UpstreamNotSucceeded", "message": 'skipped, because task "a" failed'}
    assert error(made, "c")["message"] == 'skipped, because task "b" skipped'


def test_a_false_condition_skips_a_task_and_what_depends_on_it() -> None:
    made = ended(task("a", when="false"), task("b", "a"), task("c"), plays={"a": SKIP})
    assert made.statuses() == {"a": "skipped", "b": "skipped", "c": "succeeded"}
    assert made.status() == "succeeded"


@pytest.mark.parametrize("status", [Task.FAILED, Task.TIMED_OUT])
def test_a_failure_inside_a_unit_hands_the_rest_back_and_skips_only_what_depends_on_it(status: Task) -> None:
    chain = [task(f"{n}", *([f"{n - 1}"] if n else []), tool="cheap", on_failure="skip") for n in range(4)]
    made = ended(*chain, task("free", tool="cheap"), plays={"1": Play(fails=9, status=status)})
    assert made.statuses() == {"0": "succeeded", "1": status.label, "2": "skipped", "3": "skipped", "free": "succeeded"}
    assert made.status() == "succeeded"


# Trying again ---------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_an_event_and_the_next_one_waits_for_its_back_off() -> None:
    made = world(task("a", retry={"attempts": 3, "delay": 4, "jitter": 0}), plays={"a": Play(fails=2)})
    made.settle()
    assert made.events() == [("attempt_failed", "a")]
    made.wait(3.9)
    assert len(made.sent) == 1
    made.wait(0.2)
    assert made.events() == [("attempt_failed", "a")] * 2
    made.wait(7.8)
    assert "a" not in made.statuses()
    made.wait(0.2)
    assert made.statuses() == {"a": "succeeded"}
    assert made.outcome("a").attempt == 3


def test_the_last_failed_attempt_is_the_outcome_and_no_event() -> None:
    made = ended(task("a", retry={"attempts": 2}), plays={"a": FAIL})
    assert made.events() == [("attempt_failed", "a")]
    assert (made.outcome("a").status, made.outcome("a").attempt) == ("failed", 2)


def test_only_the_errors_that_are_named_are_tried_again() -> None:
    retry = {"attempts": 3, "delay": 0, "on": ["OSError", "timeout"]}
    made = ended(
        task("other", retry=retry, on_failure="continue"),
        task("named", retry=retry),
        task("late", retry=retry),
        plays={
            "other": Play(fails=1),
            "named": Play(fails=1, error="OSError"),
            "late": Play(fails=1, status=Task.TIMED_OUT),
        },
    )
    assert made.statuses() == {"other": "failed", "named": "succeeded", "late": "succeeded"}


def test_a_task_that_timed_out_ends_as_timed_out_and_fails_the_job() -> None:
    made = ended(task("a", timeout=5), plays={"a": Play(fails=1, status=Task.TIMED_OUT)})
    assert made.statuses() == {"a": "timed_out"}
    assert made.status() == "failed"


def test_an_agent_that_does_not_answer_for_an_attempt_long_after_its_timeout_is_ended() -> None:
    made = world(task("a", timeout=5, retry={"attempts": 2, "delay": 0}), task("b"), agents=1)
    made.stuck.add("a")
    made.settle()
    stuck_on = made.running()["a"]
    made.wait(5 + TIMEOUT_GRACE_MS / 1000 - 0.1)
    assert stuck_on in made.agents
    made.wait(0.2)
    assert stuck_on not in made.agents
    made.stuck.clear()
    made.run()
    assert made.statuses() == {"a": "succeeded", "b": "succeeded"}
    assert made.events() == [("attempt_failed", "a")]


# Cancelling and running out of time -----------------------------------------------------------------------------------


def test_a_cancelled_job_stops_what_runs_and_starts_nothing_more() -> None:
    made = world(task("a"), task("b", "a"), task("c", "a", trigger="all_done"))
    made.held.add("a")
    made.settle()
    made.cancel()
    made.settle()
    assert made.statuses() == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert made.status() == "cancelled"


def test_a_job_is_cancelling_until_its_attempts_have_stopped() -> None:
    made = world(task("a"), task("b", "a"))
    made.stuck.add("a")
    made.settle()
    made.cancel()
    made.settle()
    assert made.status() == "cancelling"
    assert made.statuses() == {"b": "cancelled"}
    assert ("stopping", None) in made.events()


def test_an_agent_that_does_not_stop_an_attempt_in_time_is_ended_and_replaced() -> None:
    made = world(task("a"), task("b"))
    made.stuck.update("ab")
    made.settle()
    made.cancel()
    made.wait(CANCEL_GRACE_MS / 1000 - 0.1)
    assert list(made.agents) == ["agent-1"]
    made.wait(0.2)
    assert list(made.agents) == ["agent-2"]
    assert made.statuses() == {"a": "cancelled", "b": "cancelled"}
    assert made.status() == "cancelled"


def test_a_success_that_comes_while_a_job_is_cancelled_counts_and_the_job_is_cancelled_all_the_same() -> None:
    made = world(task("a"), task("b", "a"))
    made.held.add("a")
    made.settle()
    hand = made.agents["agent-1"].hands[0]
    made.cancel()
    made.step()
    made.held.clear()
    hand.stopped = False  # it ends by itself just before it would be stopped
    made.settle()
    assert made.statuses() == {"a": "succeeded", "b": "cancelled"}
    assert made.status() == "cancelled"


def test_a_job_that_is_cancelled_when_there_are_no_agents_ends_at_once() -> None:
    made = world(task("a"), task("b", "a"), agents=0)
    made.step()
    made.cancel()
    made.step()
    assert made.status() == "cancelled"


def test_cancelling_what_has_ended_changes_nothing() -> None:
    made = world(task("a"))
    made.settle()
    made.cancel()
    made.settle()
    assert made.status() == "succeeded"


def test_a_cancel_that_arrives_together_with_the_last_report_comes_too_late() -> None:
    made = world(task("a", tool="cheap"))
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    while agent.busy():
        agent.work(agent.busy()[0])
    agent.report()
    made.cancel()
    made.settle()
    assert made.status() == "succeeded"
    assert made.events() == []


def test_a_job_that_runs_out_of_time_is_stopped_and_timed_out() -> None:
    made = world(task("a"), task("b", "a"), timeout=60)
    made.held.add("a")
    made.wait(59)
    assert made.status() == "running"
    made.wait(2)
    assert made.statuses() == {"a": "cancelled", "b": "cancelled"}
    assert made.status() == "timed_out"


def test_a_failed_job_whose_handler_hangs_can_be_cancelled() -> None:
    made = world(task("a"), task("alarm", "a", trigger="one_failed"), plays={"a": FAIL})
    made.held.add("alarm")
    made.settle()
    made.cancel()
    made.settle()
    assert made.status() == "cancelled"


# The result -----------------------------------------------------------------------------------------------------------


def test_the_result_is_a_task_of_its_own_that_runs_once_all_others_have_ended() -> None:
    made = ended(task("a"), task("b", "a"), task("c"))
    assert made.dispatched()[-1] == [OUTPUTS]
    assert made.outcome(OUTPUTS).status == "succeeded"


def test_the_result_reads_what_nothing_else_needs() -> None:
    made = ended(task("a"), task("b", "a"), task("c"))
    unit = made.sent[-1][1]
    assert sorted(unit.literals) == ["b", "c"]


def test_cheap_work_and_the_result_leave_in_one_unit() -> None:
    made = ended(task("a", tool="cheap"), task("b", "a", tool="cheap"))
    assert made.dispatched() == [["a", "b", OUTPUTS]]


def test_a_result_that_cannot_be_made_fails_the_job() -> None:
    made = ended(task("a"), plays={OUTPUTS: FAIL})
    assert made.statuses() == {"a": "succeeded"}
    assert made.status() == "failed"


# Units ----------------------------------------------------------------------------------------------------------------


def test_cheap_tasks_are_shared_out_between_the_agents() -> None:
    made = world(*[task(f"{n}", tool="cheap") for n in range(400)], agents=4)
    made.step()
    sizes = [len(unit) for unit in made.dispatched()]
    assert sum(sizes) == 400
    assert len({agent for agent, _ in made.sent}) == 4
    assert max(sizes) <= 100


def test_a_unit_does_not_grow_where_the_work_becomes_wide() -> None:
    made = world(task("root", tool="cheap"), *[task(f"{n}", "root", tool="cheap") for n in range(100)])
    made.step()
    assert made.dispatched() == [["root"]]
    made.run()
    assert made.status() == "succeeded"


def test_tools_of_unknown_cost_are_tried_alone_then_by_ten_then_by_a_hundred() -> None:
    made = ended(*[task(f"{n}", tool="unknown") for n in range(400)])
    sizes = [len([path for path in unit if path != OUTPUTS]) for unit in made.dispatched()]
    assert sizes[0] == 1
    assert 10 in sizes
    assert max(sizes) == 100


def test_a_task_that_reads_how_another_ended_waits_for_the_commit() -> None:
    made = ended(task("a", tool="cheap"), task("b", "a", tool="cheap", when='status.a == "succeeded"'))
    assert made.dispatched() == [["a"], ["b", OUTPUTS]]
    assert made.sent[-1][1].ends == {"a": ("succeeded", None)}


def test_what_an_agent_hands_back_runs_elsewhere_and_costs_no_attempt() -> None:
    made = world(*[task(f"{n}", tool="cheap") for n in range(4)])
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    (hand,) = agent.busy()
    agent.work(hand)
    agent.hand_back(hand, "slow")
    made.run()
    assert made.dispatched() == [["0", "1", "2", "3", OUTPUTS], ["1", "2", "3", OUTPUTS]]
    assert {made.outcome(f"{n}").attempt for n in range(4)} == {1}


def test_what_no_agent_can_run_fails_at_the_third_time() -> None:
    made = world(task("a"))
    for times in range(3):
        made.step()
        assert len(made.sent) == times + 1
        agent = made.agents["agent-1"]
        agent.deliver()
        agent.hand_back(agent.hands[0], "a value cannot be read: no such document")
        agent.report()
    made.settle()
    assert made.statuses() == {"a": "failed"}
    assert error(made, "a") == {
        "type": "AgentError",
        "message": "no agent could run the task: a value cannot be read: no such document",
    }


# Agents that die ------------------------------------------------------------------------------------------------------


def test_what_a_dead_agent_had_is_run_again_and_what_it_committed_is_kept() -> None:
    made = world(task("a"), task("b", "a"), agents=2)
    made.held.add("b")
    made.settle()
    made.die(made.running()["b"])
    made.held.clear()
    made.run()
    assert made.dispatched() == [["a"], ["b"], ["b"], [OUTPUTS]]
    assert made.outcome("b").attempt == 1
    assert made.events() == []


def test_a_task_seen_on_two_dead_agents_runs_alone_and_its_neighbours_do_not_suffer() -> None:
    cheap = [task(f"{n}", tool="cheap") for n in range(6)]
    made = ended(*cheap, plays={"3": Play(kills=9)}, agents=1)
    assert made.status() == "failed"
    assert [path for path, status in made.statuses().items() if status == "failed"] == ["3"]
    assert made.dispatched()[2:].count(["3"]) == 1
    message = "its agent died while it ran the task alone (3 agents have died on it)"
    assert error(made, "3") == {"type": "AgentDied", "message": message}


def test_only_deaths_while_alone_count_as_attempts() -> None:
    made = ended(task("a", retry={"attempts": 3, "delay": 0}), task("b"), plays={"a": Play(kills=4)}, agents=2)
    assert made.status() == "succeeded"
    assert made.outcome("a").attempt == 3
    assert made.events() == [("attempt_failed", "a")] * 2


def test_nothing_else_is_sent_to_an_agent_that_runs_a_task_alone() -> None:
    made = world(*[task(f"{n}") for n in range(4)], plays={"0": Play(kills=2)}, agents=1)
    made.held.add("0")
    made.settle()
    seat = next(iter(made.owner.machine.seats.values()))
    assert len(seat.open) < 4
    made.held.clear()
    made.run()
    assert made.status() == "succeeded"


def test_a_result_that_kills_agents_is_made_alone_and_fails_the_job() -> None:
    made = ended(task("a", tool="cheap"), plays={OUTPUTS: Play(kills=9)})
    assert made.statuses() == {"a": "succeeded"}
    assert made.status() == "failed"


def test_an_agent_with_a_stuck_thread_is_replaced_at_once_and_ended_when_it_is_idle() -> None:
    made = world(task("a"), task("b"))
    made.held.add("b")
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    agent.tainted = True
    made.settle()
    assert list(made.agents) == ["agent-1", "agent-2"]
    made.held.clear()
    made.settle()
    assert list(made.agents) == ["agent-2"]
    assert made.status() == "succeeded"


def test_an_agent_with_a_stuck_thread_does_not_live_longer_than_its_grace() -> None:
    made = world(task("a"), task("b"))
    made.held.add("b")
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    agent.tainted = True
    made.wait(RETIRE_GRACE_MS / 1000 + 0.1)
    assert list(made.agents) == ["agent-2"]
    made.held.clear()
    made.run()
    assert made.outcome("b").attempt == 1


# Reports that come late, or twice -------------------------------------------------------------------------------------


def finish(made: World, name: str, path: str) -> None:
    """Lets one agent finish its attempt at a task that is held everywhere else, and report it."""
    made.held.discard(path)
    agent = made.agents[name]
    for hand in list(agent.hands):
        agent.work(hand)
    agent.report()
    made.held.add(path)


def test_a_late_success_from_an_agent_that_was_given_up_wins() -> None:
    made = world(task("a"), task("b", "a"), agents=2)
    made.held.add("a")
    made.settle()
    first = made.running()["a"]
    made.lose(first)
    made.settle()
    assert made.dispatched() == [["a"], ["a"]]
    finish(made, first, "a")
    made.settle()
    assert made.statuses() == {"a": "succeeded", "b": "succeeded"}
    made.held.clear()
    made.run()
    assert made.outcome("a").dispatch == "0.1.1"


def test_a_late_failure_from_an_agent_that_was_given_up_is_no_news() -> None:
    made = world(task("a"), plays={"a": Play(fails=1)}, agents=2)
    made.held.add("a")
    made.settle()
    first = made.running()["a"]
    made.lose(first)
    made.settle()
    finish(made, first, "a")
    made.settle()
    assert made.statuses() == {}
    assert made.events() == []


def test_a_report_that_is_sent_again_is_answered_and_changes_nothing() -> None:
    made = world(task("a", retry={"attempts": 2}), task("b"), plays={"a": Play(fails=1)})
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    for hand in list(agent.hands) * 2:
        agent.work(hand)
    agent.report()
    agent.send()
    agent.send()
    step = made.step()
    answers = [effect for effect in step.effects if isinstance(effect, Answer)]
    assert len(answers) == 3
    for answer in answers[1:]:
        won = [row[2] for _, _, rows in answer.answers for row in rows.values()]
        assert won == [Task.SUCCEEDED], "what was committed is passed on"
    assert made.events() == [("attempt_failed", "a")]
    made.run()
    assert made.outcome("a").attempt == 2


def test_a_report_of_a_job_that_is_unknown_is_answered() -> None:
    made = world(task("a"))
    made.settle()
    agent = made.agents["agent-1"]
    agent.outbox = [Report((0, 1, 1), "job", [Row(0, 1, Task.SUCCEEDED, 0.0, 0.0, b"1")], [], None)]
    agent.report()
    made.settle()
    assert agent.unanswered == []


# Takeovers ------------------------------------------------------------------------------------------------------------


def test_a_new_owner_adopts_attempts_that_run_and_sends_again_what_had_not_begun() -> None:
    made = world(*[task(name) for name in "ab"], task("c", "a"), agents=2)
    made.held.add("b")
    made.settle()
    sent = len(made.sent)
    made.take_over()
    made.settle()
    assert made.dispatched()[sent:] == []
    made.held.clear()
    made.run()
    assert made.outcome("b").dispatch.startswith("0.1.")
    assert made.outcome(OUTPUTS).dispatch.startswith("0.2.")
    assert made.dispatched().count(["b"]) == 1


def test_a_new_owner_drops_what_waits_at_an_agent_behind_a_running_attempt() -> None:
    made = world(*[task(f"{n}", tool="cheap") for n in range(3)])
    made.held.add("0")
    made.settle()
    assert made.dispatched() == [["0", "1", "2", OUTPUTS]]
    made.take_over()
    made.settle()
    assert made.dispatched()[1:] == [["1", "2"]]
    made.held.clear()
    made.run()
    assert made.status() == "succeeded"


def test_a_failed_attempt_that_was_committed_but_not_answered_is_not_counted_twice() -> None:
    made = world(task("a", retry={"attempts": 3, "delay": 1}), plays={"a": Play(fails=1)})
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    agent.work(agent.hands[0])
    agent.work(agent.hands[0])
    agent.report()
    reports = list(agent.unanswered)
    made.step()
    agent.unanswered = reports
    made.take_over()
    made.run()
    assert made.events() == [("attempt_failed", "a")]
    assert made.outcome("a").attempt == 2


def test_a_new_owner_keeps_to_the_back_off_of_the_former_one() -> None:
    made = world(task("a", retry={"attempts": 2, "delay": 10, "jitter": 0}), plays={"a": Play(fails=1)})
    made.settle()
    made.wait(4)
    made.take_over()
    made.wait(5)
    assert made.statuses() == {}
    made.wait(1.1)
    assert made.statuses() == {"a": "succeeded"}


def test_a_new_owner_goes_on_cancelling() -> None:
    made = world(task("a"), task("b", "a"))
    made.stuck.add("a")
    made.settle()
    made.cancel()
    made.settle()
    made.take_over()
    made.settle()
    assert made.status() == "cancelling"
    made.wait(CANCEL_GRACE_MS / 1000 + 0.1)
    assert made.status() == "cancelled"


def test_a_new_owner_starts_nothing_of_a_failed_job_but_lets_run_what_runs() -> None:
    made = world(task("bad"), task("runs"), task("lost"), plays={"bad": FAIL}, agents=3)
    made.held.update(("runs", "lost"))
    made.settle()
    made.die(made.running()["lost"])
    made.take_over()
    made.settle()
    assert made.statuses() == {"bad": "failed", "lost": "skipped"}
    made.held.clear()
    made.run()
    assert made.statuses()["runs"] == "succeeded"
    assert made.status() == "failed"


def test_an_adopted_attempt_has_its_timeout() -> None:
    made = world(task("a", timeout=5))
    made.stuck.add("a")
    made.settle()
    made.take_over()
    made.wait(5 + TIMEOUT_GRACE_MS / 1000 + 0.1)
    assert made.statuses() == {"a": "timed_out"}


def test_a_former_owner_can_commit_nothing_and_lets_go() -> None:
    made = world(task("a"))
    made.held.add("a")
    made.settle()
    made.take_over()
    former = made.zombies[0]
    former.inbox.append(CancelRequested("job"))
    former.step()
    assert former.machine.idle()
    made.held.clear()
    made.run()
    assert made.status() == "succeeded"


def test_a_cancel_that_the_store_refused_has_no_late_consequences() -> None:
    made = world(task("a"))
    made.held.add("a")
    made.settle()
    made.cancel()
    made.step(refused=["job"])
    made.wait(CANCEL_GRACE_MS / 1000 + 1)
    made.held.clear()
    made.run()
    assert made.statuses() == {"a": "succeeded"}
    assert made.status() == "succeeded"


def test_a_job_that_the_store_refuses_is_read_anew_and_goes_on() -> None:
    made = world(task("a"), task("b", "a"))
    made.step()
    agent = made.agents["agent-1"]
    agent.deliver()
    agent.work(agent.hands[0])
    agent.work(agent.hands[0])
    agent.report()
    made.step(refused=["job"])
    assert made.statuses() == {}
    assert agent.outbox != []
    made.run()
    assert made.status() == "succeeded"


def test_an_agent_that_was_kept_free_for_a_task_is_used_again_when_its_job_is_gone() -> None:
    made = World(agents=3)
    made.submit(process(task("poison")), job_id="one")
    made.submit(process(task("x"), task("y")), job_id="two")
    made.held.update(("poison", "x", "y"))
    made.settle()
    assert made.running() == {"poison": "agent-1", "x": "agent-2", "y": "agent-3"}
    for name in ("agent-1", "agent-2"):
        made.die(name)
        made.step()
        for agent in made.agents.values():
            agent.deliver()
    made.step()
    assert made.dispatched() == [["poison"], ["x"], ["y"], ["poison"]], "the last agent is kept free"
    made.owner.machine.forget("one")
    made.step()
    assert made.dispatched()[-1] == ["x"]


# Object refs ----------------------------------------------------------------------------------------------------------


def test_cheap_tasks_are_sent_ahead_of_what_they_need_and_started_by_its_values() -> None:
    wide = [task(f"w{n}", "root", tool="cheap") for n in range(40)]
    made = world(task("root", tool="cheap"), *wide, ref_edges=True, agents=2)
    made.step()
    assert len(made.sent) > 1
    ahead = made.sent[1][1]
    assert ahead.borrows[0] == (0, ("root",))
    made.run()
    assert made.status() == "succeeded"


def test_what_was_sent_ahead_of_a_failure_is_handed_back_and_skipped() -> None:
    wide = [task(f"w{n}", "root", tool="cheap") for n in range(40)]
    made = world(task("root", tool="cheap", on_failure="skip"), *wide, plays={"root": FAIL}, ref_edges=True, agents=2)
    made.run()
    assert set(made.statuses().values()) == {"failed", "skipped"}
    assert made.status() == "succeeded"


def test_what_was_sent_ahead_of_an_agent_that_died_runs_after_its_work_was_done_again() -> None:
    wide = [task(f"w{n}", "root", tool="cheap") for n in range(40)]
    made = world(task("root", tool="cheap"), *wide, plays={"root": Play(kills=1)}, ref_edges=True, agents=2)
    made.run()
    assert made.status() == "succeeded"
    assert {made.outcome(f"w{n}").attempt for n in range(40)} == {1}


# Several jobs ---------------------------------------------------------------------------------------------------------


def test_the_more_urgent_job_goes_first() -> None:
    made = World()
    made.submit(process(*[task(f"low{n}", tool="process") for n in range(4)], priority=0), job_id="low")
    made.submit(process(*[task(f"high{n}", tool="process") for n in range(4)], priority=10), job_id="high")
    made.run()
    order = [unit[0][:-1] for unit in made.dispatched() if unit != [OUTPUTS]]
    assert order == ["high"] * 4 + ["low"] * 4


def test_jobs_of_one_priority_take_turns() -> None:
    made = World()
    for job_id in ("x", "y"):
        made.submit(process(*[task(f"{job_id}{n}", tool="process") for n in range(4)]), job_id=job_id)
    made.run()
    order = [unit[0] for unit in made.dispatched() if unit != [OUTPUTS]]
    assert order == ["x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3"]


def test_a_large_job_does_not_hold_up_a_small_one() -> None:
    made = World()
    made.submit(process(*[task(f"{n}", tool="cheap") for n in range(5_000)]), job_id="large")
    made.submit(process(task("only", tool="cheap")), job_id="small")
    made.step()
    assert "only" in [path for unit in made.dispatched()[:3] for path in unit]


# Room -----------------------------------------------------------------------------------------------------------------


def test_an_agent_gets_no_more_of_a_kind_than_it_can_run() -> None:
    made = world(*[task(f"{n}", tool="process") for n in range(5)])
    made.step()
    assert len(made.sent) == 2
    made.run()
    assert made.status() == "succeeded"


def test_batches_wait_at_an_agent_so_that_it_need_not_ask() -> None:
    made = world(*[task(f"{n}", tool="cheap") for n in range(5_000)])
    made.step()
    assert {unit.lane for _, unit in made.sent} == {BATCH}
    assert len(made.sent) == 3
