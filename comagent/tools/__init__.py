"""Tools: typed callables with a JSON schema, found again by any process that is to run them."""

from comagent.tools.base import Code, Cost, Effects, Kind, Tool, ToolContext, ToolSpec, tool
from comagent.tools.registry import builtin_names, catalogue, check_arguments, load, resolve
from comagent.tools.source import is_loading

__all__ = [
    "Code",
    "Cost",
    "Effects",
    "Kind",
    "Tool",
    "ToolContext",
    "ToolSpec",
    "builtin_names",
    "catalogue",
    "check_arguments",
    "is_loading",
    "load",
    "resolve",
    "tool",
]
