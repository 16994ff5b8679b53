"""A picture as SVG: a text that browsers draw, and that stays sharp."""

import re
from collections.abc import Iterator
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from rich.cells import cell_len

from comagent.cli.drawing.layout import HEAD, MARGIN, Laid, Placed, laid
from comagent.cli.drawing.picture import STYLES, Box, Picture
from comagent.cli.screen import clean, shortened

CHARACTER = 7.25
"""Width of a character of a name. The font has equal widths, so that sizes are known without drawing."""
SMALL_CHARACTER = 6.05
NAME_CHARS = 40
PAD = 12.0
HEIGHT = 44.0
EDGE = 20.0
"""Around everything."""

_NO_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")

_STYLE = f"""
  text {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12px; fill: #1f2328 }}
  text.about {{ font-size: 10px; fill: #59636e }}
  rect {{ fill: #f6f8fa; stroke: #818b98 }}
  rect.group {{ fill: #80808014; stroke-dasharray: 5 3 }}
  path {{ fill: none; stroke: #818b98; stroke-width: 1.2; marker-end: url(#arrow) }}
  path.maybe {{ stroke-dasharray: 4 3 }}
  marker path {{ fill: #818b98; stroke: none; marker-end: none }}
{"".join(f"  .{status} {{ fill: {style.fill}; stroke: {style.line} }}{chr(10)}" for status, style in STYLES.items())}\
"""


def svg(picture: Picture, *, title: str) -> str:
    """A drawing from left to right, coloured by status where there is one."""
    drawn = laid(picture, _size)
    width, height = drawn.width + 2 * EDGE, drawn.height + 2 * EDGE + HEAD
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        f"<title>{_escaped(title)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect x="0" y="0" width="{width:.0f}" height="{height:.0f}" style="fill: #ffffff; stroke: none"/>',
        f'<text x="{EDGE:.0f}" y="{EDGE + 6:.0f}">{_escaped(title)}</text>',
        *_content(drawn, EDGE, EDGE + HEAD),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _size(box: Box) -> tuple[float, float]:
    name = cell_len(shortened(box.name, NAME_CHARS)) * CHARACTER
    about = cell_len(shortened(box.about, NAME_CHARS)) * SMALL_CHARACTER
    return max(60.0, name, about) + 2 * PAD, HEIGHT


def _content(drawn: Laid, left: float, top: float) -> Iterator[str]:
    for edge in drawn.edges:
        kind = ' class="maybe"' if edge.target.conditional else ""
        yield f'<path{kind} d="{_curve([(left + x, top + y) for x, y in edge.points])}"/>'
    for placed in drawn.boxes:
        yield from _box(placed, left + placed.x, top + placed.y)


def _box(placed: Placed, x: float, y: float) -> Iterator[str]:
    box = placed.box
    classes = [name for name in ("group" if placed.inner is not None else "", box.status or "") if name]
    kind = f" class={quoteattr(' '.join(classes))}" if classes else ""
    status = f", {box.status.replace('_', ' ')}" if box.status else ""
    told = _escaped("\n".join([f"{box.path}: {box.about}{status}", *box.notes]))
    yield f"<g><title>{told}</title>"
    yield f'<rect{kind} rx="6" x="{x:.1f}" y="{y:.1f}" width="{placed.width:.1f}" height="{placed.height:.1f}"/>'
    yield f'<text x="{x + PAD:.1f}" y="{y + 19:.1f}">{_escaped(shortened(box.name, NAME_CHARS))}</text>'
    if placed.inner is None:
        about = _escaped(shortened(box.about, NAME_CHARS))
        yield f'<text class="about" x="{x + PAD:.1f}" y="{y + 34:.1f}">{about}</text>'
    else:
        yield from _content(placed.inner, x + MARGIN, y + HEAD)
    yield "</g>"


def _curve(points: list[tuple[float, float]]) -> str:
    """A line that leaves and arrives level: bent between columns, straight through them."""
    drawn = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for at, ((x, y), (to_x, to_y)) in enumerate(pairwise(points)):
        middle = (x + to_x) / 2
        bent = at % 2 == 0
        drawn.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}" if bent else f"H{to_x:.1f}")
    return "".join(drawn)


def _escaped(text: str) -> str:
    return escape(_NO_XML.sub("?", clean(text)))
