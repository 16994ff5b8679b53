import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from comagent import reading
from comagent.errors import Problem, ProcessError
from comagent.reading import Marks, load_process, read_process

DEFECTIVE = """\
name: p
tasks:
  - id: a
    tool: t
    retry:
      delay: soon
  - {id: b, tool: t, need: [a]}
  - tool: t
inputs:
  x: {typ: string}
"""


def document(tmp_path: Path, text: str | bytes, name: str = "p.yaml") -> dict[str, Any]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_process(path)[0]


def refusal(tmp_path: Path, text: str | bytes, name: str = "p.yaml") -> str:
    with pytest.raises(ProcessError) as caught:
        document(tmp_path, text, name)
    return str(caught.value).removeprefix(str(tmp_path / name))


def test_yaml_and_json_give_the_same_document(tmp_path: Path) -> None:
    expected = {"name": "p", "tasks": [{"id": "a", "tool": "t", "with": {"x": [1, 1.5, None, True, "1"]}}]}
    written = "name: p\ntasks:\n- {id: a, tool: t, with: {x: [1, 1.5, null, true, '1']}}\n"
    assert document(tmp_path, written) == expected
    assert document(tmp_path, json.dumps(expected), "p.json") == expected
    assert document(tmp_path, json.dumps(expected, indent="\t"), "p.txt") == expected
    assert document(tmp_path, written, "p") == expected
    assert document(tmp_path, json.dumps(expected), "p.yml") == expected
    assert document(tmp_path, "\ufeff" + json.dumps(expected), "p.JSON") == expected


def test_only_what_json_knows_is_read_from_yaml(tmp_path: Path) -> None:
    text = "on: yes\nday: 2024-01-01\nclock: 12:30:00\noctal: 010\nhex: 0x1F\nexp: 1e3\nnone:\n200: ok\ntag: !!str 3\n"
    assert document(tmp_path, text) == {
        "on": "yes",
        "day": "2024-01-01",
        "clock": "12:30:00",
        "octal": 10,
        "hex": 31,
        "exp": 1000.0,
        "none": None,
        "200": "ok",
        "tag": "3",
    }


def test_the_whole_of_a_multi_line_text_is_read(tmp_path: Path) -> None:
    assert document(tmp_path, "a: |\n  one\n  two\nb: >-\n  three\n  four\n") == {"a": "one\ntwo\n", "b": "three four"}


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "base: &b {a: 1, c: [1]}\nx: {<<: *b, a: 2}\ny:\n  <<: [*b, {z: 1, a: 3}]\nz: *b\n"
    base = {"a": 1, "c": [1]}
    assert document(tmp_path, text) == {
        "base": base,
        "x": {"a": 2, "c": [1]},
        "y": {"a": 1, "c": [1], "z": 1},
        "z": base,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": the file is empty. A process is a mapping with `name` and `tasks`."),
        ("# nothing\n", ": the file is empty. A process is a mapping with `name` and `tasks`."),
        ("- 1", ": the file does not hold a mapping. A process is a mapping with `name` and `tasks`."),
        ("a: 1\nb: 2\na: 3", ':3:1: the key "a" occurs twice in one mapping. Remove one of them.'),
        ("a: 1\n---\nb: 2", ":2:1: the file holds more than one document. Put each process into a file of its own."),
        ("x: a: b", ":1:5: this is not YAML: mapping values are not allowed in this context. Text that holds a colon"),
        ("a:\n\tb: 1", ":2:1: this is not YAML: found character that cannot start any token. Indent with spaces"),
        ("a: {b: ${inputs.c}}", 'Close every { and [; inside them, "${…}" needs quotes.'),
        ("a: [1,", 'Close every { and [; inside them, "${…}" needs quotes.'),
        ("a: \x01", ':1:4: the file holds a control character. Write it as an escape in "…".'),
        ("a: !!python/object:os.system x", ":1:4: the tag !!python/object:os.system is not supported."),
        ("a: !!binary aGk=", ":1:4: the tag !!binary is not supported."),
        ("a: !!int x", ":1:4: the tag !!int is not supported."),
        ("a: !!set {x}", ":1:4: the tag !!set is not supported."),
        ("a: *b", ":1:4: *b stands for nothing yet. Write &b further up, not around it."),
        ("a: &a [*a]", ":1:8: *a stands for nothing yet. Write &a further up, not around it."),
        ("? [a]\n: 1", ":1:3: a key must be text"),
        ("a: &x 1\n*x : 2", ":2:1: a key must be text"),
        ("a: {<<: 3}", "`<<` takes a mapping, or a list of mappings"),
        ("a: .nan", ":1:4: .nan is no number that JSON knows. Put it in quotes to have it as text."),
        ("a: 1e999", ":1:4: 1e999 is no number that JSON knows."),
        ("a: " + "1" * 5000, "is no number that JSON knows."),
        (b"name: x\nd: \xff", ":2:4: the file is not UTF-8 text. Save it with the encoding UTF-8."),
        ("name: x".encode("utf-16"), ":1:1: the file is not UTF-8 text."),
    ],
)
def test_a_wrong_yaml_file_is_refused_with_the_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a" 1}', ":1:6: this is not JSON: expecting ':' delimiter"),
        ('{"a": 1, "b": 2, "a": 3}', ': the key "a" occurs twice in the mapping with the keys a, b'),
        ('{"a": NaN}', ": NaN is no number that JSON knows"),
        ('{"a": ' + "1" * 5000 + "}", ": a number is too long. Put it in quotes to have it as text."),
        ("[1]", ": the file does not hold a mapping."),
        ("", ":1:1: this is not JSON"),
    ],
)
def test_a_wrong_json_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text, "p.json")


@pytest.mark.parametrize("name", ["p.yaml", "p.json", "p"])
@pytest.mark.parametrize("depth", [101, 150, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":', "- ", "{a: "])
def test_deep_nesting_is_refused_with_a_message(tmp_path: Path, name: str, depth: int, opening: str) -> None:
    closing = {"[": "]", "-": ""}.get(opening[0], "}")
    message = refusal(tmp_path, f"{opening * depth}1{closing * depth}", name)
    assert "nested more than 100 deep" in message or "this is not JSON" in message


def test_nesting_within_the_limit_is_read(tmp_path: Path) -> None:
    text = '{"a":' * 100 + "1" + "}" * 100
    assert document(tmp_path, text, "p.json") == document(tmp_path, text, "p.yaml")


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    levels = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "aliases multiply the file" in refusal(tmp_path, "\n".join(["a: &a [x]", *levels]))


def test_a_file_over_the_limit_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: [")
    with pytest.raises(ProcessError, match="the file is larger than 6 bytes"):
        read_process(path, max_bytes=6)
    with pytest.raises(ProcessError, match="this is not YAML"):
        read_process(path, max_bytes=7)


def test_a_path_that_is_no_file_is_explained(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "this is a folder"),
        (Path("a\0b"), "the file cannot be read"),
        (tmp_path / "p.yaml" / "q", "the file cannot be read"),
    ):
        (tmp_path / "p.yaml").touch()
        with pytest.raises(ProcessError, match=message):
            read_process(path)


def test_problems_of_a_process_name_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(DEFECTIVE)
    with pytest.raises(ProcessError) as caught:
        load_process(path)
    assert [(p.line, p.column, p.task, p.field) for p in caught.value.problems] == [
        (10, 7, None, "inputs.x.typ"),
        (6, 7, "a", "retry.delay"),
        (7, 22, "b", "need"),
        (8, 5, "#3", "id"),
    ]
    assert str(caught.value).startswith(
        f'{path}:10:7: field "inputs.x.typ": there is no such field. Did you mean "type"?'
    )


def test_problems_of_a_json_file_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"name": "p", "tasks": [{"id": "a", "tol": "t"}, {"id": "b"}]}, indent=2))
    with pytest.raises(ProcessError) as caught:
        load_process(path)
    assert {(p.line, p.field) for p in caught.value.problems} == {(6, "tol"), (8, "tool")}


def test_of_several_tasks_with_one_id_the_last_is_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntasks:\n  - {id: a, tool: t}\n  - {id: b, tool: t}\n  - {id: a, tool: t}\n")
    with pytest.raises(ProcessError, match=r'p\.yaml:5:6: task "a", field "id": several tasks have this id'):
        load_process(path)


def test_marks_tell_the_line_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntasks:\n  - id: a\n    tool: t\n\n  - id: b\n    tool: t\n")
    _, marks = read_process(path)
    assert dict(marks) == {"a": 3, "b": 6}
    assert marks.get("c") is None


def test_a_problem_that_has_a_line_keeps_it() -> None:
    problem = Problem("is wrong", "other.yaml", 7, 1)
    assert Marks("p.yaml", "name: p", {"name": "p"}).locate(ProcessError((problem,))).problems == (problem,)


def test_a_sound_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntasks:\n  - {id: a, tool: t, retry: {max_retries: 2, on: [timeout]}}\n")
    (task,) = load_process(path).tasks
    assert task.retry is not None
    assert (task.retry.attempts, task.retry.on) == (3, ("timeout",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("reading") / "p.json"
    path.write_text(json.dumps(value, ensure_ascii=False))
    assert read_process(path)[0] == value


@given(value=st.dictionaries(st.text(), json_values, max_size=4))
def test_what_a_yaml_library_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    # The library writes YAML 1.1, where "0e0" needs no quotes to be text; in YAML 1.2 it is a number.
    assume(not any(character.isdigit() for text in texts(value) for character in text))
    path = tmp_path_factory.mktemp("reading") / "p.yaml"
    path.write_text(yaml.safe_dump(value))
    assert read_process(path)[0] == value


def texts(value: Any) -> Iterator[str]:
    """All text that is a value; keys are text in any case."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


@given(text=st.text(st.sampled_from(list("ab:-[]{}&*?!<#|>'\"%@,. \n\t1"))))
def test_any_text_is_a_document_or_a_process_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("reading") / "p.yaml"
    path.write_text(text)
    try:
        read = read_process(path)[0]
    except ProcessError as error:
        assert all(problem.file == str(path) for problem in error.problems)  # noqa: PT017
    else:
        assert isinstance(read, dict)


def test_the_fast_parser_is_used_where_it_is_installed() -> None:
    assert reading._LOADER is getattr(yaml, "CSafeLoader", yaml.SafeLoader)
