"""Real services for the tests, one parameter for each kind."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import comagent
from comagent.client import Client
from comagent.config import Config
from comagent.coordination import Coordination, EmbeddedCoordination
from comagent.store import Store, store_at
from tests.waiting import gone, until


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


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that all tests share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(home: Path) -> Iterator[Client]:
    """One embedded run for all tests, with two agents. When it is closed, no process is left of it."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with comagent.connect(config=Config(home=home, cpus=2, agents=2)) as connected:
        yield connected
        started = {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert started, "a run has processes"
    until(gone(started))
