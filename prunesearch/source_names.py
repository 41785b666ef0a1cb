"""What `--model` and `--data` may say, checked before torch is imported and anything is loaded."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from prunesearch.models.zoo import ZOO
from prunesearch.registry import check_name, did_you_mean
from prunesearch.training import DATASETS

MODELS = "zoo:NAME, torchvision:NAME, timm:NAME or path/to/file.py:function"
DATA = (
    f"{', '.join(name for name in DATASETS if name != 'imagefolder')}, imagefolder:FOLDER or path/to/file.py:function"
)

_IN_A_FILE = re.compile(r"\.py(:[^:/\\]*)?$")
"""How a source ends that is in a file; before that a colon may stand, as in `C:/nets/mine.py:model`."""
_REGISTERED = re.compile(r"^@register_model\(\)\n(?:.*\n)*?def (\w+)\(", re.M)


def check_model(source: str) -> None:
    """Make sure that a source may name a model; what torchvision, timm and functions have is seen when it is loaded.

    Raises:
        ValueError: It names none.
    """
    kind, _, name = source.partition(":")
    if is_in_a_file(source):
        function_of_file(source)
    elif kind == "zoo":
        check_name(ZOO, name, "zoo network")
    elif kind not in ("torchvision", "timm"):
        hint = f" Did you mean {kind}.py:{name}?" if Path(f"{kind}.py").is_file() else _models_of_this_name(source)
        raise ValueError(f"Expected a model as {MODELS}, got {source!r}.{hint}")


def check_data(source: str) -> None:
    """Make sure that a source may name data; whether they are there is seen when they are loaded.

    Raises:
        ValueError: It names none.
    """
    kind, _, folder = source.partition(":")
    if is_in_a_file(source):
        function_of_file(source)
        return
    if kind not in DATASETS:
        folders = f" Did you mean imagefolder:{source}?" if Path(source).is_dir() else ""
        hint = folders or did_you_mean(kind, DATASETS)
        raise ValueError(f"Unknown data set {source!r}; there are {DATA}.{hint}")
    if (kind == "imagefolder") != bool(folder) or source.endswith(":"):
        raise ValueError(f"Expected data as {DATA}; got {source!r}.")


def is_in_a_file(source: str) -> bool:
    """Whether a source is meant as `path/to/file.py:function`, also if the function was forgotten.

    Example:
        >>> [is_in_a_file(source) for source in ("C:/nets/mine.py:model", "mine.py", "zoo:resnet8", "imagefolder:C:/a")]
        [True, True, False, False]
    """
    return _IN_A_FILE.search(source) is not None


def function_of_file(source: str) -> tuple[Path, str]:
    """The two parts of `path/to/file.py:function`.

    Raises:
        ValueError: It is not of this form, or there is no such file.
    """
    file, _, function = source.rpartition(":")
    if not file or not function.isidentifier():
        raise ValueError(f"Expected path/to/file.py:function, got {source!r}.")
    if not Path(file).is_file():
        raise ValueError(f"There is no file {file!r} to take {function!r} from.")
    return Path(file), function


def parse_shape(text: str) -> tuple[int, ...]:
    """Read a shape such as `1x3x224x224`.

    Raises:
        ValueError: It is not one.
    """
    sizes = text.split("x")
    if len(sizes) < 2 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise ValueError(f'Expected an input shape such as "1x3x224x224", got {text!r}.')
    return tuple(int(size) for size in sizes)


def _models_of_this_name(name: str) -> str:
    """Where there are networks of a name that came without one of these words."""
    kinds = [*(["zoo"] if name in ZOO else []), *(["torchvision"] if name in _of_torchvision() else [])]
    return f" Did you mean {' or '.join(f'{kind}:{name}' for kind in kinds)}?" if kinds else ""


def _of_torchvision() -> set[str]:
    """Names of torchvision's networks, read from its files: importing it would take seconds."""
    found = find_spec("torchvision")
    folders = [] if found is None else found.submodule_search_locations or []
    files = [file for folder in folders for file in (Path(folder) / "models").rglob("*.py")]
    return {name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8", errors="replace"))}
