"""The package as a user installs it: sdist, the wheel built from that sdist, and an environment with only the wheel."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ("actors", "serve", "configs")


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path

    @property
    def metadata(self) -> str:
        """The folder of the wheel that describes it, which is named after project and version."""
        return "-".join(self.wheel.name.split("-")[:2]) + ".dist-info"

    def names_in_sdist(self) -> set[str]:
        """Names of files without the folder that is named after project and version."""
        with tarfile.open(self.sdist) as archive:
            return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}

    def names_in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


@pytest.fixture(scope="module")
def uv() -> str:
    found = shutil.which("uv")
    assert found is not None, "uv is not on PATH; `pip install uv` provides it"
    return found


@pytest.fixture(scope="module")
def built(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    command = [uv, "build", "--offline", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def installed(uv: str, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([uv, "venv", "--offline", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [uv, "pip", "install", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(built.wheel)], check=True)
    return python


def files_of_the_library() -> Iterator[str]:
    """What the package must hold, read from the real folders."""
    for folder, place in (("comagent", "comagent"), *((name, f"comagent/{name}") for name in LINKED)):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            through_link = folder == "comagent" and relative.parts[0] in LINKED
            if path.is_file() and "__pycache__" not in path.parts and not through_link:
                yield str(PurePosixPath(place, *relative.parts))


def test_the_wheel_built_from_the_sdist_holds_every_file_of_the_library(built: Built) -> None:
    expected = set(files_of_the_library())
    assert {"comagent/actors/__init__.py", "comagent/serve/__init__.py"} <= expected
    assert expected - built.names_in_sdist() == set()
    assert expected - built.names_in_wheel() == set()


def test_the_wheel_holds_nothing_beside_the_library(built: Built) -> None:
    assert {name.partition("/")[0] for name in built.names_in_wheel()} == {"comagent", built.metadata}
    assert not any("__pycache__" in name for name in built.names_in_wheel())


def test_the_sdist_holds_licence_readme_and_changelog(built: Built) -> None:
    assert {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"} <= built.names_in_sdist()


def test_the_wheel_carries_the_licence_and_the_command(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        entry_points = archive.read(f"{built.metadata}/entry_points.txt").decode()
    assert "comagent = comagent.cli:main" in entry_points
    assert f"{built.metadata}/licenses/LICENSE" in built.names_in_wheel()


def test_the_installed_wheel_has_the_linked_folders_as_its_own(installed: Path, tmp_path: Path) -> None:
    # The dependencies come from the environment of the tests, behind the wheel on the path.
    (dependencies,) = {path for path in map(Path, sys.path) if path.name == "site-packages"}
    code = (
        f"import sys; sys.path.append({str(dependencies)!r})\n"
        "import comagent, comagent.actors, comagent.serve\n"
        "print(*comagent.__path__, *comagent.actors.__path__, *comagent.serve.__path__, sep='\\n')"
    )
    command = [str(installed), "-I", "-c", code]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    package, *folders = map(Path, printed.splitlines())
    assert package.is_relative_to(installed.parents[1])
    assert folders == [package / "actors", package / "serve"]
    assert not any(folder.is_symlink() for folder in folders)
