"""Values as bytes: what comes back is what went in, or it is refused with a reason."""

import json
import math
from collections import OrderedDict
from contextlib import suppress
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent.errors import ValueNotStorableError
from comagent.values import MAX_DEPTH, decode, encode
from tests.toolbox import UNSTORABLE, return_thread

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_a_json_value_comes_back_as_it_was(value: Any) -> None:
    back = decode(encode(value, tool="t"))

    assert back == value
    assert type(back) is type(value)


@given(VALUES)
def test_equal_values_are_equal_bytes_whatever_the_order_of_their_keys(value: Any) -> None:
    def turned(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(list(part))}
        return [turned(item) for item in part] if isinstance(part, list) else part

    assert encode(value, tool="t") == encode(turned(value), tool="t")


@given(VALUES)
def test_the_fast_ways_for_scalars_write_what_the_encoder_writes(value: Any) -> None:
    (alone,) = json.loads(encode([value], tool="t"))

    assert encode([value], tool="t") == b"[" + encode(value, tool="t") + b"]"
    assert alone == value


@given(VALUES)
def test_a_value_is_read_from_any_buffer(value: Any) -> None:
    assert decode(memoryview(encode(value, tool="t"))) == value


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2,)), [1, [2]]),
        ({1: "a", 2: "b"}, {"1": "a", "2": "b"}),
        ({True: 1}, {"true": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (Colour.RED, 1),
        (-0.0, 0.0),
        (1e308, 1e308),
        (5e-324, 5e-324),
    ],
)
def test_what_is_near_to_json_becomes_json(value: Any, back: Any) -> None:
    assert decode(encode(value, tool="t")) == back


def test_a_negative_zero_keeps_its_sign() -> None:
    assert math.copysign(1, decode(encode(-0.0, tool="t"))) == -1


@pytest.mark.parametrize(("what", "told"), UNSTORABLE)
def test_what_json_cannot_hold_is_refused_with_the_reason_and_the_tool(what: str, told: str) -> None:
    with pytest.raises(ValueNotStorableError, match=told) as refused:
        encode(return_thread(what), tool="some.tool")

    assert "some.tool" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_value_may_have_many_containers_and_many_levels() -> None:
    value: Any = [[[number]] for number in range(1000)]
    for number in range(MAX_DEPTH - 3):
        value = [value] if number % 2 else {"a": value}

    assert decode(encode(value, tool="t")) == value


def test_values_are_refused_before_they_are_too_deep_to_be_read() -> None:
    """Whatever is written by one process must be readable in another, from a deeper stack."""
    value: Any = 1
    written: list[bytes] = []
    with suppress(ValueNotStorableError):
        for _ in range(2 * MAX_DEPTH):
            value = [value]
            written.append(encode(value, tool="t"))

    def read_from(stack: int) -> None:
        if stack:
            read_from(stack - 1)
        else:
            decode(written[-1])

    read_from(300)
    assert len(written) == MAX_DEPTH
