"""The durable truth about jobs: an interface, its keepers, and the documents beside it."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from comagent.errors import StoreError
from comagent.store.base import (
    BatchRow,
    Committed,
    DocumentRow,
    Epoch,
    Event,
    EventRow,
    Exists,
    JobCommit,
    JobRecord,
    JobRow,
    Outcome,
    ProgressRow,
    Refused,
    Stale,
    Store,
    Verdict,
)
from comagent.store.documents import Documents
from comagent.store.sql import SqlStore

__all__ = [
    "BatchRow",
    "Committed",
    "DocumentRow",
    "Documents",
    "Epoch",
    "Event",
    "EventRow",
    "Exists",
    "JobCommit",
    "JobRecord",
    "JobRow",
    "Outcome",
    "ProgressRow",
    "Refused",
    "SqlStore",
    "Stale",
    "Store",
    "Verdict",
    "store_at",
]


def store_at(url: str, *, timeout_s: float = 30.0) -> Store:
    """The store that a URL such as `sqlite:////home/me/comagent.db` names, not opened yet."""
    remedy = "Use a URL like sqlite:////absolute/path/comagent.db."
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's address is not a URL", remedy) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StoreError(f"{parsed.render_as_string()} names no store that ComAgent can use", remedy)
    return SqlStore(url, timeout_s=timeout_s)
