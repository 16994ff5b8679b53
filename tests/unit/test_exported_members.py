"""`import comagent` is the front door: what it shows is what it promises."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import comagent

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON_BLOCK = re.compile(r"^```python$(.*?)^```$", re.DOTALL | re.MULTILINE)
MENTION = re.compile(r"\bcomagent\.([A-Za-z_]\w*)")


def is_submodule(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__.startswith("comagent.")


def test_exported_names_are_sorted_and_unique() -> None:
    assert list(comagent.__all__) == sorted(set(comagent.__all__))


def test_every_exported_name_exists() -> None:
    assert [name for name in comagent.__all__ if not hasattr(comagent, name)] == []


def test_no_public_name_leaks() -> None:
    needed_inside = {"TYPE_CHECKING", "Any", "importlib"}
    public = {name for name, value in vars(comagent).items() if not name.startswith("_") and not is_submodule(value)}
    public -= needed_inside
    assert public - set(comagent.__all__) == set()


def test_every_exported_class_and_function_has_a_docstring_of_its_own() -> None:
    exported = {name: getattr(comagent, name) for name in comagent.__all__}
    bare = [name for name, value in exported.items() if inspect.isroutine(value) and not value.__doc__]
    bare += [name for name, value in exported.items() if inspect.isclass(value) and not vars(value).get("__doc__")]
    assert bare == []


def test_every_name_in_a_documented_example_is_exported() -> None:
    blocks = [block for path in DOCUMENTS for block in PYTHON_BLOCK.findall(path.read_text(encoding="utf-8"))]
    mentioned = {name for block in blocks for name in MENTION.findall(block)}
    submodules = {path.stem for path in (ROOT / "comagent").iterdir()}
    assert mentioned - submodules - set(comagent.__all__) == set()


def test_importing_comagent_imports_neither_ray_nor_a_web_framework() -> None:
    code = "import sys, comagent; print(*({'ray', 'fastapi', 'starlette'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []
