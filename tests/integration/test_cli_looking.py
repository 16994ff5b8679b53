"""Commands that look at jobs and runs, at a store without Ray: `graph`, `events`, `watch`, `logs`, and completion."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from comagent.cli import main
from comagent.coordination import boot_id, this_process
from comagent.coordination.runs import Run, Runs
from comagent.plan import OUTPUTS
from tests.jobs import Home, attempt_failed, ended, succeeded

PROCESS: dict[str, Any] = {
    "name": "shop",
    "tasks": [
        {"id": "load", "tool": "debug.echo", "with": {"value": 1}},
        {"id": "check", "tool": "debug.echo", "needs": ["load"], "with": {"value": 1}},
        {"id": "mail", "tool": "debug.echo", "needs": ["check"], "with": {"value": 1}},
    ],
    "outputs": {"mail": "${tasks.mail}"},
}


def running_job(home: Home) -> str:
    """A job of a run whose process lives, submitted a minute ago."""
    home.lease("run-1", this_process("driver"))
    return home.submit(PROCESS, started_ms=int(time.time() * 1000) - 60_000)


def end_well(home: Home, job: str) -> None:
    home.end(job, succeeded("check", 1))
    home.end(job, succeeded("mail", 3), succeeded(OUTPUTS, {"mail": 3}), status="succeeded")


@contextlib.contextmanager
def beside(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "comagent", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))
    made = Home(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Calls the command line in this process."""

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["comagent", *arguments])
        with pytest.raises(SystemExit) as over:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(over.value.code or 0), captured.out, captured.err)

    return call


def failed_job(home: Home) -> str:
    job = home.submit(PROCESS)
    home.end(job, succeeded("load", 1), events=[attempt_failed("check", "no\nstock")])
    home.end(job, ended("check", "failed", "no stock", attempt=2), ended("mail", "skipped", "…"), status="failed")
    return job


def test_events_are_told_in_order(home: Home, cli: Cli) -> None:
    job = failed_job(home)
    told = cli("events", job)
    assert (told.code, told.err) == (0, "")
    assert [line[21:] for line in told.out.splitlines()] == [
        "load: succeeded in 0.05 s",
        "attempt 1 of check failed: ValueError: no stock (tried again in 0.50 s)",
        "check: failed in 0.30 s, attempt 2: ValueError: no stock",
        "mail: skipped: ValueError: …",
    ]
    rows = [json.loads(line) for line in cli("events", job, "--json", "--after", "2").out.splitlines()]
    assert [(row["seq"], row["kind"], row["task"]) for row in rows] == [
        (3, "attempt_failed", "check"),
        (4, "outcome", "check"),
        (5, "outcome", "mail"),
    ]
    assert rows[1]["body"]["error"] == {"type": "ValueError", "message": "no stock"}


def test_events_of_many_pages_are_all_told_once(home: Home, cli: Cli) -> None:
    job = home.submit(PROCESS)
    home.end(job, events=[attempt_failed("load", str(number)) for number in range(2500)])
    lines = cli("events", job, "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(2, 2502))


def test_events_are_followed_until_the_job_has_ended(home: Home) -> None:
    job = running_job(home)
    home.end(job, succeeded("load", 1))
    with beside("events", job, "--follow", "--json") as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        end_well(home, job)
        rows = [json.loads(line) for line in (first, *follower.stdout)]
        assert follower.wait(30) == 0
    assert [row["task"] for row in rows] == ["load", "check", "mail", None]


def test_whoever_follows_a_job_that_nobody_runs_is_told_so(home: Home, cli: Cli) -> None:
    job = home.submit(PROCESS)
    assert cli("events", job, "--follow") == (0, "", f"its run is gone: `comagent resume {job}` goes on with it\n")
    watched = cli("watch", job)
    assert watched.code == 1
    assert watched.err.endswith(f"its run is gone: `comagent resume {job}` goes on with it\n")


def test_a_watched_job_is_told_task_by_task_and_ends_as_the_job_does(home: Home) -> None:
    job = running_job(home)
    home.end(job, succeeded("load", 1))
    with beside("watch", job) as watcher:
        assert watcher.stderr is not None
        assert watcher.stdout is not None
        before = [watcher.stderr.readline() for _ in range(3)]
        end_well(home, job)
        assert watcher.wait(30) == 0
        after = watcher.stderr.read().splitlines()
        assert watcher.stdout.read() == "3\n"
    assert before[1:] == [f"shop, job {job}: 3 tasks\n", "  load: succeeded in 0.05 s\n"]
    assert after[:2] == ["  check: succeeded in 0.05 s", "  mail: succeeded in 0.05 s"]
    assert re.fullmatch(r"succeeded in 1 min \d+ s: 3 succeeded", after[2]), "counted from when it was submitted"


def test_ctrl_c_stops_watching_and_not_the_job(home: Home) -> None:
    job = running_job(home)
    with beside("watch", job) as watcher:
        assert watcher.stderr is not None
        assert f"job {job}" in [watcher.stderr.readline() for _ in range(2)][1]
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
        assert watcher.stderr.read() == "Stopped watching; the job goes on.\n"
    assert home.store.unfinished() == [job]


def test_a_job_that_has_ended_is_watched_no_more(home: Home, cli: Cli) -> None:
    job = failed_job(home)
    watched = cli("watch", job, "--json")
    assert watched.code == 1
    assert json.loads(watched.out)["status"] == "failed"
    assert watched.err == f"job {job} has ended already: failed\n"


def test_a_job_is_drawn_with_the_states_of_its_tasks(home: Home, cli: Cli) -> None:
    job = failed_job(home)
    assert cli("graph", job).out.splitlines() == [
        f"shop: 3 tasks in 3 steps, job {job}: failed",
        "1 ─ load   succeeded  debug.echo",
        "2 ─ check  failed     debug.echo  ← load",
        "3 ─ mail   skipped    debug.echo  ← check",
    ]
    assert cli("graph", job, "-o", "job.svg") == (0, "", "written to job.svg\n")
    ElementTree.parse("job.svg")


def test_a_task_that_waits_for_its_next_attempt_is_drawn_as_such(home: Home, cli: Cli) -> None:
    job = home.submit(PROCESS)
    home.end(job, succeeded("load", 1), events=[attempt_failed("check", "no stock")])
    assert "check  retrying" in cli("graph", job).out


def test_a_file_is_coloured_by_a_job_and_a_difference_is_told(home: Home, cli: Cli) -> None:
    job = failed_job(home)
    Path("p.json").write_text(json.dumps(PROCESS))
    same = cli("graph", "p.json", "--job", job, "--format", "mermaid")
    assert (same.code, same.err) == (0, "")
    assert "class check failed" in same.out
    other = {**PROCESS, "tasks": [*PROCESS["tasks"], {"id": "new", "tool": "debug.echo", "with": {"value": 1}}]}
    Path("p.json").write_text(json.dumps(other))
    assert "is not what job" in cli("graph", "p.json", "--job", job).err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["graph", "a-job"], 'no job has the id "a-job"'),
        (["graph", "missing.yaml"], "there is no such file"),
        (["graph", "p.json", "-o", "p.pdf"], "p.pdf says no format"),
        (["graph", "p.json", "-o", "missing/p.svg"], "missing/p.svg cannot be written"),
        (["graph", "large.json", "-f", "svg"], "1,001 tasks make no drawing"),
        (["graph", "p.json", "--job", "a-job"], 'no job has the id "a-job"'),
        (["events", "a-job"], 'no job has the id "a-job"'),
        (["events", "a-job", "--after", "-1"], "--after"),
        (["watch", "a-job"], 'no job has the id "a-job"'),
        (["logs", "a-job"], 'no job has the id "a-job"'),
        (["logs"], "no run has left its traces"),
        (["agents", "missing"], "missing is no folder"),
    ],
)
def test_bad_usage_is_explained(home: Home, cli: Cli, arguments: list[str], expected: str) -> None:
    Path("p.json").write_text(json.dumps(PROCESS))
    many = [{"id": f"t{number}", "tool": "debug.echo", "with": {"value": 1}} for number in range(1001)]
    Path("large.json").write_text(json.dumps({"name": "large", "tasks": many}))
    failed_job(home)
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


@pytest.mark.parametrize("command", ["events", "watch", "logs", "graph", "cleanup"])
def test_looking_into_an_empty_home_makes_none(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "nowhere"))
    done = cli(command, *([] if command == "cleanup" else ["a-job"]))
    assert done.code == (0 if command == "cleanup" else 2)
    assert not (tmp_path / "nowhere").exists()


WORKER = "worker-0a1b2c-01000000"


def session(home: Home, tmp_path: Path, *, shard: str = "run-1") -> Path:
    """The folder of a run's Ray, as Ray leaves it."""
    mine = this_process("driver")
    folder = tmp_path / "ray" / f"session_2026_{mine.pid}"
    logs = folder / "logs"
    logs.mkdir(parents=True)
    head = ":job_id:01000000\n:actor_name:Scheduler\n"
    (logs / f"{WORKER}-11.err").write_text(f"{head}all is well\n[...]\nValueError: broken \x1b[2J\n")
    (logs / f"{WORKER}-11.out").write_text(head)
    (logs / f"{WORKER}-12.out").write_text(head.replace("Scheduler", "SubTaskAgent") + "one\ntwo\nthree\n")
    (logs / "raylet.out").write_text("[2026-01-01 00:00:00,1 I 1 1] fine\n[2026-01-01 00:00:00,1 E 1 1] not fine\n")
    (logs / "gcs_server.out").write_text("[2026-01-01 00:00:00,1 I 1 1] fine\n")
    Runs(home.config.runs).write(Run(shard, str(folder), 1_767_225_600_000, boot_id(), (mine,)))
    return folder


def test_logs_show_the_last_lines_of_whatever_was_written(home: Home, cli: Cli, tmp_path: Path) -> None:
    job = failed_job(home)
    folder = session(home, tmp_path)
    told = cli("logs", job, "--lines", "2")
    assert told.code == 0
    head, *files = told.out.split("\n\n")
    assert head.splitlines() == [
        head.splitlines()[0],
        f"logs in {folder}/logs",
    ]
    assert head.splitlines()[0].endswith("is under way")
    assert [file.splitlines()[0] for file in files] == [
        "SubTaskAgent, process 12, stdout",
        "Scheduler, process 11, stderr, 1 line about errors",
        "raylet, stdout, 1 line about errors",
    ]
    assert files[0].splitlines()[2:] == ["  two", "  three"]
    assert "broken \\x1b[2J" in files[1]
    assert "] fine" not in told.out
    document = json.loads(cli("logs", "--json").out)
    assert document["run"] == "run-1"
    assert [file["errors"] for file in document["files"]] == [0, 1, 1]


def test_logs_that_were_removed_are_said_to_be(home: Home, cli: Cli, tmp_path: Path) -> None:
    folder = session(home, tmp_path)
    folder.rename(tmp_path / "elsewhere")
    done = cli("logs")
    assert done.code == 2
    assert f"there is no folder {folder}/logs" in done.err


def test_the_record_of_a_run_survives_and_a_damaged_one_does_no_harm(home: Home, tmp_path: Path) -> None:
    session(home, tmp_path)
    runs = Runs(home.config.runs)
    for number, text in enumerate(["", "[]", '{"shard": 1}', '{"processes": []}', "\x00"]):
        (home.config.runs / f"run-x{number}.json").write_text(text)
    (found,) = runs.all()
    assert found.shard == "run-1"
    assert found.is_alive
    assert [process.pid for process in found.left] == [os.getpid()]
    elsewhere = found._replace(boot_id="another machine")
    assert not elsewhere.is_alive
    assert elsewhere.left == []


def test_a_shell_is_offered_ids_of_jobs(home: Home, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    over, running = failed_job(home), home.submit(PROCESS)

    def offered(line: str) -> list[str]:
        monkeypatch.setenv("_COMAGENT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        return cli().out.split()

    assert offered("comagent show ") == [running, over]
    assert offered("comagent resume ") == [running]
    assert offered("comagent graph p") == [], "the shell offers files"
    assert offered("comagent even") == ["events"]
    assert offered("comagent graph p.yaml --format ") == ["text", "mermaid", "svg", "dot"]
    monkeypatch.setenv("COMAGENT_HOME", os.devnull)
    assert offered("comagent show ") == []
    monkeypatch.setenv("COMAGENT_CPUS", "many")
    assert offered("comagent show ") == []
