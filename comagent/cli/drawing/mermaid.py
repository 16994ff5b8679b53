"""A picture in the language of Mermaid, which GitHub and many editors draw."""

import re
from collections.abc import Iterator

from comagent.cli.drawing.picture import STYLES, Box, Picture
from comagent.cli.screen import clean

_PLAIN = re.compile(
    r"(?!n\d+$)(?!(?:end|graph|flowchart|subgraph|direction|class|classDef|click|style|default)$)[A-Za-z]\w*", re.ASCII
)
"""Ids that may stand as they are; others are numbered."""


def mermaid(picture: Picture) -> str:
    """A flowchart, coloured by status where there is one."""
    return "\n".join(["graph LR", *_Writer().lines(picture, "  ")]) + "\n"


class _Writer:
    def __init__(self) -> None:
        self._number = 0
        self._statuses: dict[str, list[str]] = {}

    def lines(self, picture: Picture, indent: str) -> Iterator[str]:
        names = [self._name(box, top=indent == "  ") for box in picture.boxes]
        for name, box in zip(names, picture.boxes, strict=True):
            if box.status is not None:
                self._statuses.setdefault(box.status, []).append(name)
            if box.inner is None:
                # A task with edges is named by these.
                if name != box.name or not box.needs:
                    yield f"{indent}{name}" if name == box.name else f'{indent}{name}["{_escaped(box.name)}"]'
            else:
                yield f'{indent}subgraph {name}["{_escaped(box.name)}"]'
                yield from self.lines(box.inner, f"{indent}  ")
                yield f"{indent}end"
        for need, position in picture.edges:
            arrow = "-.->" if picture.boxes[position].conditional else "-->"
            yield f"{indent}{names[need]} {arrow} {names[position]}"
        if indent == "  ":
            for status, coloured in self._statuses.items():
                style = STYLES[status]
                yield f"{indent}classDef {status} fill:{style.fill},stroke:{style.line},color:#111111"
                yield f"{indent}class {','.join(coloured)} {status}"

    def _name(self, box: Box, *, top: bool) -> str:
        if top and _PLAIN.fullmatch(box.name):
            return box.name
        self._number += 1
        return f"n{self._number}"


def _escaped(text: str) -> str:
    """Everything that Mermaid could take for more than text, as entities."""
    return "".join(each if each.isalnum() or each in " -_.," else f"#{ord(each)};" for each in clean(text))
