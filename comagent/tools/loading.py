"""From the address of a tool to the tool: all that a process needs which only runs tools."""

import functools

from comagent.tools.base import Tool
from comagent.tools.source import Code, find

__all__ = ["load"]


@functools.cache
def load(code: Code) -> Tool:
    """The tool that `code` stands for, made once per process.

    `ToolDefinitionError` if it is gone, cannot be imported, or its source has changed since `code` was made.
    """
    return Tool(find(code), code=code)
