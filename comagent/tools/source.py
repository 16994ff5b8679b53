"""Where a tool's code is, and how another process finds it again.

A function of an importable module is found by its dotted module name. A function of a file that no name leads to (the
driver's `__main__`, above all) is found by the file: it is loaded under a private module name, so that whatever stands
under `if __name__ == "__main__":` does not run a second time.
"""

import functools
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any, NamedTuple

from comagent.errors import ToolDefinitionError
from comagent.nearest import did_you_mean

__all__ = ["Code", "find", "find_by_name", "is_loading", "locate", "path_of"]

_SEEN = "__comagent_source__"
_PREFIX = "comagent_file_"
_loading: ContextVar[bool] = ContextVar("comagent_loading", default=False)


class Code(NamedTuple):
    """Enough to find a callable again in another process of a machine with the same files."""

    root: str | None
    """A folder to import from; None for what every Python environment of the installation has."""
    module: str
    """A dotted name, or the absolute path of a file."""
    qualname: str
    """Names to follow from the module, joined by dots."""
    source_hash: str
    """SHA-256 of the module's source file; of its name and Python's version where there is no file."""


def is_loading() -> bool:
    """True while a tool's module is being imported for a job.

    What starts jobs must refuse then: a driver without `if __name__ == "__main__":` would submit itself for ever.
    """
    return _loading.get()


def locate(function: Callable[..., Any], *, name: str) -> Code:
    """The code of a callable at hand. `ToolDefinitionError` if other processes could not find it."""
    owner = _owner(function)
    module = sys.modules.get(owner)
    if module is None:
        raise ToolDefinitionError(name, f"its module {owner} is not among the imported modules", _TOP_LEVEL)
    qualname = _bound_name(function, module)
    if qualname is None:
        made_in = getattr(function, "__qualname__", repr(function))
        raise ToolDefinitionError(
            name, f"{made_in} is no name of module {owner}, so no other process finds it", _TOP_LEVEL
        )
    return _code(module, qualname, name=name)


def path_of(function: Callable[..., Any], *, name: str) -> str:
    """The dotted path by which `find_by_name` finds a callable at hand again. `ToolDefinitionError` as in `locate`.

    That of a function of the program that runs starts with `__main__`, and means something in this process only.
    """
    code = locate(function, name=name)
    module = _owner(function) if _is_file(code.module) else code.module
    return f"{module}.{code.qualname}"


def find(code: Code) -> Callable[..., Any]:
    """The callable that `code` stands for, imported if need be.

    `ToolDefinitionError` if it is gone, cannot be imported, or its source is not the one that `code` was made from.
    """
    shown = f"{code.module}:{code.qualname}"
    roots = () if code.root is None else (code.root,)
    if _is_file(code.module):
        module = _load_file(Path(code.module), root=code.root, name=shown)
    else:
        with _importing(roots):
            module = _import(code.module, roots, name=shown)
    if _source_hash(module) != code.source_hash:
        raise ToolDefinitionError(
            shown,
            "its source is not the one it had when the job was submitted, or this process imported an older one",
            "Submit the job again, or resume it and accept the new source.",
        )
    return _follow(module, code.qualname, name=shown)


def find_by_name(path: str, roots: Sequence[str], *, name: str) -> Code:
    """The code of the callable at a dotted path such as `package.module.function`.

    Folders in `roots` are searched first. `ToolDefinitionError` says what could not be imported, and for which reason.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ToolDefinitionError(
            name, f'"{path}" is not the dotted path of a function', "Write `python:package.module.function`."
        )
    with _importing(roots):
        for length in range(len(parts) - 1, 0, -1):
            module_name = ".".join(parts[:length])
            if _exists(module_name, roots, name=name):
                module = _import(module_name, roots, name=name)
                qualname = ".".join(parts[length:])
                function = _follow(module, qualname, name=name)
                return _home(function, name=name) or _code(module, qualname, name=name)
    places = ", ".join((*roots, "Python's own path"))
    raise ToolDefinitionError(
        name, f'there is no module "{parts[0]}" in {places}', "Check the spelling, or install the package."
    )


_TOP_LEVEL = "Define it with `def` at the top level of a module or of the driver's file."


def _owner(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__module__", None) or type(function).__module__
    return str(owner)


def _bound_name(function: Callable[..., Any], module: ModuleType) -> str | None:
    """The name that leads from `module` to `function`: its own where that is true, else any global bound to it."""
    own = getattr(function, "__qualname__", None)
    if own is not None and _same(_get(module, own), function):
        return str(own)
    return next((key for key, value in vars(module).items() if _same(value, function)), None)


def _home(function: Callable[..., Any], *, name: str) -> Code | None:
    """The code where the function is defined: what is imported from elsewhere has its source there."""
    module = sys.modules.get(_owner(function))
    own = getattr(function, "__qualname__", None)
    if module is None or own is None or not _same(_get(module, own), function):
        return None
    return _code(module, own, name=name)


def _same(found: object, function: object) -> bool:
    # Bound methods are made afresh at every access: they are equal, not identical.
    return found is function or (isinstance(found, MethodType) and found == function)


def _get(module: ModuleType, qualname: str) -> object:
    value: object = module
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value


def _follow(module: ModuleType, qualname: str, *, name: str) -> Callable[..., Any]:
    value: Any = module
    place = f"module {_title(module)}"
    for part in qualname.split("."):
        if not hasattr(value, part):
            public = [key for key in dir(value) if not key.startswith("_")]
            raise ToolDefinitionError(name, f'{place} has no "{part}"', did_you_mean(part, public))
        value, place = getattr(value, part), f'"{part}"'
    if not callable(value):
        raise ToolDefinitionError(
            name, f"{qualname} is of type {type(value).__name__}, not a function", "Name a function."
        )
    return value  # type: ignore[no-any-return]  # callable() narrows an Any to a callable without a type


def _title(module: ModuleType) -> str:
    private = module.__name__.startswith(_PREFIX)
    if module.__name__ == "__main__":
        return f"__main__, which is {getattr(module, '__file__', 'an interactive session')} here,"
    return str(module.__file__) if private else module.__name__


def _code(module: ModuleType, qualname: str, *, name: str) -> Code:
    spec = module.__spec__
    # `python -m package.module` runs as `__main__`, but has a name that others can import.
    dotted = spec.name if module.__name__ == "__main__" and spec is not None else module.__name__
    file = getattr(module, "__file__", None)
    if file is None:
        if dotted in {"__main__", "__mp_main__"}:
            raise ToolDefinitionError(
                name, "it was typed into an interactive session, and no other process finds it", "Put it into a file."
            )
        return Code(None, dotted, qualname, _source_hash(module))
    root = _root(Path(file).absolute(), dotted)
    if root is None:
        path = Path(file).resolve()
        return Code(str(path.parent), str(path), qualname, _source_hash(module))
    return Code(None if _is_installed(root, dotted) else str(root), dotted, qualname, _source_hash(module))


def _root(file: Path, dotted: str) -> Path | None:
    """The folder from which importing `dotted` gives `file`; None if no folder does."""
    parts = dotted.split(".")
    steps = file.parent.parts if file.name.startswith("__init__.") else (*file.parent.parts, file.name.split(".")[0])
    return Path(*steps[: -len(parts)]) if steps[-len(parts) :] == tuple(parts) else None


@functools.cache
def _installed_folders() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    return frozenset(Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib"))


def _is_installed(root: Path, dotted: str) -> bool:
    resolved = root.resolve()
    return dotted.partition(".")[0] == "comagent" or resolved in _installed_folders() or resolved.name == "lib-dynload"


def _source_hash(module: ModuleType) -> str:
    """Hash of the source as it was when first asked for: later edits do not change what this process has loaded."""
    seen = vars(module).get(_SEEN)
    if seen is None or seen[0] is not module.__spec__:
        seen = vars(module)[_SEEN] = (module.__spec__, _hash(module))
    return str(seen[1])


def _hash(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        return hashlib.sha256(f"{module.__name__} {sys.version}".encode()).hexdigest()
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@contextmanager
def _importing(roots: Sequence[str]) -> Iterator[None]:
    """Puts `roots` first on `sys.path` within, and last afterwards: called, a tool may still import its siblings."""
    token = _loading.set(True)
    sys.path[:0] = roots
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for root in roots:
            with suppress(ValueError):  # the imported code may have tidied up itself
                sys.path.remove(root)
        sys.path.extend(root for root in roots if root not in sys.path)
        _loading.reset(token)


def _exists(module_name: str, roots: Sequence[str], *, name: str) -> bool:
    if module_name in sys.modules or any(_shadowed(module_name, root) for root in roots):
        return True
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError as error:
        # `find_spec("a.b")` imports `a`; that `a` is missing, or no package, is no failure of an import within `a`.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            return False
        raise _import_failed(name, module_name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, module_name, error) from error


def _import(module_name: str, roots: Sequence[str], *, name: str) -> ModuleType:
    main = sys.modules.get("__main__")
    if main is not None and main.__spec__ is not None and main.__spec__.name == module_name:
        return main  # a second copy would have classes of its own
    for root in roots:
        shadow = _shadowed(module_name, root)
        if shadow is not None:
            return _load_file(shadow, root=root, name=name)
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _import_failed(name, module_name, error) from error


def _shadowed(module_name: str, root: str) -> Path | None:
    """The file in `root` that `module_name` means, where another folder's module has taken the name in this process."""
    if module_name == "__main__":
        return None  # the program that runs, whatever file of that name there is
    folder = Path(root).resolve()
    module, top = folder.joinpath(*module_name.split(".")), folder / module_name.partition(".")[0]
    file = next((path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()), None)
    loaded = sys.modules.get(top.name)
    if loaded is None or file is None:
        return None
    origins = (getattr(loaded, "__file__", None), *getattr(loaded, "__path__", ()))
    places = {Path(origin).resolve() for origin in origins if origin}
    return None if places & {top, top.with_suffix(".py")} else file


def _is_file(module: str) -> bool:
    return module.endswith(".py") and Path(module).is_absolute()


def _load_file(file: Path, *, root: str | None, name: str) -> ModuleType:
    path = file.resolve()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ToolDefinitionError(
            name, f"{path} cannot be read: {error.strerror}", "The file must be there on every machine that runs tasks."
        ) from error
    digest = hashlib.sha256(source).hexdigest()
    main = sys.modules.get("__main__")
    if main is not None and _is_same_file(main, path) and _source_hash(main) == digest:
        return main
    module_name = _PREFIX + hashlib.sha256(f"{path} {digest}".encode()).hexdigest()[:16]
    loaded = sys.modules.get(module_name)
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise ToolDefinitionError(name, f"{path} is no Python file", "Name a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    vars(module)[_SEEN] = (spec, digest)
    sys.modules[module_name] = module
    try:
        with _importing(() if root is None else (root,)):
            # Compiled from the bytes that were hashed: a cached .pyc may be of an edit within the same second.
            exec(compile(source, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, (Exception, SystemExit)):
            raise _import_failed(name, str(path), error) from error
        raise
    return module


def _is_same_file(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _import_failed(name: str, module: str, error: BaseException) -> ToolDefinitionError:
    if isinstance(error, ToolDefinitionError):
        return error
    if isinstance(error, SyntaxError):
        place, message = f"{error.filename}:{error.lineno}", error.msg
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen ") and frame.filename not in (importlib.__file__, __file__)
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else module
        message = str(error) or "no message"
    return ToolDefinitionError(
        name,
        f"{module} cannot be imported: {type(error).__name__}: {message} ({place})",
        "Correct that line; `python FILE` shows the same error.",
    )
