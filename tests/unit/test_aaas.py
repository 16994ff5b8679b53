"""The AaaS form of a process is accepted as it stands."""

import json
from pathlib import Path
from typing import Any

import pytest

from comagent.aaas import short_form
from comagent.errors import ProcessError
from comagent.submission import prepare_file

EXAMPLE = Path(__file__).parents[2] / "configs" / "processes" / "data-ingestion.json"
EXTRACT, CONVERT, SEND = (
    "423e4567-e89b-12d3-a456-426614174003",
    "723e4567-e89b-12d3-a456-426614174006",
    "823e4567-e89b-12d3-a456-426614174007",
)


def document() -> dict[str, Any]:
    example: dict[str, Any] = json.loads(EXAMPLE.read_text())
    return example


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "process.json"
    path.write_text(json.dumps(document, indent=2))
    return path


def refused(document: dict[str, Any], folder: Path) -> list[str]:
    with pytest.raises(ProcessError) as raised:
        prepare_file(written(document, folder))
    return str(raised.value).splitlines()


def test_the_example_becomes_tasks_that_call_tools() -> None:
    process = prepare_file(EXAMPLE).process

    assert (process.id, process.name) == ("123e4567-e89b-12d3-a456-426614174000", "Data Ingestion")
    assert [(task.id, task.name, task.tool, task.needs) for task in process.tasks] == [
        (EXTRACT, "Extract Data", "samples.read_csv", ()),
        (CONVERT, "Convert Results to HTML", "html.from_table", (EXTRACT,)),
        (SEND, "Send Results via Email", "mail.send", (CONVERT,)),
    ]
    extract, convert, send = process.tasks
    assert extract.arguments["name"] == "orders.csv"
    assert convert.arguments == {
        "rows": f'${{tasks["{EXTRACT}"].rows}}',
        "columns": f'${{tasks["{EXTRACT}"].columns}}',
    }
    assert send.arguments == {"to": "operator@localhost", "subject": "Results", "html": f'${{tasks["{CONVERT}"]}}'}


def test_agents_and_their_models_are_kept() -> None:
    stored = json.loads(prepare_file(EXAMPLE).process_doc)
    assert [task["agent"] for task in stored["tasks"]] == [task["agent"] for task in document()["tasks"]]


def test_what_a_task_says_comes_before_what_its_agent_says(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][2]["with"] = {"to": "you@example.org", "text": "attached"}
    send = prepare_file(written(changed, tmp_path)).process.tasks[2]
    assert send.arguments["to"] == "you@example.org"
    assert send.arguments["text"] == "attached"
    assert send.arguments["subject"] == "Results"


@pytest.mark.parametrize("name", ["etl tool", "ETLTool", "Etl-Tool", "ETL  TOOL"])
def test_case_and_spaces_of_a_tools_name_do_not_count(name: str, tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][0]["agent"]["tools"][0]["name"] = name
    changed["tasks"][0]["agent"]["name"] = "Somebody Else"
    assert prepare_file(written(changed, tmp_path)).process.tasks[0].tool == "samples.read_csv"


def test_a_tool_is_found_by_its_id_too(tmp_path: Path) -> None:
    changed = document()
    agent = {"id": "a1", "name": "Watcher", "tools": [{"id": "system.memory", "name": "Memory of the machine"}]}
    changed["tasks"] = [{**changed["tasks"][0], "agent": agent}]
    assert prepare_file(written(changed, tmp_path)).process.tasks[0].tool == "system.memory"


def test_a_tool_that_nobody_has_is_an_error_with_its_place(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][0]["agent"]["tools"][0]["name"] = "ETL Tol"
    (problem,) = refused(changed, tmp_path)
    assert problem.startswith(f"{tmp_path / 'process.json'}:")
    assert f'task "{EXTRACT}", field "agent": no tool is called "ETL Tol"' in problem
    assert problem.endswith('Did you mean "ETL Tool"?')


def test_a_parameter_that_nothing_tells_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][1]["dependencies"] = []
    (problem,) = refused(changed, tmp_path)
    assert f'task "{CONVERT}"' in problem
    assert 'parameter "rows" of tool "html.from_table" ("HTML Converter"): no task comes before it' in problem


def test_a_result_of_the_wrong_type_is_not_taken(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][2]["dependencies"] = [{"task_id": EXTRACT}]
    (problem,) = refused(changed, tmp_path)
    assert f'nothing tells the parameter "html" of tool "mail.send" ("Email Sender"): task "{EXTRACT}" gives' in problem
    assert "an object with columns, rows, truncated" in problem


@pytest.mark.parametrize("dependency", [{"task": EXTRACT}, {"task_id": 3}, 3, {"task_id": EXTRACT, "kind": "soft"}])
def test_a_dependency_that_names_no_task_is_an_error(dependency: object, tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][1]["dependencies"] = [dependency]
    (problem,) = refused(changed, tmp_path)
    assert f'task "{CONVERT}", field "dependencies.0": this names no task' in problem
    assert problem.startswith(f"{tmp_path / 'process.json'}:")


def test_unknown_and_circular_dependencies_are_named(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][0]["dependencies"] = [{"task_id": SEND}]
    changed["tasks"][1]["dependencies"].append({"task_id": "nobody"})
    problems = "\n".join(refused(changed, tmp_path))
    assert 'no task is called "nobody"' in problems


def test_the_short_form_stays_as_it_is() -> None:
    short = {"name": "x", "tasks": [{"id": "a", "needs": ["b"]}, "no task", {"id": "b", "agent": "data-agent"}]}
    assert short_form(short) == short


def test_dependencies_may_also_be_ids_alone() -> None:
    tasks = [{"id": "a", "dependencies": ["b", {"task_id": "c"}]}]
    assert short_form({"process_id": "p", "tasks": tasks}) == {"id": "p", "tasks": [{"id": "a", "needs": ["b", "c"]}]}


def test_both_forms_at_once_are_refused(tmp_path: Path) -> None:
    changed = document()
    changed["tasks"][1]["needs"] = [EXTRACT]
    (problem,) = refused(changed, tmp_path)
    assert 'field "dependencies": there is no such field' in problem
