"""How scorers get to workers: packed by this process, unpacked by a process that it started.

With cloudpickle, as networks are often of classes that are defined in the caller's script, file or notebook, which a
worker cannot import. Nothing that comes from a study or from any other file is ever unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from mmap import mmap
from pathlib import Path
from types import ModuleType

import cloudpickle

from prunesearch.study.scoring import ScorerFactory
from prunesearch.user_files import folders, loaded_files, make_importable


def pack(factory: ScorerFactory) -> bytes:
    """The factory with everything it needs, as bytes for a worker.

    Raises:
        ValueError: Something in it cannot be copied to another process, and what.
    """
    try:
        with ExitStack() as stack:
            for module in loaded_files():  # the classes in them; what they import is looked for beside them
                stack.enter_context(_by_value(module))
            packed = BytesIO()
            cloudpickle.dump(folders(), packed)
            cloudpickle.dump(factory, packed)
            return packed.getvalue()
    except Exception as error:
        raise ValueError(
            f"The network cannot be copied to workers: {type(error).__name__}: {error}. Score it in this process "
            "(one worker, no time limit), or take out what belongs to this process only, such as locks and open files."
        ) from error


def unpack(payload: bytes | mmap) -> ScorerFactory:
    """What `pack` packed."""
    packed = BytesIO(payload) if isinstance(payload, bytes) else payload
    for folder in cloudpickle.load(packed):
        make_importable(Path(folder))
    factory: ScorerFactory = cloudpickle.load(packed)
    return factory


@contextmanager
def _by_value(module: ModuleType) -> Iterator[None]:
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
