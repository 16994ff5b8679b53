import copy
import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent.errors import ExpressionError
from comagent.expressions import (
    MAX_LENGTH,
    Expression,
    Interpolation,
    Reference,
    Template,
    condition,
    evaluate,
    evaluate_condition,
    is_constant,
    parse,
    references,
    resolve,
    template,
)

SCOPE: Mapping[str, Any] = {
    "inputs": {"path": "/", "n": 3, "f": 1.5, "list": [1, 2, 3], "deep": {"a-b": 1, "x": {"y": 2}}, "nothing": None},
    "tasks": {"load": {"rows": 3, "took": 1.2, "files": [{"size": 1}, {"size": 2}]}, "load-csv": {"rows": 7}},
    "status": {"load": "succeeded", "gone": "skipped"},
    "errors": {},
}


def value(text: str, **scope: Any) -> Any:
    return evaluate(parse(text), {**SCOPE, **scope})


def refusal(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse(text), SCOPE)
    return str(caught.value).removeprefix(f"in {text}: ")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("plain", "plain"),
        ("$5 and {braces}", "$5 and {braces}"),
        ("${inputs.path}", Reference("inputs", "path")),
        ("${ inputs }", Reference("inputs", None)),
        ("${tasks.load.files[1].size}", Reference("tasks", "load", ("files", 1, "size"))),
        ('${tasks["load-csv"].rows}', Reference("tasks", "load-csv", ("rows",))),
        ("${tasks['it\\'s']}", Reference("tasks", "it's")),
        ("${item}", Reference("item", None)),
        ("${item.size[0]}", Reference("item", None, ("size", 0))),
        ("${index}", Reference("index", None)),
        ("${tasks.load.rows + 1}", Expression("tasks.load.rows + 1", (Reference("tasks", "load", ("rows",)),))),
        ("a ${inputs.n}!", Interpolation(("a ", Reference("inputs", "n"), "!"))),
        ("${inputs.n}${inputs.n}", Interpolation((Reference("inputs", "n"), Reference("inputs", "n")))),
    ],
)
def test_strings_become_nodes(text: str, node: object) -> None:
    assert parse(text) == node
    assert type(parse(text)) is type(node)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${tasks.load.rows}", 3),
        ("${tasks.load.files}", [{"size": 1}, {"size": 2}]),
        ('${tasks["load-csv"].rows + 1}', 8),
        ("${inputs.deep['a-b'] + inputs.deep.x.y}", 3),
        ("${inputs.n > 2 && tasks.load.took < 2.0}", True),
        ("${inputs.n > 2 &&\n  inputs.n < 5}", True),
        ("${inputs.list.map(x, x * 2)}", [2, 4, 6]),
        ("${size(inputs)}", 6),
        ("${.inputs.n + 1}", 4),
        ("${inputs[inputs.path == '/' ? 'n' : 'f'] + 1}", 4),
        ("${'}' + \"{\"}", "}{"),
        ("${'''it's a }'''}", "it's a }"),
        ("${r'\\d}'}", "\\d}"),
        ("${{'a': {'b': 1}}}", {"a": {"b": 1}}),
        ("${'tasks.foo and status'}", "tasks.foo and status"),
        ("${1 // tasks.foo\n + 1}", 2),
        ("${has(tasks.gone) ? 1 : 2}", 2),
        ("${has(tasks.load.nothing)}", False),
        ("${5u}", 5),
        ("${timestamp('2024-01-01T01:00:00+01:00')}", "2024-01-01T00:00:00Z"),
        ("${duration('1m30s')}", 90.0),
        ("a ${inputs.path} b ${inputs.n + 1}", "a / b 4"),
        ("${null} ${true} ${1.0} ${inputs.deep}", 'null true 1.0 {"a-b":1,"x":{"y":2}}'),
        ("${'ü'} ${['ü']}", 'ü ["ü"]'),
        ("$${inputs.n}", "${inputs.n}"),
        ("$$${inputs.n}", "$${inputs.n}"),
        ("$${a} ${inputs.n} $${b}", "${a} 3 ${b}"),
        ("${inputs.n}$${b}$", "3${b}$"),
        ("costs $${{ n }}", "costs ${{ n }}"),
    ],
)
def test_expressions_have_values(text: str, result: object) -> None:
    assert value(text) == result
    assert type(value(text)) is type(result)


def test_containers_are_parsed_inside() -> None:
    node = parse({"a": ["${inputs.n}", {"b": "x${inputs.n}"}], "c": (1, None)})
    assert evaluate(node, SCOPE) == {"a": [3, {"b": "x3"}], "c": [1, None]}


def test_a_value_that_is_no_json_has_no_text() -> None:
    assert value("${inputs.odd}", inputs={"odd": {1}}) == {1}
    with pytest.raises(ExpressionError, match=r"inputs\.odd.*the value cannot be written as text"):
        value("odd: ${inputs.odd}", inputs={"odd": {1}})


def test_item_and_index_are_values_of_a_map() -> None:
    assert value("${item.size * 2 + index}", item={"size": 4}, index=1) == 9
    assert value("${item}", item="x") == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${tasks.load.rowz}", 'tasks.load has no key "rowz"; it has: rows, took, files. Did you mean "rows"?'),
        ("${tasks.load.rowz > 1}", 'tasks.load has no key "rowz"; it has: rows, took, files. Did you mean "rows"?'),
        ("${tasks.load.files[2].size}", "tasks.load.files has 2 items, so there is no [2]; the first is [0]"),
        ("${tasks.load.files[2].size > 1}", "tasks.load.files has 2 items, so there is no [2]; the first is [0]"),
        ("${inputs.deep['a-b'].c}", 'inputs.deep["a-b"] is the number 1, so it has no key "c"'),
        ("${inputs.deep['a-b'].c + 1}", 'inputs.deep["a-b"] is the number 1, so it has no key "c"'),
        ("${inputs.nothing.x}", 'inputs.nothing is null, so it has no key "x"'),
        ("${inputs.path[0]}", "inputs.path is text, so it has no item [0]"),
        ("${inputs.list.map(x, {'a': 1}[string(x)])}", 'there is no key "1"'),
        ("${tasks.gone}", 'task "gone" has no value. Where that may be, ask `status.gone == "succeeded"` first.'),
        ("${tasks.gone.x + 1}", 'task "gone" has no value. Where that may be, ask `status.gone == "succeeded"` first.'),
        ("${errors.load}", 'task "load" has no error. Where that may be, ask `status.load == "failed"` first.'),
        ("${item.x}", "there is no `item` here. `item` and `index` exist inside `map` only."),
        ("${index + 1}", "there is no `index` here. `item` and `index` exist inside `map` only."),
    ],
)
def test_a_value_that_is_not_there_is_explained(text: str, message: str) -> None:
    written = refusal(text)
    assert written.rpartition("}: ")[2] == message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("${tasks.load-csv}", '"load-csv" is no plain word. Write tasks["load-csv"].'),
        ("${tasks.load-csv.rows + 1}", 'Write tasks["load-csv"].'),
        ("${tasks.9b1d-77.x}", 'Write tasks["9b1d-77"].'),
        ("${tasks.null.x + 1}", 'Write tasks["null"].'),
        ("${tasks.größe}", 'Write tasks["größe"].'),
        ("${tasks.get-status}", 'Write tasks["get-status"].'),
        ("${tasks}", "`tasks` needs a name that is written out"),
        ("${size(tasks)}", "`tasks` needs a name that is written out"),
        ("${tasks[inputs.path]}", "`tasks` needs a name that is written out"),
        ("${tasks['a' + 'b']}", "`tasks` needs a name that is written out"),
        ("${status[0]}", "`status` needs a name that is written out"),
        ("${input.path}", 'there is no name or function "input". Did you mean "inputs"'),
        ("${path}", "Values start with inputs, tasks, status, errors, item or index; text needs quotes."),
        ("${len(inputs.list)}", 'there is no name or function "len". Write size(…).'),
        ("${startswith(inputs.path, '/')}", 'Did you mean "startsWith"'),
        ("${None}", "Write null."),
        ("${inputs.n =}", "Write == to compare."),
        ("${inputs.n ==}", "it ends too early. Is a value or a bracket missing?"),
        ("${inputs.n > 1 and true}", "Expressions are CEL: write &&, ||, !"),
        ("${'x' if inputs.n else 'y'}", "`condition ? a : b`"),
        ("${'a' + 1}", "`+` does not take (string, int). Write string(…) around what is not text."),
        (
            "${inputs.f + 1}",
            "`+` does not take (double, int). Numbers of different kinds are not mixed: write double(…)",
        ),
        ("${inputs.n * 1.5}", "`*` does not take (int, double). Numbers of different kinds are not mixed"),
        ("${inputs.n.size()}", "`size` does not take (int)"),
        ("${inputs.n && true}", "`&&` takes only true or false"),
        ("${inputs.n ? 1 : 2}", "`?:` takes only true or false"),
        ("${1 / 0}", "divide by zero"),
        ("${9223372036854775807 + 1}", "integer overflow"),
        ("${1.0 / 0.0}", "the result holds inf"),
        ("${[b'x']}", "the result holds bytes"),
        ("${type(1)}", "which is no value"),
        ("${{1: 2}}", "the result has the key 1; keys must be text"),
        ("${}", "it is empty"),
        ("${ }", "it is empty"),
        ("a ${inputs.n", "the closing brace is missing"),
        ("${'a}", "it cannot be read"),
        ("${" + "(" * 50 + "1" + ")" * 50 + "}", "it is nested too deeply"),
        ("${1" + "+1" * MAX_LENGTH + "}", f"{MAX_LENGTH} is the limit"),
    ],
)
def test_a_wrong_expression_is_refused_in_plain_words(text: str, part: str) -> None:
    message = refusal(text)
    assert part in message
    assert "INVALID_ARGUMENT" not in message
    assert "<input>" not in message


def test_an_expression_that_would_run_long_is_stopped() -> None:
    many = {"many": list(range(200))}
    assert value("${inputs.many.all(x, x >= 0)}", inputs=many) is True
    with pytest.raises(ExpressionError, match="it goes through too many items"):
        value("${inputs.many.all(x, inputs.many.all(y, inputs.many.all(z, x + y + z >= 0)))}", inputs=many)


@pytest.mark.parametrize("odd", [2**70, {1, 2}, "\ud800"])
def test_values_that_cel_cannot_hold_are_refused(odd: object) -> None:
    with pytest.raises(ExpressionError):
        value("${[inputs.odd]}", inputs={"odd": odd})


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("tasks.load.rows > 2", True),
        ("${tasks.load.rows > 3}", False),
        ("status.load == 'succeeded'", True),
        ("true", True),
        ("${inputs.flag}", False),
        ("inputs.flag", False),
    ],
)
def test_a_condition_is_bare_or_in_braces(source: str, *, holds: bool) -> None:
    scope = {**SCOPE, "inputs": {"flag": False}}
    assert evaluate_condition(condition(source), scope) is holds


def test_a_condition_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ExpressionError, match="a condition is true or false, and this is the number 3"):
        evaluate_condition(condition("inputs.n"), SCOPE)


def test_a_condition_with_text_around_it_is_refused() -> None:
    with pytest.raises(ExpressionError, match="a condition is one expression"):
        condition("not ${inputs.n}")


def test_references_are_found_in_all_of_a_value() -> None:
    node = parse(["${tasks.a.x}", {"k": "${tasks['b-c'] + inputs.n} ${status.d}"}, "${errors.e == null ? inputs : {}}"])
    assert references(node) == {
        ("tasks", "a"),
        ("tasks", "b-c"),
        ("inputs", "n"),
        ("status", "d"),
        ("errors", "e"),
        ("inputs", None),
    }
    assert references(template({"x": "${tasks.a}", "y": ["${tasks.b}"], "z": 1})) == {("tasks", "a"), ("tasks", "b")}
    assert references(condition("tasks.a.ok && !tasks.b.ok")) == {("tasks", "a"), ("tasks", "b")}


def test_names_that_a_macro_binds_are_no_references() -> None:
    assert references(parse("${tasks.load.files.filter(item, item.size > 1).map(index, index.size)}")) == {
        ("tasks", "load")
    }
    assert references(parse("${inputs.deep.tasks.status}")) == {("inputs", "deep")}


def test_what_is_constant_is_known() -> None:
    assert is_constant(parse({"a": [1, "x", None, "$${x}"]}))
    assert not is_constant(parse({"a": ["${1 + 1}"]}))


def test_a_template_sorts_arguments_by_what_they_take() -> None:
    made = template({"a": 1, "b": "${tasks.load.rows}", "c": "n: ${inputs.n}", "d": [1, "${inputs.n}"], "e": {}})
    assert made == Template(
        {"a": 1},
        (("b", Reference("tasks", "load", ("rows",))),),
        (("c", parse("n: ${inputs.n}")), ("d", [1, Reference("inputs", "n")]), ("e", {})),
    )
    assert resolve(made, SCOPE) == {"a": 1, "b": 3, "c": "n: 3", "d": [1, 3], "e": {}}


def test_containers_of_a_template_are_never_shared_between_calls() -> None:
    made = template({"x": {"list": [1]}, "y": [[]], "z": 1})
    first = resolve(made, SCOPE)
    first["x"]["list"].append(2)
    first["y"][0].append(2)
    first["z"] = 2
    assert resolve(made, SCOPE) == {"x": {"list": [1]}, "y": [[]], "z": 1}


class Counting(Mapping[str, Any]):
    """Values that cost something to take out."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_by_name = values
        self.taken: list[str] = []

    def __getitem__(self, name: str) -> Any:
        self.taken.append(name)
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def test_only_referenced_values_are_taken_out_and_once_for_each_expression() -> None:
    tasks = Counting({"a": {"x": 1, "y": 2}, "b": 3})
    assert value("${tasks.a.x + tasks.a.y}", tasks=tasks) == 3
    assert value("${tasks.a.x}", tasks=tasks) == 1
    assert tasks.taken == ["a", "a"]


@pytest.mark.parametrize("text", ["${tasks.a[0]}", "x ${tasks.a + inputs.b}", "${has(tasks.a)}"])
def test_nodes_are_picklable_and_equal_when_they_mean_the_same(text: str) -> None:
    node = parse([text])
    assert pickle.loads(pickle.dumps(node)) == node == parse([text])


def test_a_reference_reads_as_it_is_written() -> None:
    for text in (
        "tasks.load.files[0].size",
        'tasks["load-csv"]',
        'inputs.deep["a\\"b"]',
        "item[1].x",
        "inputs",
        'tasks["in"]',
    ):
        assert str(parse(f"${{{text}}}")) == text


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
steps = st.lists(names | st.integers(0, 3), max_size=4).map(tuple)


@given(root=st.sampled_from(["inputs", "tasks", "status", "errors"]), name=names, path=steps)
def test_every_reference_is_read_back_from_its_text(root: str, name: str, path: tuple[str | int, ...]) -> None:
    reference = Reference(root, name, path)
    assert parse(f"${{{reference}}}") == reference
    assert references(parse(f"${{[{reference}]}}")) == {(root, name)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def escaped(node: Any) -> Any:
    if isinstance(node, str):
        return node.replace("${", "$${")
    if isinstance(node, list):
        return [escaped(item) for item in node]
    if isinstance(node, dict):
        return {key: escaped(item) for key, item in node.items()}
    return node


@given(arguments=st.dictionaries(st.text(), json_values, max_size=4))
def test_arguments_without_references_resolve_to_themselves(arguments: dict[str, Any]) -> None:
    before = copy.deepcopy(arguments)
    assert resolve(template(escaped(arguments)), {}) == before


@given(text=st.text(st.sampled_from(list("${}'\"\\ab.[]0+ \n"))))
def test_any_text_is_a_value_or_an_expression_error(text: str) -> None:
    with suppress(ExpressionError):
        evaluate(parse(text), SCOPE)
