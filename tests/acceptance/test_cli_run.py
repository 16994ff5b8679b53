"""`comagent run`, and what the store tells of its jobs afterwards."""

import json
from pathlib import Path

from tests.acceptance.conftest import ROOT, Program

CLUSTER_HEALTH = str(ROOT / "configs" / "processes" / "cluster-health.yaml")

TOOLS = """
def broken(n: int) -> int:
    return 10 // n
"""
FAILS = """
name: fails
inputs: {n: {type: integer}, text: {type: string, default: none}}
tasks:
  - {id: divide, tool: "python:own_tools.broken", with: {n: "${inputs.n}"}, retry: {attempts: 2, delay: 10ms}}
  - {id: after, tool: debug.echo, with: {value: "${tasks.divide}"}}
  - {id: beside, tool: debug.echo, with: {value: "${inputs.text}"}}
outputs: {beside: "${tasks.beside}", divided: "${tasks.after}"}
"""


def test_a_process_runs_and_its_report_can_be_read(comagent: Program) -> None:
    done = comagent("run", CLUSTER_HEALTH, "--input", "disk_limit=0", "--input", "path=/")
    assert done.code == 0, done.err
    report, rest = done.out.split("\nfindings:\n", 1)
    assert report.startswith("report: |\n")
    assert "    CPU      [" in report
    assert "  Findings\n    1. " in report
    assert "- " in rest
    assert "percent: " in rest
    assert "findings: succeeded in" in done.err
    assert "hungry: skipped, because its condition is false" in done.err
    assert "7 succeeded, 1 skipped" in done.err
    assert "\x1b" not in done.out + done.err

    (job,) = json.loads(comagent("jobs", "--json").out)
    assert (job["process"], job["status"], job["has_owner"]) == ("cluster-health", "succeeded", False)
    shown = comagent("show", job["job_id"])
    assert shown.code == 0
    assert "disk_limit: 0" in shown.out
    assert "nothing" not in shown.out
    again = comagent("resume", job["job_id"], "--json")
    assert again.code == 0
    assert json.loads(again.out)["outputs"] == json.loads(comagent("show", job["job_id"], "--json").out)["outputs"]


def test_a_failed_job_says_what_failed_where_and_why(comagent: Program) -> None:
    comagent.write("own_tools.py", TOOLS)
    done = comagent("run", comagent.write("fails.yaml", FAILS), "-i", "n=0", "-i", "text=5", "--json", "--quiet")
    assert done.code == 1
    assert done.err == ""
    ended = json.loads(done.out)
    assert ended["status"] == "failed"
    assert ended["outputs"] is None
    assert ended["tasks"] == {"succeeded": 1, "failed": 1, "skipped": 1}
    (failure,) = ended["failures"]
    assert (failure["task"], failure["status"]) == ("divide", "failed")
    assert failure["error"].startswith("ZeroDivisionError: ")

    shown = comagent("show", ended["job_id"]).out
    assert f'File "{comagent.folder / "own_tools.py"}", line 3, in broken' in shown
    assert "attempt 1 of divide failed: ZeroDivisionError" in shown
    assert 'skipped, because task "divide" failed' in shown
    assert 'text: "5"' in shown, "an input of type string stays text"
    assert '"5"' in next(line for line in shown.splitlines() if line.startswith("beside"))
    listed = comagent("jobs", "--status", "failed").out
    assert ended["job_id"] in listed

    resumed = comagent("resume", ended["job_id"])
    assert resumed.code == 1
    assert "has ended already: failed" in resumed.err
    assert 'task "divide" failed: ZeroDivisionError' in resumed.err
    cancelled = comagent("cancel", ended["job_id"])
    assert cancelled.code == 2
    assert "nothing to cancel" in cancelled.err


def test_an_address_that_cannot_be_used_ends_with_exit_code_3(comagent: Program) -> None:
    done = comagent("run", CLUSTER_HEALTH, "--quiet", COMAGENT_ADDRESS="nowhere:1")
    assert (done.code, done.out) == (3, "")
    assert "cannot connect to nowhere:1" in done.err
    assert "Traceback" not in done.err


def test_a_home_that_cannot_be_used_is_named(comagent: Program, tmp_path: Path) -> None:
    comagent.write("a-file", "")
    done = comagent("run", CLUSTER_HEALTH, COMAGENT_HOME=str(tmp_path / "a-file"))
    assert (done.code, done.out) == (1, "")
    assert f"{tmp_path / 'a-file'}" in done.err
    assert "COMAGENT_HOME" in done.err
    assert "Traceback" not in done.err
