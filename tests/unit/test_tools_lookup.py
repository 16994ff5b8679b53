"""From a name in a process to a tool, and from its code to the tool again in another process."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comagent.errors import ToolDefinitionError, UnknownToolError
from comagent.tools import Code, ToolContext, tool
from comagent.tools.loading import load
from comagent.tools.registry import builtin_names, catalogue, resolve

CONTEXT = ToolContext("job", "task", 1, (1, 1), "key")


@tool(name="lookup.square", cost="cheap")
def square(number: int) -> int:
    return number * number


@pytest.fixture(autouse=True)
def _same_modules_and_path_afterwards() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or "pytest" in file:
            del sys.modules[name]
    sys.path[:] = path


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def run(*command: str, folder: Path) -> Any:
    """What a fresh Python process prints, read as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call_elsewhere(code: Code, arguments: dict[str, Any], *, folder: Path) -> Any:
    """The result of a call in a fresh process that knows nothing but the code."""
    script = (
        "import json, sys; from comagent.tools import Code, ToolContext; from comagent.tools.loading import load\n"
        "code, arguments = json.loads(sys.argv[1])\n"
        "context = ToolContext('job', 'task', 1, (1, 1), 'key')\n"
        "print(json.dumps(load(Code(*code)).call(arguments, context)))"
    )
    return run("-c", script, json.dumps([code, arguments]), folder=folder)


def test_built_in_tools_are_found_by_name() -> None:
    assert resolve("debug.echo").kind == "inline"
    assert {"debug.echo", "debug.sleep", "debug.fail", "system.disk", "text.render"} <= set(builtin_names())
    assert [spec.name for spec in catalogue()] == list(builtin_names()) == sorted(builtin_names())


def test_every_built_in_tool_says_what_it_does() -> None:
    assert all(spec.summary.endswith(".") and spec.code.root is None for spec in catalogue())


def test_a_declared_function_is_found_by_its_name() -> None:
    spec = resolve("lookup.square")
    assert (spec.name, spec.cost) == ("lookup.square", "cheap")
    assert load(spec.code).call({"number": 3}, CONTEXT) == 9


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownToolError, match=r'no tool is called "debug.ehco"\. Did you mean "debug.echo"'):
        resolve("debug.ehco")
    with pytest.raises(UnknownToolError, match=r"lookup\.square"):
        resolve("lookup.squar")


def test_a_python_function_beside_the_process_file_is_found_and_runs_in_another_process(tmp_path: Path) -> None:
    write(tmp_path / "helpers.py", "WORD = 'hello'")
    write(
        tmp_path / "mine" / "words.py",
        """
        from helpers import WORD

        def greet(name: str) -> str:
            from late import MARK
            return f"{WORD}, {name}{MARK}"
        """,
    )
    write(tmp_path / "late.py", "MARK = '!'")
    spec = resolve("python:mine.words.greet", base=tmp_path)
    assert spec.name == "python:mine.words.greet"
    assert spec.code[:3] == (str(tmp_path), "mine.words", "greet")
    assert call_elsewhere(spec.code, {"name": "Ada"}, folder=tmp_path.parent) == "hello, Ada!"


def test_functions_of_the_standard_library_are_tools_too() -> None:
    spec = resolve("python:os.path.basename")
    assert spec.code[:3] == (None, "posixpath", "basename")
    assert load(spec.code).call({"p": "/a/b"}, CONTEXT) == "b"


def test_an_imported_function_is_hashed_where_it_is_defined(tmp_path: Path) -> None:
    write(tmp_path / "defining_module.py", "def f(): return 1")
    write(tmp_path / "importing_module.py", "from defining_module import f")
    assert resolve("python:importing_module.f", base=tmp_path).code.module == "defining_module"


def test_methods_closures_and_partials_are_found_by_the_name_that_is_given(tmp_path: Path) -> None:
    write(
        tmp_path / "several_forms.py",
        """
        import functools

        class Api:
            @staticmethod
            def version() -> int: return 7

        def make(n):
            def add(x: int) -> int: return x + n
            return add

        add_two = make(2)
        parse = functools.partial(int, base=2)
        half = lambda x: x / 2
        """,
    )
    for name, arguments, value in (("Api.version", {}, 7), ("add_two", {"x": 1}, 3), ("half", {"x": 1}, 0.5)):
        code = resolve(f"python:several_forms.{name}", base=tmp_path).code
        assert call_elsewhere(code, arguments, folder=tmp_path) == value


BROKEN = {
    "fails_at_import.f": (
        "x = 1\nraise RuntimeError('no licence')",
        r"RuntimeError: no licence \(.*fails_at_import.py:2\)",
    ),
    "bad_syntax.f": ("def f(:\n  pass", r"SyntaxError: .* \(.*bad_syntax.py:1\)"),
    "needs_absent.f": ("import absent_package", r"No module named 'absent_package' \(.*needs_absent.py:1\)"),
    "exits.f": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "has_value.f": ("f = 3", "f is of type int, not a function"),
    "has_class.F": ("class F: pass", "it is a class, not a function"),
    "has_other.f": ("def g(): pass\ndef ff(): pass", 'module has_other has no "f". Did you mean "ff"'),
    "positional.f": ("def f(a, /): pass", "positional-only"),
}


@pytest.mark.parametrize("path", BROKEN)
def test_what_cannot_be_imported_or_called_is_told_with_its_line(tmp_path: Path, path: str) -> None:
    source, message = BROKEN[path]
    write(tmp_path / f"{path.split('.', maxsplit=1)[0]}.py", source)
    with pytest.raises(ToolDefinitionError, match=message):
        resolve(f"python:{path}", base=tmp_path)


@pytest.mark.parametrize("path", ["no_such_module.f", "json.no_such.f", "f", "", "a..b", "os.path.f", "json.decoder."])
def test_paths_that_lead_nowhere_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ToolDefinitionError, match=r"there is no module|is not the dotted path|has no"):
        resolve(f"python:{path}", base=tmp_path)


def test_an_import_that_failed_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "corrected.py", "raise RuntimeError")
    with pytest.raises(ToolDefinitionError):
        resolve("python:corrected.f", base=tmp_path)
    write(tmp_path / "corrected.py", "def f(): return 'well'")
    assert load(resolve("python:corrected.f", base=tmp_path).code).call({}, CONTEXT) == "well"


def test_edited_source_has_another_hash_and_the_old_code_is_refused(tmp_path: Path) -> None:
    def code() -> Code:
        script = (
            "import json; from comagent.tools.registry import resolve; "
            "print(json.dumps(resolve('python:edited.f').code))"
        )
        return Code(*run("-c", script, folder=tmp_path))

    write(tmp_path / "edited.py", "def f(): return 1")
    before = code()
    assert code() == before
    write(tmp_path / "edited.py", "def f(): return 2  # edited")
    after = code()
    assert after.source_hash != before.source_hash
    assert after[:3] == before[:3]
    with pytest.raises(ToolDefinitionError, match="its source is not the one it had"):
        load(before)
    assert load(after).call({}, CONTEXT) == 2


def test_modules_of_one_name_in_two_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for file in ("same_name.py", "same_package/__init__.py", f"same_package/{folder}.py"):
            write(tmp_path / folder / file, f"def f(): return {folder!r}")
    for path in ("same_name.f", "same_package.f"):
        codes = [resolve(f"python:{path}", base=tmp_path / folder).code for folder in ("one", "two")]
        assert [load(code).call({}, CONTEXT) for code in codes] == ["one", "two"]
    codes = [resolve(f"python:same_package.{folder}.f", base=tmp_path / folder).code for folder in ("one", "two")]
    assert [load(code).call({}, CONTEXT) for code in codes] == ["one", "two"]
    assert [call_elsewhere(code, {}, folder=tmp_path) for code in codes] == ["one", "two"]


DRIVER = """
    import json
    from dataclasses import dataclass
    import comagent.tools
    from comagent.tools import ToolContext, is_loading, tool
    from comagent.tools.loading import load
    from comagent.tools.registry import resolve

    @dataclass
    class Pair:
        a: int
        b: "int"

    @tool
    def added(pair: "Pair", context: ToolContext) -> int:
        return pair.a + pair.b

    loading = is_loading()

    @tool
    def was_loading() -> bool:
        return loading

    if __name__ == "__main__":
        code = resolve("added").code
        context = ToolContext("job", "task", 1, (1, 1), "key")
        here = load(code).call({"pair": {"a": 1, "b": 2}}, context)
        assert load(code).function is added
        print(json.dumps([code, resolve("was_loading").code, here]))
"""


def test_a_tool_of_the_drivers_file_is_found_by_the_file(tmp_path: Path) -> None:
    driver = write(tmp_path / "driver.py", DRIVER)
    added, was_loading, here = run("driver.py", folder=tmp_path)
    assert added[:3] == [str(tmp_path), str(driver), "added"]
    assert here == 3
    assert call_elsewhere(Code(*added), {"pair": {"a": 3, "b": 4}}, folder=tmp_path.parent) == 7
    assert call_elsewhere(Code(*was_loading), {}, folder=tmp_path.parent) is True


def test_a_tool_of_a_driver_that_runs_with_m_is_found_by_its_module(tmp_path: Path) -> None:
    write(tmp_path / "app" / "__init__.py", "")
    write(tmp_path / "app" / "driver.py", DRIVER)
    added, _, here = run("-m", "app.driver", folder=tmp_path)
    assert added[:3] == [str(tmp_path), "app.driver", "added"]
    assert here == 3
    assert call_elsewhere(Code(*added), {"pair": {"a": 3, "b": 4}}, folder=tmp_path.parent) == 7


def test_a_tool_typed_into_a_session_is_refused(tmp_path: Path) -> None:
    script = """
        import json
        from comagent.errors import ToolDefinitionError
        from comagent.tools import Tool
        def f(): return 1
        try:
            Tool(f)
        except ToolDefinitionError as error:
            print(json.dumps(str(error)))
    """
    assert "Put it into a file." in run("-c", textwrap.dedent(script), folder=tmp_path)


def test_a_file_that_is_gone_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ToolDefinitionError, match=r"gone.py cannot be read: No such file"):
        load(Code(str(tmp_path), str(tmp_path / "gone.py"), "f", "0" * 64))


def test_two_declared_functions_of_one_name_are_told_apart_by_asking(tmp_path: Path) -> None:
    for folder in ("first_of_two", "second_of_two"):
        write(
            tmp_path / f"{folder}.py",
            "from comagent.tools import tool\n@tool(name='lookup.twice')\ndef f() -> int: return 1\n",
        )
        resolve(f"python:{folder}.f", base=tmp_path)
    with pytest.raises(ToolDefinitionError, match="both have that name"):
        resolve("lookup.twice")
