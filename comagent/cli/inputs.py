"""Inputs of a job from the command line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from comagent.spec import Process


def read_inputs(process: Process, given: Sequence[str], file: Path | None) -> dict[str, Any]:
    """The inputs in `file`, a JSON object, and over them those given as `name=value`.

    A value is text where the process declares a string, else JSON if it is that, else text.
    """
    inputs = {} if file is None else _object_in(file)
    named: set[str] = set()
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f'"{each}" is no input: write name=value.', param_hint="--input")
        if name in named:
            raise typer.BadParameter(f'the input "{name}" is given twice.', param_hint="--input")
        named.add(name)
        declared = process.inputs.get(name)
        inputs[name] = text if declared is not None and declared.type == "string" else _value(text)
    return inputs


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _object_in(file: Path) -> dict[str, Any]:
    try:
        inputs = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        _refuse(f"{file} cannot be read: {error.strerror}.")
    except UnicodeDecodeError:
        _refuse(f"{file} is not UTF-8 text.")
    except json.JSONDecodeError as error:
        _refuse(f"{file}:{error.lineno}:{error.colno}: this is not JSON: {error.msg}.")
    except ValueError as error:
        _refuse(f"{file}: this is not JSON: {error}.")
    except RecursionError:
        _refuse(f"{file} is nested too deeply.")
    if not isinstance(inputs, dict):
        _refuse(f"{file} does not hold an object with the inputs by name.")
    return inputs


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON knows")


def _refuse(problem: str) -> NoReturn:
    raise typer.BadParameter(problem, param_hint="--inputs")
