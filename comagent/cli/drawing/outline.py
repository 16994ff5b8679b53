"""A picture as lines of text: one line for each task, in the order in which they can run."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from comagent.cli.board import TROUBLE
from comagent.cli.drawing.picture import Box, Picture, layers
from comagent.cli.screen import STYLES, clean, count, tally

MOST = 60
"""Up to so many tasks all are shown; of more, a part of each step."""
OF_A_STEP = 3
FIRST_STEPS = 8
LAST_STEPS = 2
NEEDS = 6
"""Needs that are named in one line."""
ROOM = 60
"""Characters of a line from which on there is room for tools and notes."""

_ASCII = {"┬": "+", "├": "+", "└": "+", "─": "-", "│": "|", "←": "<-", "…": "...", "·": "-"}


def outline(picture: Picture, *, width: int, title: str) -> list[Text]:
    """Lines of at most `width` characters. Of large processes they show a part, and say so."""
    lines = [Text(clean(title), "bold"), *_Outline(width, whole=picture.tasks <= MOST).of(picture, "")]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
    return lines


def plain(lines: Sequence[Text], *, encoding: str = "utf-8") -> str:
    """Lines without colours, and without line art where the encoding has none."""
    text = "\n".join(line.plain for line in lines) + "\n"
    return text if "utf" in encoding.lower() else "".join(_ASCII.get(each, each) for each in text)


class _Outline:
    def __init__(self, width: int, *, whole: bool):
        self._width = width
        self._whole = whole

    def of(self, picture: Picture, indent: str) -> Iterator[Text]:
        steps = layers(picture.boxes)
        digits = len(str(len(steps)))
        names = max(cell_len(clean(box.name)) for box in picture.boxes)
        columns = (
            min(names, max(10, self._width // 3)),
            max((len(box.status or "") for box in picture.boxes), default=0),
            0
            if self._width < ROOM
            else min(self._width // 3, 40, max(cell_len(clean(box.about)) for box in picture.boxes)),
        )
        cut = not self._whole and len(steps) > FIRST_STEPS + LAST_STEPS
        for number, step in enumerate(steps):
            if cut and FIRST_STEPS <= number < len(steps) - LAST_STEPS:
                if number == FIRST_STEPS:
                    hidden = steps[FIRST_STEPS:-LAST_STEPS]
                    left = count(sum(map(len, hidden)), "task")
                    yield Text(f"{indent}{' ' * digits} · {count(len(hidden), 'more step')}, {left}", "dim")
                continue
            shown, hidden_boxes = self._part(picture, step)
            for at, position in enumerate(shown):
                box = picture.boxes[position]
                last = at == len(shown) - 1 and not hidden_boxes
                rail = ("─" if last else "┬") if at == 0 else "└" if last else "├"
                head = f"{number + 1 if at == 0 else '':>{digits}} {rail} "
                yield Text.assemble(indent, (head, "dim"), self._line(picture, box, steps, columns))
                if box.inner is not None and self._whole:
                    yield from self.of(box.inner, f"{indent}{' ' * digits} {' ' if last else '│'}  ")
            if hidden_boxes:
                yield Text(f"{indent}{' ' * digits} └ and {len(hidden_boxes):,} more: {_tally(hidden_boxes)}", "dim")

    def _part(self, picture: Picture, step: Sequence[int]) -> tuple[Sequence[int], list[Box]]:
        """The positions that are shown of a step, what needs attention first; and the boxes that are not."""
        if self._whole or len(step) <= OF_A_STEP + 1:
            return step, []
        by_urgency = sorted(step, key=lambda position: picture.boxes[position].status not in TROUBLE)
        return by_urgency[:OF_A_STEP], [picture.boxes[position] for position in by_urgency[OF_A_STEP:]]

    def _line(self, picture: Picture, box: Box, steps: Sequence[Sequence[int]], columns: tuple[int, int, int]) -> Text:
        name_width, status_width, about_width = columns
        line = Text().append(_fitted(clean(box.name), name_width), "" if box.inner is None else "bold")
        if status_width:
            status = box.status or ""
            line.append("  ").append(f"{status.replace('_', ' '):<{status_width}}", STYLES.get(status, ""))
        if about_width:
            line.append("  ").append(_fitted(clean(box.about), about_width), "cyan")
        if box.needs:
            line.append("  ← ", "dim").append(_needs(picture, box, steps))
        if box.inner is not None and not self._whole:
            line.append(f"  ({count(box.inner.tasks, 'task')})", "dim")
        if about_width and box.notes:
            line.append(f"  {clean('; '.join(box.notes))}", "dim")
        return line


def _fitted(text: str, width: int) -> str:
    """Exactly so wide; what is cut off is marked."""
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _needs(picture: Picture, box: Box, steps: Sequence[Sequence[int]]) -> str:
    names = [clean(picture.boxes[need].name) for need in box.needs]
    if len(names) <= NEEDS:
        return ", ".join(names)
    for number, step in enumerate(steps, 1):
        if len(step) == len(names) and set(step) == set(box.needs):
            return f"all {len(names):,} of step {number}"
    return f"{', '.join(names[: NEEDS - 1])} and {len(names) - NEEDS + 1:,} more"


def _tally(boxes: Sequence[Box]) -> str:
    """`900 succeeded, 95 pending`, or without a job `995 debug.echo`."""
    counts = Counter(clean(box.about) if box.status is None else box.status for box in boxes)
    if boxes[0].status is not None:
        return tally(dict(counts.most_common()))
    named = ", ".join(f"{number:,} {about}" for about, number in counts.most_common(3))
    return named if len(counts) <= 3 else f"{named} and others"
