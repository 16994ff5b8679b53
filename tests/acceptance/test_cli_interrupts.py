"""Signals to `comagent run`, and `comagent resume` of what they leave."""

import json
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.acceptance.conftest import Program

TOOLS = """
import asyncio
from pathlib import Path

FOLDER = Path(__file__).parent

def note(what: str) -> str:
    with (FOLDER / "notes.txt").open("a") as notes:
        notes.write(what + "\\n")
    return what

async def held(value: str) -> str:
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.02)
    return value
"""
WAITS = """
name: waits
inputs: {who: {type: string}}
tasks:
  - {id: before, tool: "python:own_tools.note", with: {what: "${inputs.who}"}}
  - {id: wait, tool: "python:own_tools.held", with: {value: "${tasks.before}"}}
outputs: {who: "${tasks.wait}"}
"""


@pytest.fixture
def waits(comagent: Program) -> Program:
    """The program, with a process that notes who it runs for and then waits for a file called `go`."""
    comagent.write("own_tools.py", TOOLS)
    comagent.write("waits.yaml", WAITS)
    return comagent


def jobs(program: Program) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(program("jobs", "--json").out)
    return listed


def notes(program: Program) -> list[str]:
    return (program.folder / "notes.txt").read_text().split()


def test_ctrl_c_cancels_the_job(waits: Program) -> None:
    with waits.terminal("run", "waits.yaml", "-i", "who=me") as terminal:
        terminal.until("wait +running")
        for process in psutil.Process(terminal.pid).children():
            assert os.getpgid(process.pid) == terminal.pid, "the terminal sends the signal to these too"
        terminal.press("\x03")
        assert terminal.ended() == 130
    assert "cancelling the job" in terminal.screen
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l"), "the cursor is hidden"
    (job,) = jobs(waits)
    assert job["status"] == "cancelled"


def test_whatever_stops_a_run_at_once_its_jobs_can_be_resumed(waits: Program) -> None:
    with waits.terminal("run", "waits.yaml", "-i", "who=two-interrupts") as terminal:
        terminal.until("wait +running")
        # Or the job would be cancelled before anybody can press a key twice.
        below = psutil.Process(terminal.pid).children(recursive=True)
        (scheduler,) = [process for process in below if process.name().startswith("ray::Scheduler")]
        scheduler.suspend()
        terminal.press("\x03")
        terminal.until("cancelling the job")
        terminal.press("\x03")
        assert terminal.ended() == 130
        assert "comagent resume" in terminal.screen
    with waits.terminal("run", "waits.yaml", "-i", "who=terminated") as terminal:
        terminal.until("wait +running")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.ended() == 143
        assert "comagent resume" in terminal.screen
        assert "SIGTERM received" not in terminal.screen
    with waits.terminal("run", "waits.yaml", "-i", "who=hung-up") as terminal:
        terminal.until("wait +running")
        assert terminal.hang_up() == 129
    assert waits.processes() == []
    left = jobs(waits)
    assert [(job["status"], job["has_owner"]) for job in left] == [("running", False)] * 3
    assert waits("jobs").out.count("resumable") == 3

    waits.write("go", "")
    resumed = waits("resume", "--all", "--json")
    assert resumed.code == 0, resumed.err
    ends = json.loads(resumed.out)
    assert [end["job_id"] for end in ends] == sorted(str(job["job_id"]) for job in left)
    assert [end["outputs"]["who"] for end in ends] == ["two-interrupts", "terminated", "hung-up"]
    assert sorted(notes(waits)) == ["hung-up", "terminated", "two-interrupts"], "finished work was repeated"
    nothing = waits("resume", "--all")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing to resume\n")


def test_a_live_run_keeps_its_jobs_and_a_killed_one_loses_them(waits: Program, until: Callable[..., None]) -> None:
    with waits.terminal("run", "waits.yaml", "-i", "who=me") as terminal:
        terminal.until("wait +running")
        (job,) = jobs(waits)
        job_id = str(job["job_id"])
        assert job["has_owner"] is True
        for command in ("resume", "cancel"):
            refused = waits(command, job_id)
            assert (refused.code, refused.out) == (2, "")
            assert f"process {terminal.pid}" in refused.err
        assert waits("resume", "--all").err == "nothing to resume\n"
        # A stopped process cannot end by itself, as a kind one would when its driver is gone.
        orphans = psutil.Process(terminal.pid).children(recursive=True)
        for process in orphans:
            process.suspend()
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.ended() == -signal.SIGKILL
    waits.write("go", "")
    resumed = waits("resume", job_id)
    assert (resumed.code, resumed.out) == (0, "me\n"), resumed.err
    assert notes(waits) == ["me"], "finished work was repeated"
    until(lambda: not any(is_running(process) for process in orphans))


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
