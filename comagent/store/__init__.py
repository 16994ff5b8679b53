"""The durable truth about jobs: an interface, its keepers, and the documents beside it."""

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
    "Stale",
    "Store",
    "Verdict",
    "store_at",
]


def store_at(url: str, *, timeout_s: float = 30.0) -> Store:
    """The store that a URL such as `sqlite:////home/me/comagent.db` names, not opened yet."""
    # Who only names documents or rows does without SQLAlchemy, whose import takes 0.15 s: agents above all.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from comagent.store.sql import SqlStore

    remedy = "Use a URL like sqlite:////absolute/path/comagent.db."
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's address is not a URL", remedy) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StoreError(f"{parsed.render_as_string()} names no store that ComAgent can use", remedy)
    return SqlStore(url, timeout_s=timeout_s)
