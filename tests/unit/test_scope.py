"""What expressions can see: values that came with the unit, and of a sub-process its own tasks and inputs."""

from comagent.protocol import BATCH, Unit
from comagent.scope import scope_of_unit, scope_within
from comagent.values import encode


def unit(**literals: bytes) -> Unit:
    return Unit((1, 1, 1), "job", BATCH, [], 0, {}, b"{}", dict(literals), {})


def test_tasks_of_a_sub_process_see_each_other_and_its_inputs() -> None:
    values = {"sub//inputs": encode({"who": "Ann"}, tool=""), "sub/greet": encode("hello", tool="")}
    within = scope_within(scope_of_unit(unit(**values), {}), "sub/")

    assert within["tasks"]["greet"] == "hello"
    assert within["inputs"]["who"] == "Ann"


def test_a_unit_that_reads_no_inputs_of_a_sub_process_comes_without_them() -> None:
    within = scope_within(scope_of_unit(unit(**{"sub/greet": encode("hello", tool="")}), {}), "sub/")

    assert within["tasks"]["greet"] == "hello"
    assert dict(within["inputs"]) == {}
