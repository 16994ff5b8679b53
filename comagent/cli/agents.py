"""`comagent agents`"""

from pathlib import Path
from typing import Annotated

import typer

from comagent.cli.screen import clean, print_table, say


def agents(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The project: definitions are in its configs/agents.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the agents: those of the project, and those that come with ComAgent."""
    from rich.table import Table

    from comagent.agents import load_agents
    from comagent.cli.report import print_json

    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder.", param_hint="FOLDER")
    found = sorted(load_agents(folder), key=lambda agent: agent.shown.casefold())
    if as_json:
        print_json([agent.model_dump(mode="json", by_alias=True) for agent in found])
        return
    if not found:
        say("no agents")
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("AGENT", no_wrap=True)
    table.add_column("TOOLS")
    table.add_column("CAPABILITIES")
    for agent in found:
        tools = ", ".join(each.tool or each.shown for each in agent.tools)
        table.add_row(clean(agent.id or agent.name), clean(tools), clean(", ".join(agent.capabilities)))
    print_table(table)
