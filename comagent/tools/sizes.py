"""Limits to what tools take in."""

from comagent.errors import ComAgentError

__all__ = ["MIB", "TooLargeError"]

MIB = 2**20


class TooLargeError(ComAgentError):
    """What a tool was to take in is larger than it may be."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what = what
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what} is larger than {self.limit:,} bytes. Raise max_bytes, or ask for less."
