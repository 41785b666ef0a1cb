"""How scorers get to workers: packed by this process, unpacked by a process that it started.

With cloudpickle, as networks are often of classes that are defined in the caller's script, file or notebook, which a
worker cannot import. Nothing that comes from a study or from any other file is ever unpacked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from mmap import mmap
from types import ModuleType

import cloudpickle

from prunesearch.study.scoring import Recipe


def pack(recipe: Recipe) -> bytes:
    """The recipe with everything it needs, as bytes for a worker.

    Raises:
        ValueError: Something in it cannot be copied to another process, and what.
    """
    try:
        with ExitStack() as stack:
            for module in _loaded_from_files():
                stack.enter_context(_by_value(module))
            return bytes(cloudpickle.dumps(recipe))
    except Exception as error:
        raise ValueError(
            f"The network cannot be copied to workers: {type(error).__name__}: {error}. Score it in this process "
            "(one worker, no time limit), or take out what belongs to this process only, such as locks and open files."
        ) from error


def unpack(payload: bytes | mmap) -> Recipe:
    """What `pack` packed."""
    recipe: Recipe = cloudpickle.loads(payload)
    return recipe


@contextmanager
def _by_value(module: ModuleType) -> Iterator[None]:
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _loaded_from_files() -> list[ModuleType]:
    """Modules of `--model path/to/file.py:function`, which a fresh process would not find by the names they have."""
    return [module for name, module in list(sys.modules.items()) if name.startswith("_prunesearch_")]
