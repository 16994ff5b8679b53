"""Tools that read the files which come with ComAgent, to try processes with: they are the same on every machine."""

from pathlib import Path

from comagent.errors import ArgumentError
from comagent.nearest import did_you_mean
from comagent.tools import data
from comagent.tools.base import tool
from comagent.tools.data import Table, Type

__all__ = ["read_csv", "read_text"]

_FOLDER = Path(__file__).parents[1] / "configs" / "data"
_CSV, _TEXT = "samples.read_csv", "samples.read_text"
_MOST_ROWS = 100_000


@tool(name=_CSV, kind="thread", effects="none")
def read_csv(
    name: str,
    *,
    columns: list[str] | None = None,
    types: dict[str, Type] = {},  # noqa: B006  # never changed
) -> Table:
    """Read a CSV file that comes with ComAgent, as `data.read_csv` does one of the workspace."""
    text = _file(name, tool=_CSV).read_text(encoding="utf-8")
    return data.table(text, name, delimiter=",", columns=columns, types=types, limit=_MOST_ROWS)


@tool(name=_TEXT, kind="thread", cost="cheap", effects="none")
def read_text(name: str) -> str:
    """Read a text file that comes with ComAgent."""
    return _file(name, tool=_TEXT).read_text(encoding="utf-8")


def _file(name: str, *, tool: str) -> Path:
    names = sorted(path.name for path in _FOLDER.iterdir())
    if name in names:
        return _FOLDER / name
    remedy = did_you_mean(name, names, otherwise=f"There are: {', '.join(names)}.")
    raise ArgumentError(tool, f'no sample is called "{name}"', remedy)
