"""What the documentation says is true: its processes, programs, commands and expressions are run as they stand.

Each page is a folder: a process is the file that its name says, a Python block that begins with the comment `# name.py`
is a module. A `json` block after a process is its result. Other Python blocks go on from one another, with `client`.
"""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from comagent.cli.inputs import read_inputs
from comagent.client import Client
from comagent.config import Config
from comagent.errors import ExpressionError
from comagent.expressions import evaluate, parse
from comagent.ids import uuid7
from comagent.submission import prepare_file, submission

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")], key=lambda path: path.name)
NEEDS_RAY = {"run", "resume"}
WAIT_S = 60.0


class Block(NamedTuple):
    """A piece of code on a page."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it is, if it is a whole one."""
        if self.language == "yaml" and (name := re.match(r"name: *(.+)", self.text)):
            return f"{name[1]}.yaml"
        if self.language == "python" and (name := re.match(r"# (\w+\.py)\n", self.text)):
            return name[1]
        return None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], text.count("\n", 0, each.start()) + 1) for each in found]


def written(page: Path, folder: Path) -> list[Block]:
    """The blocks of a page, after its files were written to a folder."""
    found = blocks(page)
    for block in found:
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    (folder / "configs").symlink_to(ROOT / "configs")
    return found


def pages_with(language: str) -> list[Any]:
    return [pytest.param(page, id=page.stem) for page in PAGES if any(b.language == language for b in blocks(page))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, from which modules are imported; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_processes_are_valid_and_have_the_results_that_are_shown(client: Client, page: Path, folder: Path) -> None:
    found = written(page, folder)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "yaml" or block.file is None:
            continue
        process = prepare_file(folder / block.file)
        if after is not None and after.language == "json":
            assert client.submit(process).result(WAIT_S) == json.loads(after.text), f"{page.name}:{after.line}"


def test_the_picture_of_the_first_process_shows_its_graph() -> None:
    (picture,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "mermaid")
    drawn = re.findall(r"^ +(\w+) (?:-->|-\. .* \.->) (\w+)$", picture, re.MULTILINE)
    process = prepare_file(ROOT / "configs" / "processes" / "cluster-health.yaml").process

    assert sorted(drawn) == sorted((need, task.id) for task in process.tasks for need in task.needs)


@pytest.mark.parametrize("page", pages_with("python"))
def test_programs_run_piece_by_piece(
    client: Client, page: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "documentation", "client": client}
    for block in written(page, folder):
        if block.language == "python" and block.file is None and "comagent.connect()" not in block.text:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


def test_the_whole_program_runs(tmp_path: Path) -> None:
    programs = {block.text for page in PAGES for block in blocks(page) if "comagent.connect()" in block.text}
    assert len(programs) == 1, "one program, wherever it is shown: each takes a Ray of its own"
    (tmp_path / "program.py").write_text(programs.pop())
    done = _run(tmp_path, sys.executable, "program.py")

    assert (done.stdout, done.returncode) == ("{'count': 6}\n", 0), done.stderr


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_run_and_those_that_need_ray_are_given_what_they_want(page: Path, folder: Path) -> None:
    for block in written(page, folder):
        if block.language == "sh":
            for line in block.text.splitlines():
                _command(folder, line)


def _command(folder: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    environment = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value.replace("/tmp", str(folder))
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    if words[:1] != ["comagent"]:
        return
    if words[1] in NEEDS_RAY:
        if words[1] == "run":
            _check_run(words[2], words[3:])
        words = [words[0], words[1], "--help"]
    done = _run(folder, sys.executable, "-m", *words, **environment)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def _check_run(file: str, options: list[str]) -> None:
    """Whether a `comagent run` would start."""
    prepared = prepare_file(file)
    given = [value for option, value in pairwise(options) if option in ("--input", "-i")]
    submission(prepared, read_inputs(prepared.process, given, None), job_id=uuid7())


def _run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    home = {"COMAGENT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **home, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        check=False,
    )


EXPRESSIONS = (ROOT / "docs" / "expressions.md").read_text(encoding="utf-8")
SCOPE = next(json.loads(block.text) for block in blocks(ROOT / "docs" / "expressions.md") if block.language == "json")


def rows(title: str) -> list[tuple[str, str]]:
    """The rows of all tables of expressions whose second column has this title."""
    tables = re.findall(rf"^\| expression \| {title} \|\n.*\n((?:\|.*\n)+)", EXPRESSIONS, re.MULTILINE)
    cells = [re.split(r"(?<!\\)\|", line)[1:3] for table in tables for line in table.splitlines()]
    found = [(left.strip(" `").replace(r"\|", "|"), right.strip(" `")) for left, right in cells]
    assert found
    return found


@pytest.mark.parametrize(("expression", "result"), rows("result"))
def test_an_expression_has_the_result_that_is_shown(expression: str, result: str) -> None:
    value = evaluate(parse(expression), SCOPE)

    assert (value, type(value)) == (json.loads(result), type(json.loads(result)))


@pytest.mark.parametrize(("expression", "error"), rows("error"))
def test_a_wrong_expression_has_the_error_that_is_shown(expression: str, error: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(error)):
        evaluate(parse(expression), SCOPE)


def test_the_tables_that_are_made_from_the_code_are_up_to_date() -> None:
    done = _run(ROOT, sys.executable, "docs/generate.py", "--check")

    assert done.returncode == 0, done.stderr


def test_every_field_of_a_process_is_explained() -> None:
    assert "| ? |" not in (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")


def test_every_variable_is_explained_and_no_other() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "comagent").rglob("*.py"))
    used = set(re.findall(r"COMAGENT_[A-Z_]*[A-Z]", sources))
    used |= {str(field.validation_alias or f"COMAGENT_{name.upper()}") for name, field in Config.model_fields.items()}
    explained = re.findall(
        r"^\| `(COMAGENT_\w+)`", (ROOT / "docs/settings.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert sorted(explained) == sorted(used)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = page if not file else page.parent / file
        assert path.exists(), target
        if anchor:
            assert anchor in _anchors(path), target


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
