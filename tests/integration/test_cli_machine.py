"""Commands about the machine and the project: `doctor`, `cleanup`, `init`, `agents`. None of them starts Ray."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from comagent.cli import main
from comagent.cli.orphans import bury
from comagent.coordination import OwnedProcess, boot_id, process_start_time, this_process
from comagent.coordination.runs import Run, Runs
from tests.jobs import STARTED_MS, Home
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PROCESS = {"name": "p", "tasks": [{"id": "a", "tool": "debug.echo", "with": {"value": 1}}]}


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COMAGENT_LEASE_TTL_S", "0.6")
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


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that somebody has to end."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            yield process
        finally:
            process.kill()


def owned(pid: int, name: str) -> OwnedProcess:
    start_time = until(lambda: process_start_time(pid))
    assert start_time is not None
    return OwnedProcess(pid, start_time, name)


GONE = OwnedProcess(2**22 + 1, 5.0, "driver")
"""A process that never was: no pid is so high."""


def session(home: Home, tmp_path: Path, shard: str, *processes: OwnedProcess, days: float = 0) -> Path:
    """The folder of a run's Ray, whose logs were last written so many days ago."""
    folder = tmp_path / "ray" / f"session_{shard}_{processes[0].pid}"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "worker-1-1-1.out").write_text("hello\n")
    old = time.time() - days * 86_400
    for path in (folder / "logs" / "worker-1-1-1.out", folder / "logs"):
        os.utime(path, (old, old))
    Runs(home.config.runs).write(Run(shard, str(folder), STARTED_MS, boot_id(), processes))
    return folder


def test_what_a_killed_run_has_left_is_ended_and_removed_once(
    home: Home, cli: Cli, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    left = owned(sleeper.pid, "raylet")
    home.lease("run-1", GONE, left)
    session(home, tmp_path, "run-1", GONE, left)
    expected = f"process {sleeper.pid} (raylet) of run-1", "lease of run-1"
    dry = cli("cleanup", "--dry-run")
    assert dry == (0, f"would be ended: {expected[0]}\nwould be removed: {expected[1]}\n", "")
    assert sleeper.poll() is None
    assert cli("cleanup") == (0, f"ended: {expected[0]}\nremoved: {expected[1]}\n", "")
    assert sleeper.wait(10) < 0
    assert home.coordination.leases() == []
    assert cli("cleanup") == (0, "", "nothing to clean up\n")


def test_a_run_whose_lease_is_gone_is_known_by_its_record(
    home: Home, cli: Cli, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    session(home, tmp_path, "run-1", GONE, owned(sleeper.pid, "raylet"))
    assert cli("cleanup").out == f"ended: process {sleeper.pid} (raylet) of run-1\n"
    assert sleeper.wait(10) < 0


def test_what_a_run_left_that_was_killed_while_it_ended_is_ended_by_the_next_one(
    home: Home, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    session(home, tmp_path, "run-1", GONE, owned(sleeper.pid, "raylet"))
    bury(home.coordination, Runs(home.config.runs))
    assert sleeper.wait(10) < 0


def test_processes_of_a_run_that_ended_well_are_not_looked_for(
    home: Home, cli: Cli, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    session(home, tmp_path, "run-1", GONE, owned(sleeper.pid, "raylet"))
    runs = Runs(home.config.runs)
    (run,) = runs.all()
    runs.write(run._replace(ended_ms=STARTED_MS))
    bury(home.coordination, runs)
    assert cli("cleanup").err == "nothing to clean up\n"
    assert sleeper.poll() is None


def test_nothing_of_a_living_run_is_touched(
    home: Home, cli: Cli, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    mine, child = this_process("driver"), owned(sleeper.pid, "raylet")
    home.lease("run-1", mine, child)
    folder = session(home, tmp_path, "run-1", mine, child, days=100)
    without_lease = session(home, tmp_path, "run-2", mine, child, days=100)
    assert cli("cleanup", "--older-than", "0s") == (0, "", "nothing to clean up\n")
    assert sleeper.poll() is None
    assert folder.is_dir()
    assert without_lease.is_dir()
    assert len(home.coordination.leases()) == 1


def test_a_process_that_only_has_the_number_of_one_of_ours_is_left_alone(
    home: Home, cli: Cli, sleeper: subprocess.Popen[bytes]
) -> None:
    other = owned(sleeper.pid, "raylet")._replace(start_time=1.0)
    home.lease("run-1", GONE, other)
    assert cli("cleanup").out == "removed: lease of run-1\n"
    assert sleeper.poll() is None


def test_a_lease_of_another_boot_counts_as_stale_when_it_stands_still(
    home: Home, cli: Cli, sleeper: subprocess.Popen[bytes]
) -> None:
    home.lease("run-1", owned(sleeper.pid, "driver"), boot="an earlier one")
    assert cli("cleanup").out == "removed: lease of run-1\n"
    assert sleeper.poll() is None, "its pids mean nothing here"


def test_logs_are_kept_for_a_day_or_as_long_as_one_says(home: Home, cli: Cli, tmp_path: Path) -> None:
    old = session(home, tmp_path, "run-1", GONE, days=3)
    young = session(home, tmp_path, "run-2", GONE, days=0.5)
    assert cli("cleanup").out == f"removed: logs of run-1, 3 d old: {old}\n"
    assert (old.exists(), young.exists()) == (False, True)
    assert [run.shard for run in Runs(home.config.runs).all()] == ["run-2"]
    assert cli("cleanup", "--older-than", "1h").out == f"removed: logs of run-2, 12 h old: {young}\n"
    refused = cli("cleanup", "--older-than", "soon")
    assert refused.code == 2
    assert '"soon" is no duration' in refused.err


def test_a_record_that_names_some_other_folder_removes_nothing(home: Home, cli: Cli, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "logs").mkdir(parents=True)
    link = tmp_path / f"session_1_{GONE.pid}"
    link.symlink_to(precious)
    for number, folder in enumerate((precious, link)):
        Runs(home.config.runs).write(Run(f"run-{number}", str(folder), STARTED_MS, boot_id(), (GONE,)))
    assert cli("cleanup", "--older-than", "0s") == (0, "", "nothing to clean up\n")
    assert (precious / "logs").is_dir()


def test_a_record_without_logs_and_files_that_were_never_finished_go(home: Home, cli: Cli) -> None:
    Runs(home.config.runs).write(Run("run-1", "/nowhere/session_1", STARTED_MS, boot_id(), (GONE,)))
    folder = home.config.documents / "ab"
    folder.mkdir(parents=True)
    for name in (".new-old", ".new-young", "abcdef"):
        (folder / name).write_text("")
    two_days_ago = time.time() - 2 * 86_400
    for name in (".new-old", "abcdef"):
        os.utime(folder / name, (two_days_ago, two_days_ago))
    lines = cli("cleanup").out.splitlines()
    assert lines == [
        "removed: record of run-1, whose logs are gone",
        f"removed: {folder}/.new-old, never finished, 2 d old",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [".new-young", "abcdef"]


def findings(cli: Cli) -> dict[str, tuple[str, str, str]]:
    return {
        each["what"]: (each["status"], each["told"], each["remedy"]) for each in json.loads(cli("doctor", "--json").out)
    }


def test_a_healthy_machine_is_told_so(home: Home, cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 0, done.out
    assert re.search(r"^ok      Ray: \d", done.out, re.MULTILINE)
    assert f"ok      store: {home.config.store_url}, schema 1\n" in done.out
    assert {"Python", "ComAgent", "Ray", "uv", "home", "coordination", "open files", "network"} <= set(findings(cli))


def test_what_earlier_runs_have_left_is_a_warning(home: Home, cli: Cli) -> None:
    home.lease("run-1", GONE)
    home.submit(PROCESS)
    found = findings(cli)
    assert found["earlier runs"][:2] == ("warning", "1 thing left behind: lease of run-1")
    assert found["jobs"] == ("warning", "1 unfinished job that nobody runs", "`comagent resume --all` goes on.")
    assert cli("doctor").code == 0
    assert len(home.coordination.leases()) == 1, "a doctor only looks"


def test_a_store_that_cannot_be_used_is_broken(home: Home, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("diary.db").write_text("dear diary" * 1000)
    monkeypatch.setenv("COMAGENT_STORE_URL", f"sqlite:///{Path('diary.db').absolute()}")
    done = cli("doctor")
    assert done.code == 1
    assert "broken  store: " in done.out
    assert "diary.db" in done.out
    assert done.out.splitlines()[-1].startswith("1 broken")


def test_a_home_that_cannot_be_written_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "file"))
    assert findings(cli)["home"][0] == "broken"
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "file" / "below"))
    assert findings(cli)["home"][0] == "broken"


def test_a_wrong_setting_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_AGENTS", "0")
    status, told, _ = findings(cli)["settings"]
    assert status == "broken"
    assert "COMAGENT_AGENTS=0" in told


def test_the_doctor_does_without_ray(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; sys.argv[1:] = ['doctor']\nfrom comagent.cli import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "COMAGENT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "broken  Ray: it cannot be imported: ModuleNotFoundError" in done.stdout
    assert "ok      network" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_new_project_is_valid_and_has_a_tool_of_its_own(home: Home, cli: Cli) -> None:
    done = cli("init", "new/project")
    assert (done.code, done.err) == (0, "")
    folder = Path("new", "project")
    assert {path.name for path in folder.iterdir()} == {
        "process.yaml",
        "tools.py",
        "driver.py",
        "README.md",
        ".gitignore",
    }
    assert "python:tools.count_words" in cli("validate", str(folder / "process.yaml")).out
    compiled = subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=False)
    assert compiled.returncode == 0


def test_a_project_overwrites_nothing(home: Home, cli: Cli) -> None:
    Path("tools.py").write_text("mine")
    done = cli("init")
    assert done.code == 2
    assert "has tools.py already" in done.err
    assert Path("tools.py").read_text() == "mine"
    assert not Path("process.yaml").exists()
    Path("file").write_text("")
    assert "cannot be written" in cli("init", "file").err


def test_agents_of_the_project_come_with_those_of_comagent(home: Home, cli: Cli) -> None:
    folder = Path("configs", "agents")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("{id: mine, capabilities: [guess], tools: [debug.echo]}")
    shown = re.sub(r" +", " ", cli("agents").out)
    assert "mine debug.echo guess\n" in shown
    listed = {agent["id"]: agent for agent in json.loads(cli("agents", "--json").out)}
    assert listed["mine"]["capabilities"] == ["guess"]
    assert len(listed) > 1
    (folder / "mine.yaml").write_text("{id: mine, tols: []}")
    broken = cli("agents")
    assert broken.code == 2
    assert "mine.yaml" in broken.err


def test_only_the_processes_of_this_test_are_ended() -> None:
    """The pid that stands for a dead process here is really nobody's."""
    assert not psutil.pid_exists(GONE.pid)


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], {"ray", "sqlalchemy", "networkx", "psutil", "yaml"}),
        (["graph", "p.json"], {"ray", "sqlalchemy", "networkx"}),
        (["agents"], {"ray", "sqlalchemy", "networkx"}),
        (["init", "project"], {"ray", "sqlalchemy", "networkx", "psutil"}),
        (["cleanup"], {"ray", "networkx"}),
    ],
)
def test_a_command_imports_only_what_it_needs(tmp_path: Path, arguments: list[str], unneeded: set[str]) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PROCESS))
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from comagent.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print(*sorted({unneeded!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "COMAGENT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ""
