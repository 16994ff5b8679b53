"""Sequences of calls whose arguments refer to earlier results, written for real services, run as processes.

The services are functions made from their specifications. What each of them is given is part of what it answers, so the
results show whether every reference arrived unchanged.
"""

import json
import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import comagent
from comagent.builder import Value
from comagent.client import Client
from comagent.errors import ProcessError
from comagent.submission import prepare_file
from comagent.values import canonical_json

DATA = Path(__file__).parents[3] / "shared" / "data" / "nestful"
RESULT = "var_result"
WAIT_S = 60.0
_VALUE = re.compile(r"\$(var\d+)((?:\.[^$]+)?)\$")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the collection of call sequences is not here")


class Call(NamedTuple):
    id: str
    service: str
    arguments: dict[str, Any]


class Sequence(NamedTuple):
    calls: list[Call]
    result: dict[str, Any]


def read(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, bool]]:
    """The parameters of each service, and whether they are required."""
    return {
        each["name"]: {
            name: bool(about.get("required"))
            for kind in ("query_parameters", "path_parameters")
            for name, about in each.get(kind, {}).items()
            if not keyword.iskeyword(name)  # one is called `class`, and no sequence uses it
        }
        for each in read("executable-spec.json")
    }


@pytest.fixture(scope="module")
def sequences() -> list[Sequence]:
    found = []
    for each in read("executable-data.json"):
        *calls, last = each["output"]
        assert last["name"] == RESULT
        found.append(
            Sequence([Call(call["label"], call["name"], call["arguments"]) for call in calls], last["arguments"])
        )
    return found


def steps(path: str) -> list[str | int]:
    """`.author[0].id` as keys and places."""
    return [int(place) if place else key for key, place in _STEP.findall(path)]


def referred(sequences: list[Sequence]) -> dict[str, set[tuple[str | int, ...]]]:
    """What the sequences take from the answers of each service."""
    taken: dict[str, set[tuple[str | int, ...]]] = {}
    for sequence in sequences:
        service = {call.id: call.service for call in sequence.calls}
        for given in (*(call.arguments for call in sequence.calls), sequence.result):
            for label, path in _VALUE.findall(json.dumps(given)):
                taken.setdefault(service[label], set()).add(tuple(steps(path)))
    return taken


ANSWER = '''
def answer(service, arguments):
    """The arguments, and a text of its own under each path that is ever taken from this service."""
    told = json.dumps([service, arguments], sort_keys=True, ensure_ascii=False)
    value = {"arguments": arguments}
    for path in TAKEN.get(service, ()):
        place = value
        for step, after in zip(path, path[1:]):
            if isinstance(step, int):
                place.extend({} for _ in range(step + 1 - len(place)))
                place = place[step]
            else:
                place = place.setdefault(step, [] if isinstance(after, int) else {})
        if path and isinstance(path[-1], str):
            place.setdefault(path[-1], f"{path} of {told}")
        elif path:
            place.append({})
    return value
'''


def function(service: str) -> str:
    return re.sub(r"\W", "_", service)


def module(services: Mapping[str, Mapping[str, bool]], sequences: list[Sequence], *, lenient: bool) -> str:
    """The source of a module with a function for each service.

    A lenient one takes what the specification does not know, and does without what it requires, as some sequences do.
    """
    # Longer paths first: what is taken as a whole somewhere may be taken apart elsewhere.
    taken = {name: sorted(map(list, paths), key=len, reverse=True) for name, paths in referred(sequences).items()}
    lines = ["import json", f"TAKEN = {taken!r}", ANSWER]
    for service, parameters in services.items():
        names = [name if required and not lenient else f"{name}=None" for name, required in parameters.items()]
        others = ", **others" if lenient else ""
        lines.append(f"def {function(service)}({', '.join(['*', *names]) if names else ''}{others}):")
        lines.append("    given = dict(locals())")
        lines.append("    given.update(given.pop('others', {}))")
        lines.append(f"    return answer({service!r}, {{k: v for k, v in given.items() if v is not None}})")
    return "\n".join(lines) + "\n"


def process(number: int, sequence: Sequence) -> comagent.Process:
    """The sequence, with a step for each call."""
    made = comagent.Process(f"sequence {number}")
    known: dict[str, Value] = {}

    def part(label: str, path: str) -> Value:
        value = known[label]
        for step in steps(path):
            value = value[step]
        return value

    def argument(given: Any) -> Any:
        if isinstance(given, list):
            return [argument(each) for each in given]
        if not isinstance(given, str):
            return given
        if whole := _VALUE.fullmatch(given):
            return part(whole[1], whole[2])
        return _VALUE.sub(lambda found: f"${{{part(found[1], found[2])._reference}}}", given)

    for call in sequence.calls:
        arguments = {name: argument(given) for name, given in call.arguments.items()}
        known[call.id] = made.step(f"python:services.{function(call.service)}", arguments, id=call.id)
    made.outputs(result={name: argument(given) for name, given in sequence.result.items()}, calls=list(known.values()))
    return made


def expected(sequence: Sequence, answer: Any) -> dict[str, Any]:
    """The same worked out here, one call after the other."""
    known: dict[str, Any] = {}

    def part(label: str, path: str) -> Any:
        value = known[label]
        for step in steps(path):
            value = value[step]
        return value

    def text(found: re.Match[str]) -> str:
        value = part(found[1], found[2])
        return value if isinstance(value, str) else canonical_json(value)

    def argument(given: Any) -> Any:
        if isinstance(given, list):
            return [argument(each) for each in given]
        if not isinstance(given, str):
            return given
        whole = _VALUE.fullmatch(given)
        return part(whole[1], whole[2]) if whole else _VALUE.sub(text, given)

    for call in sequence.calls:
        arguments = {name: argument(given) for name, given in call.arguments.items()}
        known[call.id] = answer(call.service, arguments)
    return {
        "result": {name: argument(given) for name, given in sequence.result.items()},
        "calls": [known[call.id] for call in sequence.calls],
    }


def write(
    folder: Path, services: Mapping[str, Mapping[str, bool]], sequences: list[Sequence], *, lenient: bool
) -> list[Path]:
    """The services as a module, and the sequences as files beside it."""
    (folder / "services.py").write_text(module(services, sequences, lenient=lenient), encoding="utf-8")
    paths = []
    for number, sequence in enumerate(sequences):
        paths.append(folder / f"sequence-{number}.yaml")
        paths[-1].write_text(process(number, sequence).to_yaml(), encoding="utf-8")
    return paths


def test_every_reference_arrives_unchanged(
    client: Client, services: dict[str, dict[str, bool]], sequences: list[Sequence], tmp_path: Path
) -> None:
    assert len(sequences) == 85
    paths = write(tmp_path, services, sequences, lenient=True)
    scope: dict[str, Any] = {}
    exec((tmp_path / "services.py").read_text(encoding="utf-8"), scope)

    jobs = client.submit_many([(path, {}) for path in paths])

    for sequence, job in zip(sequences, jobs, strict=True):
        assert job.result(WAIT_S) == expected(sequence, scope["answer"])


def test_calls_that_do_not_fit_the_specifications_are_named_before_anything_runs(
    services: dict[str, dict[str, bool]], sequences: list[Sequence], tmp_path: Path
) -> None:
    refused = 0
    for sequence, path in zip(sequences, write(tmp_path, services, sequences, lenient=False), strict=True):
        wrong = set()
        for call in sequence.calls:
            known = services[call.service]
            wrong |= {(call.id, f'there is no parameter "{name}"') for name in call.arguments if name not in known}
            missing = [name for name, required in known.items() if required and name not in call.arguments]
            wrong |= {(call.id, f'parameter "{name}" is missing') for name in missing}
        problems = problems_of(path)
        assert all(problem.file == str(path) and problem.line for problem in problems)
        assert {(problem.task, problem.message.partition(" (did you")[0]) for problem in problems} == wrong
        refused += bool(problems)
    assert 0 < refused < len(sequences)


def problems_of(path: Path) -> tuple[comagent.Problem, ...]:
    try:
        prepare_file(path)
    except ProcessError as error:
        return error.problems
    return ()
