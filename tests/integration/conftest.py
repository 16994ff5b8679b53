"""Real services for the tests, one parameter for each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comagent.coordination import Coordination, EmbeddedCoordination
from comagent.store import Store, store_at


@pytest.fixture(params=["sqlite"])
def store_url(tmp_path: Path) -> str:
    """Where an empty store may be made."""
    return f"sqlite:///{tmp_path}/comagent.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = store_at(store_url)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(params=["embedded"])
def coordination(tmp_path: Path) -> Iterator[Coordination]:
    opened = EmbeddedCoordination(tmp_path / "coordination.db")
    opened.open()
    yield opened
    opened.close()
