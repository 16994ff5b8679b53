"""Imports go one way: what each part of ComAgent may import of the others, of its dependencies and of Python."""

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"comagent": "comagent", "comagent.actors": "actors", "comagent.serve": "serve"}
"""Import names and the real folders behind them: comagent/actors and comagent/serve are links."""


def modules(*names: str) -> frozenset[str]:
    return frozenset(f"comagent.{name}" for name in names)


VALUES = modules("errors", "ids", "log", "nearest", "retry", "spec", "states", "values")
READING = VALUES | modules("aaas", "config", "reading", "nesting")
PURE = VALUES | modules(
    "compiling",
    "costs",
    "dispatching",
    "events",
    "expressions",
    "graph",
    "job",
    "machine",
    "plan",
    "protocol",
    "ready",
    "seats",
    "steps",
)
SERVICES = modules("coordination", "llm", "security", "store", "tools")
RUNNING = modules("calls", "execution", "failure", "isolation", "output", "scope")
"""What an agent does, without Ray."""
RECORDS = modules("commits", "job_view")
"""Between the pure core and the store."""

LAYERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(VALUES, VALUES),
    **dict.fromkeys(READING - VALUES, READING),
    **dict.fromkeys(PURE - VALUES, PURE - modules("ids")),
    "comagent.sqlite": VALUES,
    **{name: PURE | {name} for name in SERVICES},
    "comagent.tools": PURE | modules("config", "tools"),
    "comagent.coordination": PURE | modules("coordination", "sqlite"),
    "comagent.store": PURE | modules("store", "sqlite"),
    **dict.fromkeys(RECORDS, PURE | RECORDS | modules("store.base")),
    **dict.fromkeys(RUNNING, PURE | RUNNING | modules("tools", "store.documents")),
    "comagent.writing": VALUES,
    "comagent.builder": PURE | modules("builder", "tools", "writing"),
    "comagent.agents": PURE | READING | modules("agents", "tools"),
    "comagent.submission": PURE | READING | modules("agents", "tools"),
    "comagent.actors": PURE | SERVICES | RECORDS | RUNNING | modules("actors", "submission"),
    "comagent.actors.names": VALUES,
    "comagent.client": READING
    | modules("actors.names", "builder", "coordination.base", "job_view", "protocol", "submission"),
    "comagent.serve": READING | modules("client", "serve"),
}
"""What a module may import of ComAgent, for the longest name that fits. A new module is put into its layer here."""

ROOTS = ("comagent.cli", "comagent.embedded", "comagent.testing", "comagent.__main__")
"""The composition roots, which join the layers. They may import anything; nothing else imports them."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "aetcd": ("comagent.coordination.etcd",),
    "cel_expr_python": ("comagent.expressions",),
    "cssselect": ("comagent.tools.scraping",),
    "fastapi": ("comagent.serve",),
    "httpcore2": ("comagent.tools.fetching",),
    "httpx2": ("comagent.tools.fetching", "comagent.tools.http"),
    "jinja2": ("comagent.tools.text",),
    "lxml": ("comagent.tools.scraping",),
    "markdown_it": ("comagent.tools.html",),
    "networkx": ("comagent.graph",),
    "openai": ("comagent.llm",),
    "psutil": (
        "comagent.actors",
        "comagent.calls",
        "comagent.cli",
        "comagent.coordination",
        "comagent.embedded",
        "comagent.isolation",
        "comagent.tools.system",
    ),
    "pydantic": ("comagent",),
    "pydantic_core": ("comagent",),
    "pydantic_settings": ("comagent.config",),
    "ray": ("comagent.actors", "comagent.client", "comagent.serve", *ROOTS),
    "rich": ("comagent.cli",),
    "sqlalchemy": ("comagent.store", "comagent.tools.sql"),
    "tenacity": ("comagent",),
    # pydantic takes TypedDict from here only, before Python 3.12
    "typing_extensions": ("comagent.tools",),
    "typer": ("comagent.cli",),
    "yaml": ("comagent.reading", "comagent.writing"),
}
"""Where a package that ComAgent depends on may be imported."""

WITHOUT_CLOCK = PURE - VALUES | {"comagent.retry", "comagent.spec", "comagent.states"}
CLOCKS = {"asyncio", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time", "uuid"}
"""Modules of Python that decide by something else than their arguments, or wait."""


def source_files() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for parent, _, names in os.walk(ROOT / folder, followlinks=False):
            for path in (Path(parent, name) for name in names if name.endswith(".py")):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                yield ".".join((package, *parts)).removesuffix(".__init__"), path


MODULES = dict(source_files())


def imported(source: str) -> Iterator[str]:
    """The full names of what a module imports anywhere in it; for `from a import b` that is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def layer(module: str) -> frozenset[str]:
    return LAYERS[max((name for name in LAYERS if within(module, name)), key=len)]


def violations(module: str, source: str) -> list[str]:
    free = module == "comagent" or any(within(module, root) for root in ROOTS)
    found = []
    for name in imported(source):
        top = name.partition(".")[0]
        if top == "comagent":
            allowed = free or any(within(name, part) for part in layer(module))
        elif top in sys.stdlib_module_names:
            allowed = not (module in WITHOUT_CLOCK and top in CLOCKS)
        else:
            allowed = (
                any(within(module, place) for place in PACKAGES.get(top, ())) and module != "comagent.actors.names"
            )
        if not allowed:
            found.append(f"{module} must not import {name}")
    return found


def test_every_module_has_its_place_in_the_layers() -> None:
    placed = ("comagent.actors", "comagent.serve", *LAYERS, *ROOTS)
    strangers = [name for name in MODULES if name != "comagent" and not any(within(name, place) for place in placed)]
    assert strangers == [], "add these to LAYERS"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("comagent.machine", "import ray"),
        ("comagent.machine", "def f():\n    import asyncio"),
        ("comagent.plan", "from comagent.store import base"),
        ("comagent.spec", "from comagent import machine"),
        ("comagent.tools.text", "import comagent"),
        ("comagent.tools.text", "from comagent.store.base import Store"),
        ("comagent.store.sql", "import requests"),
        ("comagent.client", "from comagent.actors import scheduler"),
        ("comagent.client", "from comagent.embedded import start"),
        ("comagent.actors.names", "import ray"),
        ("comagent.actors.scheduler", "from comagent.client import Client"),
        ("comagent.actors.scheduler", "from actors.names import scheduler"),
        ("comagent.serve.routes", "from comagent.store.sql import SqlStore"),
        ("comagent.serve.routes", "from . import schemas"),
    ],
)
def test_an_import_that_goes_the_wrong_way_is_found(module: str, source: str) -> None:
    assert violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("comagent.machine", "from comagent.plan import Plan"),
        ("comagent.tools.system", "import psutil"),
        ("comagent.actors.scheduler", "import asyncio\nimport ray\nfrom comagent import machine"),
        ("comagent.client", "from comagent.actors.names import scheduler"),
        ("comagent.serve.routes", "from ray import serve\nfrom comagent.client import Client"),
        ("comagent.cli.run", "from comagent import embedded"),
    ],
)
def test_an_import_that_goes_the_right_way_is_allowed(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("folder", ["actors", "serve", "configs"])
def test_a_linked_folder_is_reached_by_a_relative_link(folder: str) -> None:
    assert (ROOT / "comagent" / folder).readlink() == Path("..", folder)


@pytest.mark.parametrize("folder", ["actors", "benchmarks", "comagent", "serve", "tests"])
def test_nothing_imports_the_linked_folders_by_their_bare_names(folder: str) -> None:
    bare = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path.read_text(encoding="utf-8"))
        if within(name, "actors") or within(name, "serve")
    ]
    assert bare == []
