"""Tools: typed callables with a JSON schema, found again by any process that is to run them.

`comagent.tools.registry` finds a tool by its name, `comagent.tools.loading` by its address.
"""

from comagent.tools.base import Code, Cost, Effects, Kind, Tool, ToolContext, ToolSpec, tool
from comagent.tools.source import is_loading

__all__ = ["Code", "Cost", "Effects", "Kind", "Tool", "ToolContext", "ToolSpec", "is_loading", "tool"]
