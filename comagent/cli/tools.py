"""`comagent tools`"""

from typing import Annotated, Any

import typer

from comagent.cli.screen import print_table

app = typer.Typer(help="List the tools, or show one.")


@app.callback(invoke_without_command=True)
def tools(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False
) -> None:
    """List the tools that come with ComAgent, or show one. Processes can also name Python functions as
    `python:package.module.function`.
    """
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from comagent.cli.report import print_json
    from comagent.tools.registry import catalogue

    specs = catalogue()
    if as_json:
        print_json([spec.to_document() for spec in specs])
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for spec in specs:
        table.add_row(spec.name, spec.summary)
    print_table(table)


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A tool, also python:package.module.function.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a tool: what it does, its parameters and its result."""
    from comagent.cli.report import print_json
    from comagent.tools.registry import resolve

    spec = resolve(name)
    if as_json:
        print_json(spec.to_document())
        return
    print(f"{spec.name}\n")
    if spec.description:
        print(f"{spec.description}\n")
    properties = spec.parameters.get("properties", {})
    required = spec.parameters.get("required", [])
    print("parameters" if properties else "no parameters")
    for parameter, schema in properties.items():
        print(f"  {parameter}: {_shape(schema)}{'' if parameter in required else _default(schema)}")
    if spec.returns is not None:
        print(f"\nreturns {_shape(spec.returns)}")
        for key, schema in spec.returns.get("properties", {}).items():
            about = f", {schema['description']}" if "description" in schema else ""
            print(f"  {key}: {_shape(schema)}{about}")
    print(f"\nkind {spec.kind}, cost {spec.cost}, effects {spec.effects}")


def _shape(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_shape(each) for each in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array" and "items" in schema:
        return f"list of {_shape(schema['items'])}"
    return {"array": "list", "object": "mapping"}.get(kind, str(kind))


def _default(schema: dict[str, Any]) -> str:
    from comagent.cli.readable import readable

    return f" = {readable(schema['default'])}" if "default" in schema else ", optional"
