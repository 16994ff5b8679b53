"""A picture in the language of Graphviz."""

from collections.abc import Iterator

from comagent.cli.drawing.picture import STYLES, Box, Picture
from comagent.cli.screen import clean


def dot(picture: Picture) -> str:
    """A directed graph for `dot`, coloured by status where there is one."""
    head = [
        f"digraph {_quoted(picture.title)} {{",
        "  rankdir=LR; compound=true; bgcolor=transparent",
        '  node [shape=box, style="rounded,filled", fillcolor="#f6f8fa", fontname="Helvetica", fontsize=11]',
    ]
    return "\n".join([*head, *_lines(picture, "  "), "}"]) + "\n"


def _lines(picture: Picture, indent: str) -> Iterator[str]:
    for box in picture.boxes:
        if box.inner is None:
            label = f"{_escaped(box.name)}\\n{_escaped(box.about)}" if box.about else _escaped(box.name)
            yield f'{indent}{_quoted(box.path)} [label="{label}"{_colours(box)}]'
        else:
            yield f"{indent}subgraph {_cluster(box)} {{"
            yield f'{indent}  label="{_escaped(box.name)}"; style=rounded{_colours(box, sep="; ", inside=False)}'
            yield from _lines(box.inner, f"{indent}  ")
            yield f"{indent}}}"
    for need, position in picture.edges:
        source, target = picture.boxes[need], picture.boxes[position]
        options = ["style=dashed"] if target.conditional else []
        # Edges end at nodes; these two cut them off at the border of a sub-process.
        options += [f"ltail={_cluster(source)}"] if source.inner is not None else []
        options += [f"lhead={_cluster(target)}"] if target.inner is not None else []
        written = f" [{', '.join(options)}]" if options else ""
        yield f"{indent}{_quoted(_node(source, -1))} -> {_quoted(_node(target, 0))}{written}"


def _node(box: Box, at: int) -> str:
    """A task to which an edge can go: the box itself, or one inside."""
    while box.inner is not None:
        box = box.inner.boxes[at]
    return box.path


def _cluster(box: Box) -> str:
    return _quoted(f"cluster {box.path}")


def _colours(box: Box, *, sep: str = ", ", inside: bool = True) -> str:
    if box.status is None:
        return ""
    style = STYLES[box.status]
    return f'{sep}color="{style.line}"' + (f'{sep}fillcolor="{style.fill}"' if inside else "")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
