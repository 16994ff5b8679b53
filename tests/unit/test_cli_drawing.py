"""Pictures of processes: in text, as Mermaid, DOT and SVG."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent import spec
from comagent.cli.drawing.dot import dot
from comagent.cli.drawing.layout import Laid, laid
from comagent.cli.drawing.mermaid import mermaid
from comagent.cli.drawing.outline import outline, plain
from comagent.cli.drawing.picture import STYLES, Picture, layers, picture
from comagent.cli.drawing.svg import svg
from comagent.states import TASK_LABELS
from comagent.submission import prepare

SVG = "{http://www.w3.org/2000/svg}"


def task(id: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": "debug.echo", "needs": list(needs), "with": {"value": 1}, **more}


def drawn(*tasks: Mapping[str, Any], statuses: Mapping[str, str] | None = None) -> Picture:
    prepared = prepare(spec.parse({"name": "p", "tasks": list(tasks)}))
    return picture(prepared.process, prepared.plan, statuses=statuses)


def text(shown: Picture, *, width: int = 200, encoding: str = "utf-8") -> list[str]:
    return plain(outline(shown, width=width, title="title"), encoding=encoding).splitlines()


DIAMOND = (task("a"), task("b", "a"), task("c", "a", when="${tasks.a > 0}"), task("d", "b", "c", trigger="all_done"))
INNER = {"name": "inner", "inputs": {"x": {}}, "tasks": [task("one"), task("two", "one"), task("odd", "one")]}
NESTED = (task("a"), {"id": "sub", "needs": ["a"], "with": {"x": 1}, "process": INNER}, task("b", "sub", "a"))


def test_a_line_says_what_a_task_needs_and_when_it_runs() -> None:
    assert text(drawn(*DIAMOND)) == [
        "title",
        "1 ─ a  debug.echo",
        "2 ┬ b  debug.echo  ← a",
        "  └ c  debug.echo  ← a  if ${tasks.a > 0}",
        "3 ─ d  debug.echo  ← b, c  when all done",
    ]


def test_a_sub_process_is_a_box_with_its_tasks_in_it() -> None:
    assert text(drawn(*NESTED)) == [
        "title",
        "1 ─ a    debug.echo",
        "2 ─ sub  inner       ← a",
        "     1 ─ one  debug.echo",
        "     2 ┬ two  debug.echo  ← one",
        "       └ odd  debug.echo  ← one",
        "3 ─ b    debug.echo  ← a, sub",
    ]


def test_a_sub_process_runs_as_soon_as_its_inputs_are_there_and_until_its_result_is() -> None:
    def status(**statuses: str) -> str | None:
        paths = {path.replace("_", "/"): each for path, each in statuses.items()}
        return drawn(*NESTED, statuses=paths).boxes[1].status

    assert status(a="succeeded") == "pending"
    assert status(sub__inputs="succeeded", sub_one="failed") == "running"
    assert status(sub__inputs="succeeded", sub="failed") == "failed"


def test_lines_fit_a_narrow_terminal() -> None:
    shown = drawn(task("a-rather-long-name-for-a-task"), task("other", "a-rather-long-name-for-a-task"), *NESTED)
    for width in (20, 40, 80):
        assert all(len(line) <= width for line in text(shown, width=width))
    assert "2 ┬ other          ← a-rather-long-name…" in text(shown, width=40)


def test_a_terminal_without_line_art_gets_other_signs() -> None:
    lines = text(drawn(*DIAMOND), encoding="ascii")
    assert "".join(lines).isascii()
    assert lines[2] == "2 + b  debug.echo  <- a"


def test_of_many_tasks_a_part_is_shown_and_what_failed_comes_first() -> None:
    tasks = [task(f"t{step}-{at}", *([f"t{step - 1}-{at}"] if step else [])) for step in range(30) for at in range(40)]
    statuses = {f"t0-{at}": "succeeded" for at in range(39)} | {"t0-39": "failed"}
    lines = text(drawn(*tasks, statuses=statuses))
    assert len(lines) < 60
    assert lines[1].startswith(" 1 ┬ t0-39")
    assert lines[4] == "   └ and 37 more: 37 succeeded"
    assert "   · 20 more steps, 800 tasks" in lines


def test_many_needs_are_summed_up() -> None:
    sources = [task(f"s{at}") for at in range(9)]
    every, most = task("every", *(each["id"] for each in sources)), task("most", *(f"s{at}" for at in range(8)))
    lines = text(drawn(*sources, every, most))
    assert lines[-2].endswith("← all 9 of step 1")
    assert lines[-1].endswith("← s0, s1, s2, s3, s4 and 3 more")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in "".join(text(drawn(task("a", when='${"\x1b[31m" == "a"}'))))


def test_mermaid_has_ids_that_mermaid_can_read() -> None:
    lines = mermaid(drawn(task("end"), task("n1", "end"), task("ok", "n1"), task('a"b<c>', "ok"))).splitlines()
    assert lines[0] == "graph LR"
    assert '  n1["end"]' in lines
    assert '  n2["n1"]' in lines
    assert '  n3["a#34;b#60;c#62;"]' in lines
    assert lines[-3:] == ["  n1 --> n2", "  n2 --> ok", "  ok --> n3"]


def test_mermaid_and_dot_have_sub_processes_as_groups_and_colours_of_a_job() -> None:
    shown = drawn(*NESTED, statuses={"a": "succeeded", "sub//inputs": "succeeded", "sub/one": "failed"})
    written = mermaid(shown)
    assert '  subgraph sub["sub"]\n    n1["one"]\n' in written
    assert "\n  a --> sub\n" in written
    assert "\n  class n1 failed\n" in written
    graph = dot(shown)
    assert 'subgraph "cluster sub" {' in graph
    assert '"a" -> "sub/one" [lhead="cluster sub"]' in graph
    assert '"sub/odd" -> "b" [ltail="cluster sub"]' in graph
    assert graph.count("{") == graph.count("}")


def test_a_drawing_is_xml_and_names_every_task() -> None:
    shown = drawn(*NESTED, task('<"&>'), statuses={"a": "succeeded", "sub/one": "timed_out"})
    root = ElementTree.fromstring(svg(shown, title="p & q"))
    told = [each.text or "" for each in root.iter(f"{SVG}title")]
    assert told[0] == "p & q"
    assert {each.partition(":")[0] for each in told[1:]} == {"a", "sub", "sub/one", "sub/two", "sub/odd", "b", '<"&>'}
    assert [each.get("class") for each in root.iter(f"{SVG}rect")].count("timed_out") == 1


def test_every_status_has_a_colour() -> None:
    assert set(STYLES) == set(TASK_LABELS)


@st.composite
def graphs(draw: st.DrawFn) -> Picture:
    size = draw(st.integers(1, 14))
    tasks = []
    for at in range(size):
        needs = draw(st.lists(st.integers(0, at - 1), max_size=4, unique=True)) if at else []
        tasks.append(task(f"t{at}", *(f"t{need}" for need in needs)))
    return drawn(*draw(st.permutations(tasks)))


@given(graphs())
def test_every_task_stands_after_what_it_needs(shown: Picture) -> None:
    at = {position: number for number, layer in enumerate(layers(shown.boxes)) for position in layer}
    assert all(at[need] < at[position] for need, position in shown.edges)
    assert len(at) == len(shown.boxes)


@given(graphs())
def test_boxes_of_a_drawing_do_not_overlap_and_lines_go_from_left_to_right(shown: Picture) -> None:
    drawing = laid(shown, lambda box: (40.0 + 10 * len(box.name), 30.0))
    _check(drawing)
    assert len(drawing.edges) == len(list(shown.edges))


def _check(drawing: Laid) -> None:
    for number, one in enumerate(drawing.boxes):
        assert 0 <= one.x <= one.x + one.width <= drawing.width + 0.01
        assert -0.01 <= one.y <= one.y + one.height <= drawing.height + 0.01
        for other in drawing.boxes[:number]:
            beside = one.x + one.width <= other.x or other.x + other.width <= one.x
            assert beside or one.y + one.height <= other.y + 0.01 or other.y + other.height <= one.y + 0.01
    for edge in drawing.edges:
        xs = [x for x, _ in edge.points]
        assert xs == sorted(xs)


@pytest.mark.parametrize("write", [mermaid, dot])
def test_an_edge_is_written_once(write: Any) -> None:
    edges = re.findall(r"-->|-\.->|->", write(drawn(*DIAMOND)))
    assert len(edges) == 4
