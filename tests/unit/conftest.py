"""The event loops that tests run in."""

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Python's own event loop; and for tests that ask for it uvloop, which Ray takes where it is installed."""
    asked = item.get_closest_marker("asyncio")
    if asked is None or "loop_factories" not in asked.kwargs or find_spec("uvloop") is None:
        return {"asyncio": asyncio.new_event_loop}
    import uvloop

    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
