"""Python files that the user names, run so that what stands beside them can be imported, here and in workers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from prunesearch.errors import PruneSearchError

_PREFIX = "_prunesearch_"
"""How the names begin under which `sys.modules` has these files, besides the names that they have themselves."""
_NOT_OURS = {*sys.stdlib_module_names, "prunesearch"}


def module_of(file: Path) -> ModuleType:
    """A file as a module that is yet to be run; what else is in its folder can be imported, as for a script.

    Its name is that of the file if nothing else can be imported by that name: then other processes find it, too.

    Raises:
        ValueError: It is no Python file, or a module beside it has the name of one beside an earlier file.
    """
    path = Path(os.path.abspath(file))
    _check_neighbours(path)
    make_importable(path.parent)
    own = _own_name(path)
    name = path.stem if _is_imported_as(path.stem, path) else own
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file, got {str(file)!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules[own] = module  # so that classes defined there can be copied and printed
    return module


def run(module: ModuleType) -> None:
    """Run what `module_of` made."""
    assert module.__spec__ is not None  # it was made from one
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(module)


def file_of(file: Path, source: str) -> ModuleType:
    """A file as a module that was run, now or earlier in this process.

    Args:
        file: The file.
        source: What the user calls it, with what is taken from it.

    Raises:
        ValueError: Its code fails; or as `module_of`.
    """
    name = _own_name(Path(os.path.abspath(file)))
    if name not in sys.modules:
        module = module_of(file)
        try:
            with in_the_file(source):
                run(module)
        except BaseException:
            for each in [each for each, loaded in sys.modules.items() if loaded is module]:
                del sys.modules[each]  # half of a module is nothing to find later
            raise
    return sys.modules[name]


@contextmanager
def in_the_file(source: str) -> Iterator[None]:
    """What goes wrong in the code of `path/to/file.py:function` is said in a sentence, with the line of the file.

    Raises:
        ValueError: Something went wrong.
    """
    file = os.path.abspath(source.rpartition(":")[0])
    try:
        yield
    except PruneSearchError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == file]
        place = f", line {lines[-1]}" if lines else ""
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(
            f"{source} failed{place}: {said}. Fix it; PRUNESEARCH_DEBUG=1 shows the whole traceback."
        ) from error


def make_importable(folder: Path) -> None:
    """Let modules in a folder be imported before any others, or, if one has the name of Python's own, after all."""
    if str(folder) in sys.path:
        return
    names = {entry.stem for entry in folder.iterdir()} if folder.is_dir() else set()
    last = names & _NOT_OURS
    sys.path.insert(len(sys.path) if last else 0, str(folder))


def loaded_files() -> list[ModuleType]:
    """The modules that `module_of` has made."""
    return [module for name, module in list(sys.modules.items()) if name.startswith(_PREFIX)]


def folders() -> list[str]:
    """The folders of the files that were run."""
    return list(dict.fromkeys(os.path.dirname(str(module.__file__)) for module in loaded_files()))


def _own_name(path: Path) -> str:
    return f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _is_imported_as(name: str, path: Path) -> bool:
    """Whether `import name` gives this file, and neither another one nor something that is loaded already."""
    if not name.isidentifier():
        return False
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that says nothing of its origin, such as __main__
        return False
    return spec is not None and spec.origin is not None and os.path.abspath(spec.origin) == str(path)


def _check_neighbours(path: Path) -> None:
    """Python can import one module by a name: two helpers of the same name would be taken for each other."""
    ours = {id(module) for module in loaded_files()}
    others = {folder for folder in folders() if folder != str(path.parent)}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        home = file.parent.parent if file.name == "__init__.py" else file.parent
        if "." in name or id(module) in ours or str(home) not in others:
            continue
        for twin in (path.parent / f"{name}.py", path.parent / name / "__init__.py"):
            if twin.exists():
                raise ValueError(
                    f"{file} and {twin} are imported by the same name, {name}, and Python can only import one of them. "
                    "Rename one, or put both files that you name into one folder."
                )
