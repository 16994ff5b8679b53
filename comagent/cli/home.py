"""The settings of a command, and the store that they name."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from comagent.config import Config
from comagent.coordination import Coordination, EmbeddedCoordination
from comagent.errors import StoreError
from comagent.store import Store, store_at


def read_config() -> Config:
    """The settings in the environment. A wrong one is bad usage."""
    try:
        return Config()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"COMAGENT_{str(first['loc'][0]).removeprefix('COMAGENT_').upper()}"
        what = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        problem = f"{name}={first['input']}: {what}. Correct or unset the variable."
        raise typer.BadParameter(problem, param_hint="the environment") from None


def is_empty(config: Config) -> bool:
    """Whether nothing was ever stored: looking must not make a folder."""
    return not config.store and not (config.home / "store.db").exists()


@contextmanager
def opened(config: Config) -> Iterator[tuple[Store, Coordination]]:
    """Store and coordination, without Ray. Raises `StoreError`."""
    try:
        config.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the folder {config.home} cannot be used: {error.strerror}"
        raise StoreError(problem, "Set COMAGENT_HOME to a folder that you may write.") from None
    store = store_at(config.store_url)
    coordination = EmbeddedCoordination(config.coordination_path)
    try:
        store.open()
        coordination.open()
        yield store, coordination
    finally:
        coordination.close()
        store.close()
