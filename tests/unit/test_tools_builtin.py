"""The tools that come with ComAgent, and the process that shows them."""

import asyncio
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from comagent.expressions import condition, evaluate_condition, template
from comagent.expressions import resolve as resolve_arguments
from comagent.spec import Process, bind_inputs, parse
from comagent.tools import ToolContext
from comagent.tools.debug import DebugError
from comagent.tools.loading import load
from comagent.tools.registry import check_arguments, resolve
from comagent.tools.text import RenderError, render

HEALTH = Path(__file__).parents[2] / "configs" / "processes" / "cluster-health.yaml"


def call(name: str, *, attempt: int = 1, **arguments: Any) -> Any:
    return load(resolve(name).code).call(arguments, ToolContext("job", "task", attempt, (1, 1), "key"))


def test_echo_returns_the_value_as_it_is() -> None:
    value = {"a": [1, 2.5, None]}
    assert call("debug.echo", value=value) is value


def test_sleep_returns_its_value() -> None:
    assert asyncio.run(call("debug.sleep", seconds=0, value="awake")) == "awake"
    assert asyncio.run(call("debug.sleep", seconds=-1)) is None


def test_fail_fails_always_or_in_its_first_attempts() -> None:
    with pytest.raises(DebugError, match="on purpose"):
        call("debug.fail", attempt=99, message="on purpose")
    for attempt in (1, 2):
        with pytest.raises(DebugError):
            call("debug.fail", attempt=attempt, message="on purpose", times=2)
    assert call("debug.fail", attempt=3, message="on purpose", times=2) == {"attempt": 3}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("system.cpu", {"interval_s": 0.01}),
        ("system.memory", {}),
        ("system.disk", {}),
        ("system.processes", {"limit": 2}),
        ("system.processes", {"by": "cpu", "interval_s": 0.01}),
        ("system.network", {}),
        ("system.host", {}),
    ],
)
def test_measurements_are_what_their_schema_says(name: str, arguments: dict[str, Any]) -> None:
    schema = resolve(name).returns
    assert schema is not None
    value = call(name, **arguments)
    jsonschema.validate(value, schema)
    assert 0 <= value.get("percent", 0) <= 100
    if "percent" in value:
        assert isinstance(value["percent"], float)  # expressions compare it with 90.0


def test_processes_are_sorted_and_limited() -> None:
    top = call("system.processes", limit=3)["top"]
    assert len(top) <= 3
    assert top == sorted(top, key=lambda row: row["memory_percent"], reverse=True)


def test_a_path_that_is_not_there_is_told_so() -> None:
    with pytest.raises(FileNotFoundError, match="there is no /no/such/path on this machine"):
        call("system.disk", path="/no/such/path")


def test_findings_are_the_checks_above_their_limit() -> None:
    checks = [
        {"what": "disk is full", "value": 91, "limit": 90, "advice": "delete something"},
        {"what": "disk is not full", "value": 90, "limit": 90, "advice": "nothing"},
    ]
    assert call("text.findings", checks=checks) == ["disk is full (limit 90): delete something"]


def test_a_template_is_filled_in() -> None:
    values = {"disk": {"percent": 12.5}, "names": ["a", "b"]}
    text = "{{ disk.percent }} %{% for name in names %} {{ loop.index }}{{ name }}{% endfor %} {{ '%-4s|' % 'x' }}"
    assert render(text, values) == "12.5 % 1a 2b x   |"
    assert render("{{ '{:,}'.format(10 ** 9) }} {{ names | join(', ') }}", values) == "1,000,000,000 a, b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ missing }}", "line 2 of the template: 'missing' is undefined"),
        ("{% if %}", "line 1 of the template: Expected an expression"),
        ("{{ 1 / 0 }}", "line 1 of the template: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ items.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_what_a_template_cannot_do_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RenderError, match=message):
        render(text, {"items": []})


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ 10 ** 1000000000 }}",
        "{{ 'x' | center(10000000000) }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=10000000000) }}",
        "{{ ('a' * 1000000).replace('a', 'a' * 1000000) }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(10000000000) %}{% endfor %}",
        "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set n = namespace(x='xx') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% macro f() %}{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}{% endmacro %}{{ f() }}",
    ],
)
@pytest.mark.timeout(20)
def test_a_template_that_would_use_up_time_or_memory_is_stopped(text: str) -> None:
    with pytest.raises(RenderError, match=r"more than|Range too big|larger than"):
        render(text)


@pytest.fixture(scope="module")
def health() -> Process:
    return parse(yaml.safe_load(HEALTH.read_text()), file=str(HEALTH))


def run(process: Process, **inputs: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Outputs and statuses of the tasks, run one after the other in the order of the file."""
    scope: dict[str, Any] = {"inputs": bind_inputs(process, inputs), "tasks": {}, "status": {}, "errors": {}}
    for task in process.tasks:
        wanted = task.when is None or evaluate_condition(condition(task.when), scope)
        scope["status"][task.id] = "succeeded" if wanted else "skipped"
        arguments = template(task.arguments)
        scope["tasks"][task.id] = call(task.tool or "", **resolve_arguments(arguments, scope)) if wanted else None
    return resolve_arguments(template(process.outputs or {}), scope), scope["status"]


def test_the_arguments_of_the_health_process_fit_its_tools(health: Process) -> None:
    for task in health.tasks:
        dynamic = {name for name, value in task.arguments.items() if "${" in str(value)}
        assert check_arguments(resolve(task.tool or ""), task.arguments, dynamic=dynamic) == []


def test_a_healthy_machine_needs_no_attention(health: Process) -> None:
    limits = dict.fromkeys(("cpu_limit", "memory_limit", "swap_limit", "disk_limit", "load_limit"), 1e6)
    outputs, statuses = run(health, **limits)
    assert outputs["findings"] == []
    assert "Findings\n  nothing needs attention\n" in outputs["report"]
    assert statuses["hungry"] == "skipped"
    assert 0 < outputs["disk_percent"] <= 100


def test_what_is_above_its_limit_is_a_finding_with_advice(health: Process) -> None:
    outputs, statuses = run(health, memory_limit=0, disk_limit=0.0, cpu_limit=101, swap_limit=101, load_limit=1e6)
    assert [finding.split()[0] for finding in outputs["findings"]] == ["memory", "disk"]
    assert statuses["hungry"] == "succeeded"
    assert "1. memory is" in outputs["report"]
    assert "Who uses the memory" in outputs["report"]


def test_the_lines_of_the_report_fit_a_terminal(health: Process) -> None:
    outputs, _ = run(health, disk_limit=100, load_limit=1e6)
    bars = [line for line in outputs["report"].splitlines() if "[" in line]
    assert len({line.index("]") for line in bars}) == 1
    assert max(map(len, bars)) <= 100
