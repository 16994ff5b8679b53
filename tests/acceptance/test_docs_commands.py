"""Every command line in docs/command-line.md runs as it stands, one after the other, in a new project."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import PROGRAM, ROOT, Program

PAGE = ROOT / "docs" / "command-line.md"
ANY_JOB = "019a4c1e-7d31-7c55-9b0e-2f6a51c3d8e4"
FAILING = {"cancel": 2}
"""Exit codes of commands that have nothing to do here."""


def command_lines() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def in_order(lines: list[str]) -> list[str]:
    """Commands about a job after those that run one, and then as they are written."""
    return sorted(lines, key=lambda line: (ANY_JOB in line, "--older-than" in line))


def test_every_command_is_explained() -> None:
    shown = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True, env=_wide()).stdout
    commands = set(re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE))
    assert {"run", "graph", "doctor"} <= commands
    assert commands - {line.split()[1] for line in command_lines() if line.startswith("comagent ")} == set()


@pytest.mark.timeout(300)
def test_every_command_line_of_the_page_runs(comagent: Program, tmp_path: Path) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    script = binaries / "comagent"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m comagent "$@"\n')
    script.chmod(0o755)
    environment = {**comagent.environment, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    folder, job = tmp_path, ANY_JOB
    for line in in_order(command_lines()):
        if line.startswith("cd "):
            folder /= line.split()[1]
            continue
        if ANY_JOB in line and job == ANY_JOB:
            job = json.loads(comagent("jobs", "--json").out)[0]["job_id"]
        done = subprocess.run(
            ["sh", "-c", line.replace(ANY_JOB, job)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == FAILING.get(line.split()[1], 0), f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, line
    drawings = {"words.svg", "words.dot", "job.svg"}
    assert drawings <= {path.name for path in folder.iterdir()}


def _wide() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100"}
