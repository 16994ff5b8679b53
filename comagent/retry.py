"""When a failed attempt is tried again. Pure: the same question has the same answer, on any machine."""

from hashlib import blake2b

from comagent.spec import Retry

__all__ = ["delay_s", "should_retry"]


def should_retry(retry: Retry, attempt: int, error_type: str) -> bool:
    """Whether the task has another try after its attempt number `attempt` (the first is 1) failed with `error_type`.

    `error_type` is the name of the exception's class, with or without its module.
    """
    if attempt >= retry.attempts:
        return False
    if not retry.on:
        return True
    name = error_type.rpartition(".")[2]
    return error_type in retry.on or name in retry.on or (name == "TimeoutError" and "timeout" in retry.on)


def delay_s(retry: Retry, attempt: int, *, key: str) -> float:
    """How long to wait after attempt number `attempt` failed: exponential, within 0 and `retry.max_delay_s`.

    The jitter comes from a hash of `key` and `attempt` in place of a random number, so that a takeover
    computes the same delay, while the tasks of one job spread out.
    """
    try:
        delay = min(retry.delay_s * retry.factor ** (attempt - 1), retry.max_delay_s)
    except OverflowError:
        delay = retry.max_delay_s
    digest = blake2b(f"{key}:{attempt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    spread = int.from_bytes(digest) / 2**63 - 1
    return max(0.0, min(delay * (1 + retry.jitter * spread), retry.max_delay_s))
