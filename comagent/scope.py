"""What the expressions of a task can see while it runs: values that came with its unit, or were made in it.

Each reader has a copy of its own: a tool may change what it is given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from comagent.protocol import Unit
from comagent.steps import ENTRY
from comagent.values import SCALARS, decode, encode

NOTHING: Mapping[str, Any] = {}


def scope_of_unit(unit: Unit, fetched: Mapping[str, bytes]) -> dict[str, Any]:
    """What the expressions of a unit may refer to."""
    wires = {path: wire for path, wire in unit.literals.items() if isinstance(wire, bytes)}
    wires.update(fetched)
    inputs = decode(unit.inputs) if isinstance(unit.inputs, bytes) else decode(fetched["/inputs"])
    scope: dict[str, Any] = {"inputs": _Inputs(inputs), "tasks": Values(wires), "status": NOTHING, "errors": NOTHING}
    if unit.ends:
        scope["status"] = {path: status for path, (status, _) in unit.ends.items()}
        scope["errors"] = {path: decode(error) if error else None for path, (_, error) in unit.ends.items()}
    return scope


def scope_within(scope: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same for tasks of the sub-process whose paths begin with `prefix`: they see each other by their own ids."""
    within: dict[str, Any] = {root: _Under(scope[root], prefix) for root in ("tasks", "status", "errors")}
    # The inputs are here only if something in the unit reads them, or if it made them.
    return within | {"inputs": _Inputs(scope["tasks"][prefix + ENTRY] or {})}


class Values(Mapping[str, Any]):
    """Values of tasks by path, decoded when they are read, so that each reader has a copy of its own.

    A task without a value (it failed, was skipped, or has not ended) reads as null.
    """

    __slots__ = ("_scalars", "_wires")

    def __init__(self, wires: Mapping[str, bytes]):
        self._wires = dict(wires)
        self._scalars: dict[str, Any] = {}

    def __getitem__(self, path: str) -> Any:
        try:
            return self._scalars[path]
        except KeyError:
            wire = self._wires.get(path)
        value = None if wire is None else decode(wire)
        if type(value) in SCALARS:
            self._scalars[path] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._wires)

    def __len__(self) -> int:
        return len(self._wires)

    def add(self, path: str, wire: bytes, value: Any) -> None:
        if type(value) in SCALARS:
            self._scalars[path] = value
        self._wires[path] = wire


class _Inputs(dict[str, Any]):
    """The inputs of a process by name: each reader has a copy of its own."""

    __slots__ = ("_wires",)

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(values)
        self._wires: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if type(value) in SCALARS:
            return value
        wire = self._wires.get(name)
        if wire is None:
            wire = self._wires[name] = encode(value, tool="")
        return decode(wire)


class _Under(Mapping[str, Any]):
    """What a mapping by path has below one path: the tasks of a sub-process, by their own ids."""

    __slots__ = ("_all", "_prefix")

    def __init__(self, everything: Mapping[str, Any], prefix: str):
        self._all = everything
        self._prefix = prefix

    def __getitem__(self, name: str) -> Any:
        return self._all[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (path.removeprefix(self._prefix) for path in self._all if path.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
