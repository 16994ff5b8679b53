"""`comagent doctor`"""

from typing import Annotated

import typer

from comagent.cli.screen import clean, console, count, width

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "broken": ("broken", "red")}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """Check what ComAgent needs on this machine, and say what to do where something is missing.

    Ends with exit code 1 if something is broken. Warnings are about what costs time, or may go wrong later.
    """
    from comagent.cli.checkup import checkup
    from comagent.cli.report import print_json

    findings = []
    for finding in checkup():
        findings.append(finding)
        if not as_json:
            _print(finding.status, finding.what, finding.told, finding.remedy)
    broken = sum(finding.status == "broken" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if as_json:
        print_json([finding._asdict() for finding in findings])
    elif broken or warnings:
        counts = [f"{broken} broken"] * bool(broken) + [count(warnings, "warning")] * bool(warnings)
        print(f"\n{' and '.join(counts)} of {count(len(findings), 'check')}")
    else:
        print(f"\nall {len(findings)} checks passed")
    raise typer.Exit(1 if broken else 0)


def _print(status: str, what: str, told: str, remedy: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    mark, style = MARKS[status]
    lines = Text.assemble((f"{mark:<8}", style), (f"{what}: ", "bold"), clean(told))
    if remedy:
        lines.append(f"\n{clean(remedy)}", "" if status == "broken" else "dim")
    if out.is_terminal:
        first, *rest = lines.wrap(out, max(20, width() - 8))
        out.print(first, soft_wrap=True)
        for line in rest:
            out.print(Padding(line, (0, 0, 0, 8)), soft_wrap=True)
    else:
        print(lines.plain.replace("\n", f"\n{' ' * 8}"), flush=True)
