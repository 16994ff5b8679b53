"""From a tool's name in a process to the tool."""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any

from comagent.errors import ToolDefinitionError, UnknownToolError
from comagent.nearest import nearest
from comagent.tools.base import Tool, ToolSpec, options_of
from comagent.tools.loading import load
from comagent.tools.source import find_by_name

__all__ = ["builtin_names", "catalogue", "check_arguments", "resolve"]

_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "data": ("data",),
        "debug": ("debug",),
        "files": ("files",),
        "html": ("html",),
        "http": ("http", "scraping"),
        "mail": ("mail",),
        "samples": ("samples",),
        "shell": ("shell",),
        "sql": ("sql",),
        "system": ("system",),
        "text": ("text",),
    }
)
"""First parts of names, and the modules of this package that have the tools. Together they take half a second to
import, so each waits until one of its tools is asked for."""
_PYTHON = "python:"


def resolve(name: str, *, base: Path | None = None) -> ToolSpec:
    """What `name` means here: a built-in tool, `python:package.module.function`, or a declared function's name.

    `base`, the folder of the process file, and the working folder are searched before Python's own path.
    `UnknownToolError` names the nearest tools; `ToolDefinitionError` says why a tool that is there cannot be used.
    """
    builtin = _family(name.partition(".")[0]).get(name)
    if builtin is not None:
        return builtin.spec
    if name.startswith(_PYTHON):
        folders = (base, Path.cwd()) if base is not None else (Path.cwd(),)
        roots = tuple(dict.fromkeys(str(folder.resolve()) for folder in folders))
        code = find_by_name(name.removeprefix(_PYTHON), roots, name=name)
        return replace(load(code).spec, name=name)
    return _declared(name).spec


def builtin_names() -> tuple[str, ...]:
    """The names of the tools that come with ComAgent, sorted."""
    return tuple(_builtins())


def catalogue() -> list[ToolSpec]:
    """The tools that come with ComAgent, sorted by name."""
    return [built_in.spec for built_in in _builtins().values()]


def check_arguments(spec: ToolSpec, arguments: dict[str, Any], *, dynamic: set[str]) -> list[str]:
    """What is wrong with a task's arguments before anything runs, one clause each; empty if nothing is.

    Arguments named in `dynamic` are there, but their values are known only when the task runs.
    """
    return load(spec.code).problems(arguments, dynamic=dynamic)


@functools.cache
def _builtins() -> Mapping[str, Tool]:
    tools = {name: tool for family in _FAMILIES for name, tool in _family(family).items()}
    return MappingProxyType(dict(sorted(tools.items())))


@functools.lru_cache(maxsize=64)
def _family(family: str) -> Mapping[str, Tool]:
    """The tools of a family by their names; none if there is no such family."""
    modules = [importlib.import_module(f"comagent.tools.{module}") for module in _FAMILIES.get(family, ())]
    functions = [value for module in modules for value in vars(module).values() if options_of(value)]
    tools = [Tool(function) for function in functions]
    return MappingProxyType({tool.spec.name: tool for tool in tools})


def _declared(name: str) -> Tool:
    """The one function that an imported module declares a tool of this name."""
    found: dict[int, Callable[..., Any]] = {}
    names = set(builtin_names())
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            if isinstance(value, FunctionType) and (options := options_of(value)):
                names.add(options.name or value.__name__)
                if name == (options.name or value.__name__):
                    found[id(value)] = value
    if not found:
        raise UnknownToolError(name, nearest(name, names))
    if len(found) > 1:
        places = " and ".join(f"{value.__module__}.{value.__qualname__}" for value in found.values())
        raise ToolDefinitionError(name, f"{places} both have that name", "Give one of them another: `@tool(name=...)`.")
    return load(Tool(*found.values()).spec.code)
