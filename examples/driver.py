"""A program with tools of its own that writes a process in Python, runs it here, and prints the result.

python examples/driver.py
"""

import ast
import importlib
import inspect
from dataclasses import dataclass

import comagent


@dataclass
class Survey:
    module: str
    lines: int
    functions: int


@comagent.tool
def survey(module: str) -> Survey:
    """Count the lines and functions of a module of Python's library."""
    source = inspect.getsource(importlib.import_module(module))
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return Survey(module, source.count("\n"), len(functions))


@comagent.tool
def table(surveys: list[Survey]) -> str:
    """The longest module first."""
    ordered = sorted(surveys, key=lambda each: each.lines, reverse=True)
    return "\n".join(f"{each.module:12} {each.lines:6} lines {each.functions:4} functions" for each in ordered)


def total(left: int, right: int) -> int:
    return left + right


@comagent.process
def library(first: str = "argparse", second: str = "csv", third: str = "ast") -> dict[str, object]:
    """Three modules of Python's library side by side."""
    # A call of a tool is a step: these three run in parallel, and the next one when all of them have ended.
    surveys = [survey(first), survey(second), survey(third)]
    report = table(surveys)
    # A function that is not declared a tool can be a step too, and any step can have options.
    lines = comagent.step(total, left=surveys[0].lines, right=surveys[1].lines, retries=2, timeout="10s")
    return {"report": report, "lines_of_the_first_two": lines}


if __name__ == "__main__":
    with comagent.connect() as client:
        outputs = client.submit(library, inputs={"third": "tarfile"}).result(timeout=60)
    print(outputs["report"])
    print("the first two have", outputs["lines_of_the_first_two"], "lines together")
