"""Definitions of agents: where they are found, what they say, and what they make of a task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comagent import spec
from comagent.agents import Agents, assigned, load_agents, parse_agent
from comagent.agents.catalogue import _SHIPPED
from comagent.errors import ProcessError
from comagent.reading import read_process
from comagent.submission import prepare, prepare_file
from comagent.tools.registry import resolve

HERE = f"python:{__name__}"


def untyped(value):  # type: ignore[no-untyped-def]  # says nothing about its result
    return value


def listed(items: list[int]) -> list[int]:
    return items


def named(first: str, second: str) -> str:
    return first + second


def count() -> int:
    return 3


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes definitions into the project, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs" / "agents"
    folder.mkdir(parents=True)

    def write(text: str, name: str = "agent.yaml") -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return write


def tasks(*tasks: dict[str, Any]) -> tuple[spec.Task, ...]:
    """The tasks of a process, with their tools and arguments."""
    return prepare(spec.parse({"name": "test", "tasks": list(tasks)})).process.tasks


def refused(*given: dict[str, Any]) -> str:
    with pytest.raises(ProcessError) as raised:
        tasks(*given)
    return str(raised.value)


# Definitions ---------------------------------------------------------------------------------------------------------


def test_every_agent_that_comes_with_comagent_has_tools_that_are_there_and_permitted() -> None:
    paths = sorted(_SHIPPED.glob("*.yaml"))
    assert len(paths) >= 3
    for path in paths:
        agent = parse_agent(read_process(path)[0])
        assert agent.id == path.stem
        assert agent.description
        for entry in agent.tools:
            parameters = resolve(entry.tool).parameters["properties"]
            assert agent.policy.permits(entry.tool)
            assert {*entry.arguments, *entry.takes, *entry.may_take} <= parameters.keys()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"id": "a", "tool": []}, 'field "tool": there is no such field. Did you mean "tools"?'),
        ({"id": "a", "tools": [{"nam": "x"}]}, 'field "tools.0.nam": there is no such field. Did you mean "name"?'),
        ({"id": "a", "policy": {"forbid": []}}, "Fields here: allow, deny."),
        ({"description": "x"}, "an agent has an id or a name"),
        ({"id": 3}, 'field "id": this must be a valid string'),
    ],
)
def test_a_definition_with_a_defect_says_where_it_is(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ProcessError) as raised:
        parse_agent(document)
    assert said in str(raised.value)


def test_a_defect_in_a_file_has_its_line(define: Callable[..., None], tmp_path: Path) -> None:
    define("id: a\ntools:\n  - name: x\n    took: y\n")
    assert f'{tmp_path}/configs/agents/agent.yaml:4:5: field "tools.0.took"' in refused({"id": "t", "agent": "a"})


def test_two_files_cannot_define_one_agent(define: Callable[..., None]) -> None:
    define("id: same-agent", "one.yaml")
    define("id: Same Agent", "two.yaml")
    said = refused({"id": "t", "agent": "a"})
    assert 'two.yaml:1:1: field "id": one.yaml defines the agent "Same Agent" too' in said


def test_definitions_of_the_project_come_before_those_of_comagent(define: Callable[..., None]) -> None:
    assert load_agents().find("Data Agent") is not None
    define("id: data-agent\ndescription: ours")
    agents = load_agents()
    assert [agent.description for agent in agents if agent.id == "data-agent"][:1] == ["ours"]
    found = agents.find("DATA AGENT")
    assert found is not None
    assert found.description == "ours"


def test_a_process_in_configs_finds_the_agents_beside_it(tmp_path: Path) -> None:
    agents, processes = tmp_path / "configs" / "agents", tmp_path / "configs" / "processes"
    agents.mkdir(parents=True)
    processes.mkdir()
    (agents / "own.yaml").write_text("{id: own, tools: [debug.echo], arguments: {value: 7}}")
    (processes / "p.yaml").write_text("{name: p, tasks: [{id: a, agent: own}]}")
    (task,) = prepare_file(processes / "p.yaml").process.tasks
    assert (task.tool, task.arguments) == ("debug.echo", {"value": 7})


def test_an_agent_is_found_by_id_or_name() -> None:
    agent = parse_agent({"id": "x-1", "name": "Data Agent"})
    agents = Agents([agent])
    assert agents.find("nobody", "data agent") is agents.find("X1") is agent
    assert agents.find("nobody") is None
    assert list(agents) == [agent]


# Tools ---------------------------------------------------------------------------------------------------------------


def test_a_process_without_agents_is_left_alone() -> None:
    process = spec.parse({"name": "test", "tasks": [{"id": "a", "tool": "debug.echo", "with": {"value": 1}}]})
    assert assigned(process) is process


def test_an_agent_stands_beside_a_tool(define: Callable[..., None]) -> None:
    define("{id: own, arguments: {value: 1, unknown: 2}}")
    (task,) = tasks({"id": "a", "agent": "own", "tool": "debug.echo"})
    assert (task.tool, task.agent, task.arguments) == ("debug.echo", "own", {"value": 1})


def test_a_tool_may_be_called_as_the_agent_calls_it(define: Callable[..., None]) -> None:
    define("{id: own, tools: [{name: Say it, tool: debug.echo, with: {value: 1}}, {name: Wait, tool: debug.sleep}]}")
    (task,) = tasks({"id": "a", "agent": "own", "tool": "say-it"})
    assert (task.tool, task.arguments) == ("debug.echo", {"value": 1})


def test_of_several_tools_one_must_be_named(define: Callable[..., None]) -> None:
    define("{id: own, tools: [debug.echo, debug.sleep]}", "own.yaml")
    define("{id: idle}", "idle.yaml")
    said = refused({"id": "a", "agent": "own"}, {"id": "b", "agent": "idle"}, {"id": "c", "agent": "own-er"})
    assert 'task "a", field "agent": agent "own" has several tools: debug.echo, debug.sleep. Name one of them' in said
    assert 'task "b", field "agent": agent "idle" has no tool' in said
    assert 'task "c", field "agent": no agent is called "own-er". Did you mean "own"?' in said


def test_an_agent_uses_what_its_policy_permits_only(define: Callable[..., None]) -> None:
    define("{id: own, policy: {allow: [debug.*], deny: [debug.fail]}}")
    (task,) = tasks({"id": "a", "agent": "own", "tool": "debug.echo", "with": {"value": 1}})
    assert task.tool == "debug.echo"
    for tool in ("debug.fail", "system.disk"):
        said = refused({"id": "a", "agent": "own", "tool": tool})
        assert f'the policy of agent "own" does not permit tool "{tool}"' in said


def test_an_agent_of_a_task_keeps_the_policy_of_its_definition(define: Callable[..., None]) -> None:
    define("{id: own, name: My Agent, policy: {deny: [system.*]}}")
    said = refused({"id": "a", "agent": {"id": "u1", "name": "my agent", "tools": ["system.disk"]}})
    assert 'the policy of agent "My Agent" does not permit tool "system.disk"' in said


def test_a_name_that_stands_for_several_tools_must_be_made_clear(define: Callable[..., None]) -> None:
    define("{id: one, tools: [{name: Do it, tool: debug.echo}]}", "one.yaml")
    define("{id: two, tools: [{name: Do it, tool: debug.sleep}]}", "two.yaml")
    said = refused({"id": "a", "agent": {"name": "Third", "tools": [{"name": "do it"}]}})
    assert 'agents know several tools as "do it": "debug.echo" and "debug.sleep"' in said


def test_a_function_that_cannot_be_imported_says_why(define: Callable[..., None]) -> None:
    define("{id: own}")
    said = refused({"id": "a", "agent": "own", "tool": "python:nowhere.function"})
    assert 'there is no module "nowhere"' in said


# Arguments -----------------------------------------------------------------------------------------------------------


def test_a_required_parameter_gets_what_a_result_has_under_its_name(define: Callable[..., None]) -> None:
    define("{id: own}")
    disk = {"id": "disk", "tool": "system.disk"}
    (_, _, task) = tasks(
        disk,
        {"id": "count", "tool": f"{HERE}.count"},
        {"id": "a", "agent": "own", "tool": "files.exists", "needs": ["disk", "count"]},
    )
    assert task.arguments == {"path": "${tasks.disk.path}"}


def test_two_results_with_one_name_are_an_error(define: Callable[..., None]) -> None:
    define("{id: own}")
    disks = [{"id": name, "tool": "system.disk"} for name in ("one", "two")]
    said = refused(*disks, {"id": "a", "agent": "own", "tool": "files.exists", "needs": ["one", "two"]})
    assert said.startswith('task "a", field "with": nothing tells the parameter "path" of tool "files.exists": ')
    assert 'tasks "one" and "two" all give one' in said


def test_the_only_parameter_left_gets_the_whole_result_of_the_only_task(define: Callable[..., None]) -> None:
    define("{id: own, arguments: {first: x}}")
    for tool, parameter in ((f"{HERE}.named", "second"), (f"{HERE}.untyped", "value")):
        above = {"id": "above", "tool": f"{HERE}.untyped", "with": {"value": 1}}
        (_, task) = tasks(above, {"id": "a", "agent": "own", "tool": tool, "needs": ["above"]})
        assert task.arguments[parameter] == "${tasks.above}"


def test_a_whole_result_whose_type_does_not_fit_is_not_taken(define: Callable[..., None]) -> None:
    define("{id: own}")
    above = {"id": "above", "tool": f"{HERE}.count"}
    said = refused(above, {"id": "a", "agent": "own", "tool": f"{HERE}.listed", "needs": ["above"]})
    assert 'nothing tells the parameter "items"' in said
    assert 'task "above" gives a value of type integer' in said


def test_of_two_parameters_neither_gets_the_whole_result(define: Callable[..., None]) -> None:
    define("{id: own}")
    above = {"id": "above", "tool": f"{HERE}.untyped", "with": {"value": 1}}
    said = refused(above, {"id": "a", "agent": "own", "tool": f"{HERE}.named", "needs": ["above"]})
    assert 'the parameter "first"' in said
    assert 'the parameter "second"' in said
    assert 'task "above" gives what is not known before it runs' in said


def test_the_outputs_of_a_sub_process_are_known(define: Callable[..., None]) -> None:
    define("{id: own}")
    inner = {"name": "inner", "tasks": [{"id": "x", "agent": "own", "tool": f"{HERE}.count"}], "outputs": {"path": "/"}}
    (part, task) = tasks(
        {"id": "part", "process": inner}, {"id": "a", "agent": "own", "tool": "files.exists", "needs": ["part"]}
    )
    assert task.arguments == {"path": "${tasks.part.path}"}
    assert part.process is not None
    assert part.process.tasks[0].tool == f"{HERE}.count"


def test_optional_parameters_are_left_alone_unless_the_agent_takes_them(define: Callable[..., None]) -> None:
    above = {"id": "above", "tool": "system.disk"}
    below = {"id": "a", "agent": "own", "tool": "files.list", "needs": ["above"]}
    for fields, arguments in (
        ("", {}),
        (", may_take: [path, pattern]", {"path": "${tasks.above.path}"}),
        (", takes: [path]", {"path": "${tasks.above.path}"}),
    ):
        define(f"{{id: own, tools: [{{tool: files.list{fields}}}]}}")
        assert tasks(above, below)[1].arguments == arguments
    define("{id: own, tools: [{tool: files.list, takes: [path, pattern]}]}")
    assert 'the parameter "pattern" of tool "files.list"' in refused(above, below)
