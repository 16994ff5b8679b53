"""Documents as YAML that means the same to every reader, whichever version of YAML it knows."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["to_yaml"]

_WIDTH = 120
_NUMBER = re.compile(r"[-+]?\.?[0-9][-+.0-9_a-zA-Z:]*")
"""What some version of YAML may take for a number, and text that looks like one."""

_ODD = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What needs an escape: control characters, and those at which only some readers end a line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists are indented below their key."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if _NUMBER.fullmatch(text) else None
    if _ODD.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as YAML, its keys in their order. Text that could be taken for something else is in quotes."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
