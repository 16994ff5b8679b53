"""Where the boxes of a picture are put: columns from left to right, and few crossings.

The method is that of Sugiyama, Tagawa and Toda (1981): layers by the longest way from the start, a point in each layer
that an edge passes, an order in each layer by the mean of the neighbours, at last heights near those of the neighbours.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from comagent.cli.drawing.picture import Box, Picture, layers

COLUMN_GAP = 52.0
ROW_GAP = 14.0
POINT = 4.0
"""Height of a point that an edge passes."""
MARGIN = 14.0
HEAD = 30.0
"""Height of a sub-process' own line, above its boxes."""
SWEEPS = 8

Size = Callable[[Box], tuple[float, float]]


class Placed(NamedTuple):
    """A box, and its place in the picture that it is in."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    inner: "Laid | None"
    """What is in it, placed relative to its corner."""


class Edge(NamedTuple):
    """A line from box to box: points, of which two follow each other in each gap between columns."""

    points: tuple[tuple[float, float], ...]
    target: Box


class Laid(NamedTuple):
    """A picture with a place for everything."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    edges: tuple[Edge, ...]


class _Vertex:
    """A box, or a point that an edge passes in a layer between its ends."""

    __slots__ = ("after", "before", "box", "height", "inner", "order", "width", "x", "y")

    def __init__(self, box: Box | None, width: float, height: float, inner: Laid | None):
        self.box = box
        self.width = width
        self.height = height
        self.inner = inner
        self.before: list[_Vertex] = []
        self.after: list[_Vertex] = []
        self.order = 0.0
        self.x = 0.0
        self.y = 0.0
        """Of its middle."""


def laid(picture: Picture, size: Size) -> Laid:
    """Places for all boxes; `size` tells width and height of one that has nothing in it."""
    vertices = [_vertex(box, size) for box in picture.boxes]
    columns = [[vertices[position] for position in layer] for layer in layers(picture.boxes)]
    column_of = {vertex: number for number, column in enumerate(columns) for vertex in column}
    chains = []
    for need, position in picture.edges:
        source, target = vertices[need], vertices[position]
        chain = [source]
        for number in range(column_of[source] + 1, column_of[target]):
            chain.append(_Vertex(None, 0.0, POINT, None))
            columns[number].append(chain[-1])
        chain.append(target)
        chains.append(chain)
        for one, next_one in pairwise(chain):
            one.after.append(next_one)
            next_one.before.append(one)
    _order(columns)
    _set_heights(columns)
    return _laid(columns, chains)


def _vertex(box: Box, size: Size) -> _Vertex:
    width, height = size(box)
    if box.inner is None:
        return _Vertex(box, width, height, None)
    inner = laid(box.inner, size)
    return _Vertex(box, max(width, inner.width + 2 * MARGIN), inner.height + HEAD + MARGIN, inner)


def _order(columns: Sequence[list[_Vertex]]) -> None:
    """Sorts each column by where the neighbours are, from left to right and back."""
    for column in columns:
        _number(column)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            wanted = {vertex: _mean_order(vertex, vertex.before if forward else vertex.after) for vertex in column}
            column.sort(key=wanted.__getitem__)
            _number(column)


def _number(column: Sequence[_Vertex]) -> None:
    for order, vertex in enumerate(column):
        # Relative, so that columns of different lengths can be compared.
        vertex.order = (order + 0.5) / len(column)


def _mean_order(vertex: _Vertex, neighbours: Sequence[_Vertex]) -> float:
    return sum(each.order for each in neighbours) / len(neighbours) if neighbours else vertex.order


def _set_heights(columns: Sequence[Sequence[_Vertex]]) -> None:
    for column in columns:
        total = sum(vertex.height for vertex in column) + ROW_GAP * (len(column) - 1)
        y = -total / 2
        for vertex in column:
            vertex.y = y + vertex.height / 2
            y += vertex.height + ROW_GAP
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _settle(column)


def _settle(column: Sequence[_Vertex]) -> None:
    """Moves each towards its neighbours, as far as those above and below let it."""
    wanted = []
    for vertex in column:
        neighbours = [*vertex.before, *vertex.after]
        wanted.append(sum(each.y for each in neighbours) / len(neighbours) if neighbours else vertex.y)
    gaps = [(one.height + other.height) / 2 + ROW_GAP for one, other in pairwise(column)]
    downward, upward = list(wanted), list(wanted)
    for at, gap in enumerate(gaps):
        downward[at + 1] = max(downward[at + 1], downward[at] + gap)
    for at, gap in reversed(list(enumerate(gaps))):
        upward[at] = min(upward[at], upward[at + 1] - gap)
    # Both keep the distances, and so does what lies half way between them.
    for vertex, low, high in zip(column, downward, upward, strict=True):
        vertex.y = (low + high) / 2


def _laid(columns: Sequence[Sequence[_Vertex]], chains: Sequence[Sequence[_Vertex]]) -> Laid:
    top = min(vertex.y - vertex.height / 2 for column in columns for vertex in column)
    boxes = []
    ends: dict[_Vertex, float] = {}
    x = 0.0
    for column in columns:
        width = max(vertex.width for vertex in column)
        for vertex in column:
            vertex.y -= top
            vertex.x = x
            ends[vertex] = x + (width if vertex.box is None else vertex.width)
            if vertex.box is not None:
                y = vertex.y - vertex.height / 2
                boxes.append(Placed(vertex.box, x, y, vertex.width, vertex.height, vertex.inner))
        x += width + COLUMN_GAP
    edges = []
    for chain in chains:
        points = [(ends[chain[0]], chain[0].y)]
        for vertex in chain[1:-1]:
            points += [(vertex.x, vertex.y), (ends[vertex], vertex.y)]
        target = chain[-1].box
        assert target is not None
        edges.append(Edge((*points, (chain[-1].x, chain[-1].y)), target))
    height = max(vertex.y + vertex.height / 2 for column in columns for vertex in column)
    return Laid(x - COLUMN_GAP, height, tuple(boxes), tuple(edges))
