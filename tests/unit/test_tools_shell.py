"""`shell.run`: which programs run, with what, and that nothing is left of them."""

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from comagent.errors import ArgumentError
from comagent.tools import ToolContext
from comagent.tools.loading import load
from comagent.tools.registry import resolve
from comagent.tools.shell import ProgramFailedError, ProgramRefusedError
from comagent.tools.workspace import PathRefusedError


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    monkeypatch.setenv("COMAGENT_WORKSPACE", str(path))
    for name in ("COMAGENT_SHELL_ALLOW", "COMAGENT_SHELL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def sh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator allows what could do anything."""
    monkeypatch.setenv("COMAGENT_SHELL_ALLOW", "sh, cat, env, pwd, sleep, yes")


async def run(*command: str, **options: Any) -> Any:
    arguments = {"command": list(command), **options}
    return await load(resolve("shell.run").code).call(arguments, ToolContext("job", "task", 1, (1, 1), "key"))


async def test_a_program_gets_its_arguments_as_they_are(workspace: Path) -> None:
    hostile = ("a; touch b", "$(touch b)", "`touch b`", "| touch b", "> b", "*", "~", "$HOME", "-n", "'\"", "\n&&")
    ended = await run("echo", "x", *hostile)
    schema = resolve("shell.run").returns
    assert schema is not None
    jsonschema.validate(ended, schema)
    assert ended["stdout"] == " ".join(("x", *hostile)) + "\n"
    assert (ended["code"], ended["stderr"], ended["truncated"]) == (0, "", False)
    assert list(workspace.iterdir()) == []  # noqa: ASYNC240  # nothing else runs in this loop


async def test_a_command_is_a_list_and_not_a_line() -> None:
    with pytest.raises(ArgumentError, match='"command" should be a valid list'):
        await load(resolve("shell.run").code).call({"command": "echo x"}, None)
    with pytest.raises(ProgramRefusedError, match='"echo x" is not among the programs that may run'):
        await run("echo x")
    with pytest.raises(ArgumentError, match="at least 1 item"):
        await run()
    with pytest.raises(ArgumentError, match="zero byte"):
        await run("echo", "a\0b")


@pytest.mark.parametrize(
    "name", ["sh", "python3", "cat", "rm", "/bin/sh", "./echo", "../echo", "bin/echo", "", "echo;sh", "ECHO"]
)
async def test_a_program_that_is_not_allowed_does_not_run(name: str, workspace: Path) -> None:
    (workspace / "echo").write_text("#!/bin/sh\necho mine")
    (workspace / "echo").chmod(0o755)
    with pytest.raises(ProgramRefusedError, match=r"add it to COMAGENT_SHELL_ALLOW where the agents run"):
        await run(name)


async def test_the_operators_list_takes_the_place_of_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho $0 $1")
    script.chmod(0o755)
    monkeypatch.setenv("COMAGENT_SHELL_ALLOW", f"cat, {script}, no-such-program")
    assert (await run(str(script), "x"))["stdout"] == f"{script} x\n"
    with pytest.raises(ProgramRefusedError, match=f'"echo" is not among the programs that may run: {script}, cat, no-'):
        await run("echo")
    with pytest.raises(ProgramRefusedError, match='"no-such-program" may run, but is not installed'):
        await run("no-such-program")
    monkeypatch.setenv("COMAGENT_SHELL_ALLOW", "")
    with pytest.raises(ProgramRefusedError, match="may run: none"):
        await run("echo")


async def test_a_program_in_the_working_folder_is_not_found_by_its_name(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "mine").write_text("#!/bin/sh\necho mine")
    (workspace / "mine").chmod(0o755)
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("COMAGENT_SHELL_ALLOW", "mine")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}{workspace.name}{os.pathsep}/bin")
    with pytest.raises(ProgramRefusedError, match="Nothing of that name is in /bin"):
        await run("mine")


@pytest.mark.usefixtures("sh")
async def test_the_environment_is_small_and_holds_no_secrets(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/secret")
    ended = await run("env", env={"TZ": "UTC", "LC_ALL": "C", "LANG": "C"})
    found = dict(line.split("=", 1) for line in ended["stdout"].splitlines())
    assert found.pop("PATH")
    assert found == {"HOME": str(workspace), "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


@pytest.mark.usefixtures("sh")
async def test_only_harmless_variables_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LD_PRELOAD",
        "PATH",
        "HOME",
        "BASH_ENV",
        "PYTHONPATH",
        "GIT_SSH_COMMAND",
        "",
        "LC_ALL=x\nPATH",
        "LC_",
    ):
        with pytest.raises(ProgramRefusedError, match="is not among the variables that processes may set"):
            await run("env", env={name: "x"})
    monkeypatch.setenv("COMAGENT_SHELL_ENV", "MODE, API_URL")
    assert "API_URL=x\n" in (await run("env", env={"API_URL": "x"}))["stdout"]


@pytest.mark.usefixtures("sh")
async def test_it_runs_in_the_workspace_or_in_a_folder_of_it(workspace: Path, tmp_path: Path) -> None:
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "link").symlink_to(tmp_path)
    assert (await run("pwd"))["stdout"] == f"{workspace}\n"
    assert (await run("pwd", cwd="a/b"))["stdout"] == f"{workspace}/a/b\n"
    for path in ("..", "/tmp", "link"):
        with pytest.raises(PathRefusedError):
            await run("pwd", cwd=path)
    with pytest.raises(FileNotFoundError, match="there is no folder c in the workspace"):
        await run("pwd", cwd="c")


@pytest.mark.usefixtures("sh")
async def test_standard_input_is_what_was_given_or_empty() -> None:
    text = "Grüße\n" * 50_000
    ended = await run("cat", input=text, max_output=1_000_000)
    assert ended["stdout"] == text
    assert (await run("cat"))["stdout"] == ""
    assert (await run("sh", "-c", "exit 0", input=text * 10))["code"] == 0


@pytest.mark.usefixtures("sh")
async def test_output_is_cut_while_the_program_goes_on() -> None:
    ended = await run("sh", "-c", "yes x | head -c 1000000; echo late >&2; exit 3", max_output=5)
    assert (ended["stdout"], ended["stderr"], ended["truncated"], ended["code"]) == ("x\nx\nx", "late\n", True, 3)
    ended = await run("sh", "-c", "printf 12345", max_output=5)
    assert (ended["stdout"], ended["truncated"]) == ("12345", False)
    assert (await run("sh", "-c", r"printf '\377'"))["stdout"] == "\ufffd"


@pytest.mark.usefixtures("sh")
async def test_the_code_is_that_of_the_program_even_if_it_kills_all_around_it() -> None:
    assert (await run("sh", "-c", "exit 7"))["code"] == 7
    assert (await run("sh", "-c", "kill -SEGV $$"))["code"] == -signal.SIGSEGV
    assert (await run("sh", "-c", "kill -TERM 0; sleep 60"))["code"] == -signal.SIGTERM
    assert (await run("sh", "-c", "kill -KILL 0"))["code"] == -signal.SIGKILL


@pytest.mark.usefixtures("sh")
async def test_a_code_that_is_not_expected_is_an_error() -> None:
    assert (await run("sh", "-c", "exit 1", expect=[0, 1]))["code"] == 1
    with pytest.raises(ProgramFailedError, match='"sh" ended with code 2, after it had written: no such thing'):
        await run("sh", "-c", "echo no such thing >&2; exit 2", expect=[0, 1])


async def test_a_program_that_cannot_be_started_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("neither a script nor a program")
    broken.chmod(0o755)
    monkeypatch.setenv("COMAGENT_SHELL_ALLOW", f"{broken},{tmp_path}/gone,echo")
    with pytest.raises(ProgramFailedError, match="cannot be started: Exec format error"):
        await run(str(broken))
    with pytest.raises(ProgramFailedError, match="cannot be started: No such file or directory"):
        await run(f"{tmp_path}/gone")
    with pytest.raises(ProgramFailedError, match="cannot be started: Argument list too long"):
        await run("echo", "x" * 10_000_000)


@pytest.mark.usefixtures("sh")
async def test_a_program_that_takes_too_long_is_ended_with_what_it_has_started(workspace: Path) -> None:
    script = "sleep 61 & sleep 61 & trap '' TERM INT HUP; echo begun; sleep 61"
    with pytest.raises(TimeoutError, match=r'"sh" was ended after 0\.5 s, after it had written: begun'):
        await run("sh", "-c", script, timeout_s=0.5)
    assert running_in(workspace) == []


@pytest.mark.usefixtures("sh")
async def test_a_program_that_stops_itself_is_ended_too(workspace: Path) -> None:
    with pytest.raises(TimeoutError):
        await run("sh", "-c", "kill -STOP 0", timeout_s=0.3)
    assert running_in(workspace) == []


@pytest.mark.usefixtures("sh")
async def test_what_a_program_leaves_behind_ends_with_it(workspace: Path) -> None:
    ended = await run("sh", "-c", "sleep 62 & echo done")
    assert (ended["stdout"], ended["code"]) == ("done\n", 0)
    assert running_in(workspace) == []


@pytest.mark.usefixtures("sh")
async def test_it_ends_when_the_call_is_cancelled(workspace: Path) -> None:
    call = asyncio.ensure_future(run("sh", "-c", "echo > begun; sleep 63"))
    await until((workspace / "begun").exists)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert running_in(workspace) == []


@pytest.mark.usefixtures("sh")
async def test_it_ends_when_the_process_that_asked_for_it_is_killed(workspace: Path) -> None:
    script = (
        "import asyncio; from comagent.tools.shell import run\nasyncio.run(run(['sh', '-c', 'echo > begun; sleep 64']))"
    )
    asking = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await until((workspace / "begun").exists)
    asking.kill()
    await asking.wait()
    await until(lambda: running_in(workspace) == [])


@pytest.mark.usefixtures("sh")
async def test_many_run_at_once_and_leave_nothing_open() -> None:
    await run("cat")
    before = psutil.Process().num_fds()
    ended = await asyncio.gather(*(run("cat", input=str(number)) for number in range(20)))
    assert [each["stdout"] for each in ended] == [str(number) for number in range(20)]
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("error", [ProgramRefusedError("x", "is not", "Do."), ProgramFailedError("x", "is gone")])
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # what it waits for is another process
            await asyncio.sleep(0.001)


def running_in(folder: Path) -> list[psutil.Process]:
    """Processes whose home is the folder, which are those that the tool has started."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("HOME")
        except psutil.Error:
            continue
        if home == str(folder):
            found.append(process)
    return found
