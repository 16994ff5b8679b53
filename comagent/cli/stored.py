"""Values in the store, read without Ray."""

from typing import Any

from comagent.config import Config
from comagent.protocol import Large, Wire
from comagent.store.documents import Documents
from comagent.values import decode


def value_of(wire: Wire | None, config: Config) -> Any:
    """A value as Python data. Raises `StoreError` if its document is missing or damaged."""
    if wire is None:
        return None
    return decode(Documents(config.documents).get(wire.hash) if isinstance(wire, Large) else wire)
