import json
from pathlib import Path
from typing import Any

import pytest

from comagent import spec
from comagent.errors import ProcessError
from comagent.submission import Prepared, plan_from, prepare, prepare_file, submission


def document(**fields: Any) -> dict[str, Any]:
    tasks = [
        {"id": "a", "tool": "debug.echo", "with": {"value": "${inputs.text}"}},
        {"id": "b", "tool": "debug.sleep", "needs": ["a"], "with": {"seconds": 0}},
    ]
    return {"name": "p", "inputs": {"text": {"type": "string", "default": "hello"}}, "tasks": tasks, **fields}


def prepared(**fields: Any) -> Prepared:
    return prepare(spec.parse(document(**fields)))


def test_a_plan_that_is_made_again_from_the_stored_documents_is_the_same() -> None:
    made = prepared()
    again = plan_from(made.process_doc, made.tools_doc, process_hash=made.plan.process_hash)
    assert again == made.plan


def test_an_equal_process_has_an_equal_key_and_another_one_another() -> None:
    assert prepared().key == prepared().key
    assert prepared().key != prepared(description="another").key


def test_what_the_engine_knows_of_a_tool_travels_with_the_job() -> None:
    tools = json.loads(prepared().tools_doc)
    assert sorted(tools) == ["debug.echo", "debug.sleep"]
    assert tools["debug.sleep"][0] == "async"


def test_all_defects_of_tools_and_tasks_are_named_at_once() -> None:
    tasks = [
        {"id": "a", "tool": "debug.ecko", "with": {"value": 1}},
        {"id": "b", "tool": "debug.echo", "with": {"valu": 1}},
        {"id": "c", "tool": "debug.echo", "needs": ["nobody"], "with": {"value": 1}},
    ]
    with pytest.raises(ProcessError) as caught:
        prepare(spec.parse(document(tasks=tasks)))
    assert {each.task for each in caught.value.problems} == {"a", "b", "c"}
    assert "debug.echo" in str(caught.value)


def test_a_defect_is_shown_with_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntasks:\n  - {id: a, tool: debug.echo, with: {value: 1}}\n  - {id: b, tool: nothing}\n")
    with pytest.raises(ProcessError, match=r"p\.yaml:4"):
        prepare_file(path)


def test_a_submission_takes_the_priority_of_its_process_and_its_id_as_its_key() -> None:
    made = submission(prepared(priority="high"), {}, job_id="job")
    assert made.priority == 10
    assert made.idem_key == "job"
    assert json.loads(made.inputs_doc) == {"text": "hello"}
    assert submission(prepared(), {}, job_id="job", idempotency_key="mine").idem_key == "mine"


def test_the_same_process_with_the_same_inputs_is_the_same_payload() -> None:
    def payload(**inputs: str) -> str:
        return submission(prepared(), inputs, job_id="job").payload_hash

    assert payload() == payload(text="hello")
    assert payload() != payload(text="bye")


def test_the_plan_may_be_left_out_where_it_is_known() -> None:
    made = submission(prepared(), {}, job_id="job")
    lean = made.without_plan()
    assert lean.plan is None
    assert (lean.process_doc, lean.tools_doc) == (b"", b"")
    assert (lean.key, lean.inputs_doc) == (made.key, made.inputs_doc)


@pytest.mark.parametrize("inputs", [{"text": 1}, {"nothing": "x"}])
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ProcessError):
        submission(prepared(), inputs, job_id="job")


def test_inputs_that_json_cannot_hold_are_refused() -> None:
    loose = prepared(inputs={"text": {"default": "x"}})
    with pytest.raises(ProcessError, match="JSON cannot"):
        submission(loose, {"text": float("nan")}, job_id="job")
