"""Values in the store, read without Ray."""

from typing import Any

from comagent.cli.attend import End
from comagent.config import Config
from comagent.job_view import ended_view, failures_of
from comagent.protocol import Large, Wire
from comagent.store import JobRecord, Store
from comagent.store.documents import Documents
from comagent.values import decode


def value_of(wire: Wire | None, config: Config) -> Any:
    """A value as Python data. Raises `StoreError` if its document is missing or damaged."""
    if wire is None:
        return None
    return decode(Documents(config.documents).get(wire.hash) if isinstance(wire, Large) else wire)


def end_of(store: Store, record: JobRecord, config: Config) -> End:
    """How a job ended, for one that has."""
    outcomes = store.progress(record.job_id)
    view = ended_view(record, outcomes)
    outputs = value_of(view.result, config) if view.status == "succeeded" else None
    return End(record.job_id, view.status, outputs, view.summary(), failures_of(outcomes))
