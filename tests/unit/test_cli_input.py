"""What the command line makes of wrong input: a message that helps, exit code 2, no traceback, no Ray."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from comagent.cli import main
from comagent.cli.inputs import read_inputs
from comagent.spec import parse


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Calls the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["comagent", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


def refused(cli: Cli, text: str, *, name: str = "p.yaml") -> str:
    """The message for a process that neither `validate` nor `run` accepts."""
    Path(name).write_text(text, encoding="utf-8")
    validated, run = cli("validate", name), cli("run", name)
    assert (validated.code, validated.out) == (2, "")
    assert (run.code, run.out) == (2, "")
    assert run.err.removeprefix("comagent: ") == validated.err
    return validated.err


ECHO = "tool: debug.echo, with: {value: 1}"
WRONG = {
    "a cycle": (
        f"name: p\ntasks:\n- {{id: a, needs: [c], {ECHO}}}\n"
        f"- {{id: b, needs: [a], {ECHO}}}\n- {{id: c, needs: [b], {ECHO}}}\n",
        ["p.yaml:", "→"],
    ),
    "an unknown task": (
        f"name: p\ntasks:\n- {{id: fetch, {ECHO}}}\n- {{id: b, needs: [fetc], {ECHO}}}\n",
        ["p.yaml:4:", 'task "b"', '"fetc"', 'Did you mean "fetch"?'],
    ),
    "an id twice": (f"name: p\ntasks:\n- {{id: a, {ECHO}}}\n- {{id: a, {ECHO}}}\n", ["p.yaml:4:", '"a"']),
    "an unknown tool": (
        "name: p\ntasks:\n- {id: a, tool: debug.ecko, with: {value: 1}}\n",
        ["p.yaml:3:", '"debug.ecko"', 'Did you mean "debug.echo"'],
    ),
    "a missing argument": ("name: p\ntasks:\n- {id: a, tool: debug.echo}\n", ["p.yaml:3:", 'task "a"', "value"]),
    "a surplus argument": (
        "name: p\ntasks:\n- {id: a, tool: debug.echo, with: {value: 1, valeu: 2}}\n",
        ["p.yaml:3:", "valeu", "value"],
    ),
    "an argument of a wrong type": (
        "name: p\ntasks:\n- {id: a, tool: debug.sleep, with: {seconds: soon}}\n",
        ["p.yaml:3:", "seconds"],
    ),
    "a reference to a task beside it": (
        f"name: p\ntasks:\n- {{id: a, {ECHO}}}\n- {{id: b, {ECHO}}}\n"
        '- {id: c, needs: [a], tool: debug.echo, with: {value: "${tasks.b}"}}\n',
        ["p.yaml:5:", 'task "c"', '"b"'],
    ),
    "an expression that is none": (
        'name: p\ntasks:\n- {id: a, tool: debug.echo, with: {value: "${1 +}"}}\n',
        ["p.yaml:3:", "${1 +}"],
    ),
    "YAML that is none": ("name: p\ntasks: [\n", ["p.yaml:"]),
    "an unknown key": (f"name: p\ntsks: []\ntasks:\n- {{id: a, {ECHO}}}\n", ["p.yaml:2:", "tsks", "tasks"]),
    "no tasks": ("", ["p.yaml", "empty"]),
    "nesting without end": ("[" * 100_000, ["p.yaml:", "nested"]),
    "control characters": ("name: p\x1b[31m\ntasks: []\n", ["p.yaml"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_process_is_refused_with_the_place_and_a_remedy(cli: Cli, what: str) -> None:
    text, expected = WRONG[what]
    message = refused(cli, text)
    for part in expected:
        assert part in message
    assert "\x1b" not in message


def test_json_that_is_none_is_refused_with_line_and_column(cli: Cli) -> None:
    assert "p.json:2:9:" in refused(cli, '{"name": "p",\n"tasks" []}', name="p.json")


def test_a_document_of_50_megabytes_is_refused_before_it_is_read(cli: Cli) -> None:
    with Path("p.yaml").open("wb") as file:
        file.truncate(50_000_000)
    result = cli("run", "p.yaml")
    assert result.code == 2
    assert "p.yaml" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "missing.yaml"], "there is no such file"),
        (["validate", "."], "this is a folder"),
        (["run"], "Missing argument"),
        (["ruin"], "No such command"),
        (["resume"], "--all"),
        (["resume", "a-job", "--all"], "--all"),
        (["resume", "a-job"], 'no job has the id "a-job"'),
        (["show", "a-job"], 'no job has the id "a-job"'),
        (["cancel", "a-job"], 'no job has the id "a-job"'),
        (["jobs", "--status", "runing"], 'there is no status "runing"'),
        (["jobs", "--limit", "0"], "--limit"),
        (["tools", "show", "debug.ecko"], 'Did you mean "debug.echo"'),
    ],
)
def test_bad_usage_is_explained(cli: Cli, arguments: list[str], expected: str) -> None:
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


def test_looking_at_an_empty_store_makes_none(cli: Cli) -> None:
    assert cli("jobs", "--json") == (0, "[]\n", "")
    assert cli("jobs").err == "no jobs\n"
    assert cli("resume", "--all").err == "nothing to resume\n"
    assert not Path("home").exists()


def test_a_wrong_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_CPUS", "many")
    result = cli("jobs")
    assert result.code == 2
    assert "COMAGENT_CPUS=many" in result.err


def test_a_file_that_is_no_store_is_left_alone(cli: Cli) -> None:
    Path("home").mkdir()
    Path("home", "store.db").write_text("a diary" * 1000)
    result = cli("jobs")
    assert result.code == 1
    assert "store.db" in result.err
    assert Path("home", "store.db").read_text().startswith("a diary")


def test_all_problems_of_all_files_are_told_and_valid_files_too(cli: Cli) -> None:
    Path("good.yaml").write_text(f"name: good\ntasks:\n- {{id: a, {ECHO}}}\n")
    Path("bad.yaml").write_text("name: bad\ntasks:\n- {id: a, tool: nothing.at.all}\n- {id: b, tool: debug.echo}\n")
    result = cli("validate", "good.yaml", "bad.yaml")
    assert result.code == 2
    assert result.out == "good.yaml: good, 1 task, tools: debug.echo\n"
    assert "bad.yaml:3:" in result.err
    assert "bad.yaml:4:" in result.err


INPUTS = """
name: p
inputs: {n: {type: integer}, s: {type: string, default: ""}}
tasks: [{id: a, tool: debug.echo, with: {value: "${inputs.n}"}}]
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "this input is required"),
        (["-i", "n=abc"], "must be a whole number"),
        (["-i", "n=1.5"], "must be a whole number"),
        (["-i", "n=NaN"], "must be a whole number"),
        (["-i", "n"], "write name=value"),
        (["-i", "=1"], "write name=value"),
        (["-i", "n=1", "-i", "n=2"], "given twice"),
        (["-i", "n=1", "-i", "m=2"], "no such input"),
        (["--inputs", "missing.json"], "missing.json"),
        (["--inputs", "broken.json"], "broken.json:2:"),
        (["--inputs", "list.json"], "does not hold an object"),
        (["--inputs", "deep.json"], "nested too deeply"),
        (["--inputs", "latin.json"], "not UTF-8"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(cli: Cli, arguments: list[str], expected: str) -> None:
    Path("p.yaml").write_text(INPUTS)
    Path("broken.json").write_text('{"n":\n1,}')
    Path("list.json").write_text("[1]")
    Path("deep.json").write_text("[" * 200_000)
    Path("latin.json").write_bytes(b'{"s": "\xe9"}')
    result = cli("run", "p.yaml", *arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err


def test_inputs_are_text_or_json_as_the_process_declares_them(tmp_path: Path) -> None:
    types = {"s": "string", "n": "number", "b": "boolean", "o": "object", "l": "array", "x": "any"}
    process = parse(
        {
            "name": "p",
            "inputs": {name: {"type": kind} for name, kind in types.items()},
            "tasks": [{"id": "a", "tool": "debug.echo"}],
        }
    )
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps({"n": 1, "b": False}))
    given = ["s=12", "n=2", 'o={"k": [1]}', "l=[]", "x=free text=1"]
    inputs = read_inputs(process, given, file)
    assert inputs == {"s": "12", "n": 2, "b": False, "o": {"k": [1]}, "l": [], "x": "free text=1"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["tools"], ["validate", "p.yaml"]])
def test_what_needs_no_ray_does_not_import_it(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "p.yaml").write_text(f"name: p\ntasks:\n- {{id: a, {ECHO}}}\n")
    root = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); sys.argv[1:] = {arguments!r}\n"
        "from comagent.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        'assert "ray" not in sys.modules\n'
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
