"""`comagent init`"""

from pathlib import Path
from typing import Annotated

import typer

from comagent.errors import InputError


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; it may be there already.")] = Path(),
) -> None:
    """Write a small project to start from: a process, a tool of its own, a driver. Nothing is overwritten."""
    from comagent.cli.screen import clean
    from comagent.cli.starter import FILES

    there = [name for name in FILES if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise InputError(f"{folder} has {', '.join(there)} already. Name another folder: `comagent init FOLDER`.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}. Name another folder.") from None
    print(clean(f"{folder} has {', '.join(FILES)}\n"))
    if folder.resolve() != Path.cwd():
        print(clean(f"  cd {folder}"))
    print("  comagent run process.yaml")
    print("  python driver.py")
