import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent.retry import delay_s, should_retry
from comagent.spec import Retry

retries = st.builds(
    Retry,
    attempts=st.integers(1, 1000),
    delay_s=st.floats(0, 1e6),
    factor=st.floats(1, 1000),
    max_delay_s=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


def test_one_attempt_means_no_retry() -> None:
    assert not should_retry(Retry(), 1, "ValueError")


def test_attempts_count_the_first_try() -> None:
    retry = Retry(attempts=3)
    assert [should_retry(retry, attempt, "ValueError") for attempt in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize("error_type", ["ConnectionError", "builtins.ConnectionError", "TimeoutError"])
def test_only_the_named_errors_are_tried_again(error_type: str) -> None:
    retry = Retry(attempts=2, on=("ConnectionError", "timeout"))
    assert should_retry(retry, 1, error_type)
    assert not should_retry(retry, 1, "ValueError")


def test_an_error_may_be_named_with_its_module() -> None:
    retry = Retry(attempts=2, on=("httpx.ReadError",))
    assert should_retry(retry, 1, "httpx.ReadError")
    assert not should_retry(retry, 1, "other.ReadError")


def test_delays_grow_by_the_factor_up_to_the_limit() -> None:
    retry = Retry(attempts=9, delay_s=1, factor=2, max_delay_s=10, jitter=0)
    assert [delay_s(retry, attempt, key="k") for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_the_tasks_of_a_job() -> None:
    retry = Retry(attempts=2, delay_s=10, jitter=0.5)
    delays = [delay_s(retry, 1, key=f"job/{task}") for task in range(1000)]
    assert min(delays) < 6
    assert max(delays) > 14
    assert 9 < sum(delays) / len(delays) < 11


def test_a_negative_spread_never_goes_below_zero() -> None:
    retry = Retry(attempts=2, delay_s=1, jitter=1)
    assert all(0 <= delay_s(retry, 1, key=str(key)) <= 2 for key in range(1000))


@given(retry=retries, attempt=st.integers(1, 5000), key=st.text())
def test_a_delay_is_within_its_limits_and_always_the_same(retry: Retry, attempt: int, key: str) -> None:
    delay = delay_s(retry, attempt, key=key)
    assert 0 <= delay <= retry.max_delay_s
    assert delay == delay_s(retry, attempt, key=key)


@given(retry=retries, attempt=st.integers(1, 2000), error_type=st.text())
def test_what_is_refused_once_stays_refused(retry: Retry, attempt: int, error_type: str) -> None:
    if not should_retry(retry, attempt, error_type):
        assert not should_retry(retry, attempt + 1, error_type)
