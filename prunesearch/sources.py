"""What the command line names: models and data, built in or from the user's own file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.models.checkpoint import load_weights
from prunesearch.models.zoo import make_model
from prunesearch.registry import resolve
from prunesearch.training import DATASETS
from prunesearch.training.data import Data


def load_data(source: str) -> Data:
    """Return the data a source names: a built-in name such as `digits`, or `path/to/file.py:function`.

    Raises:
        ValueError: Unknown name, or the function returned something else than `Data`.
    """
    data = _call(source) if ":" in source else resolve(DATASETS, source, "data set")()
    if not isinstance(data, Data):
        raise ValueError(f"Expected {source} to return prunesearch.Data, got {type(data).__name__}.")
    return data


def load_model(
    source: str, weights: Path | None, *, num_classes: int | None, input_shape: tuple[int, ...]
) -> nn.Module:
    """Return the model a source names, in eval mode.

    Args:
        source: `zoo:NAME`, `torchvision:NAME`, `timm:NAME`, or `path/to/file.py:function` (called without arguments).
        weights: A weights file to load into it; None keeps what the source gave.
        num_classes: For zoo, torchvision and timm networks; None takes their default.
        input_shape: (n, c, h, w) of the images it will see.

    Raises:
        ValueError: Unknown source or name, or the function returned something else than a module.
        CheckpointError: The weights are damaged or of another network.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same command must mean the same network when it is run again
        model = _model(source, {} if num_classes is None else {"num_classes": num_classes}, input_shape)
    if not isinstance(model, nn.Module):
        raise ValueError(f"Expected {source} to return a torch.nn.Module, got {type(model).__name__}.")
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_model_for(source: str, weights: Path | None, images: Tensor, labels: Tensor) -> nn.Module:
    """`load_model` with as many classes as the labels of some data have, for images of their shape."""
    return load_model(source, weights, num_classes=int(labels.max()) + 1, input_shape=tuple(images.shape))


def _model(source: str, classes: dict[str, int], input_shape: tuple[int, ...]) -> Any:
    kind, _, name = source.partition(":")
    if kind == "zoo":
        if len(input_shape) != 4:
            raise ValueError(f"Expected zoo networks to see (n, c, h, w) images, got {input_shape}.")
        return make_model(name, in_channels=input_shape[1], image_size=input_shape[2], **classes)
    if kind == "torchvision":
        return _torchvision(name, classes)
    if kind == "timm":
        return _timm(name, classes)
    if kind.endswith(".py"):
        return _call(source)
    raise ValueError(
        f"Expected a model as zoo:NAME, torchvision:NAME, timm:NAME or path/to/file.py:function, got {source!r}."
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """Read a shape such as `1x3x224x224`.

    Raises:
        ValueError: It is not one.
    """
    sizes = text.split("x")
    if len(sizes) < 2 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise ValueError(f'Expected an input shape such as "1x3x224x224", got {text!r}.')
    return tuple(int(size) for size in sizes)


def example_inputs(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random images of a shape, from a generator of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _torchvision(name: str, classes: dict[str, int]) -> Any:
    from torchvision import models

    if name not in models.list_models():
        near = [known for known in models.list_models() if name[:4] and known.startswith(name[:4])]
        hint = f" There are {', '.join(near[:6])}." if near else ""
        raise ValueError(f"torchvision has no network {name!r}.{hint}")
    return models.get_model(name, weights=None, **classes)


def _timm(name: str, classes: dict[str, int]) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm:NAME needs one more package: pip install 'prunesearch[timm]'.") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:5]}*")
        hint = f" There are {', '.join(near[:6])}." if near else ""
        raise ValueError(f"timm has no network {name!r}.{hint}")
    return timm.create_model(name, pretrained=False, num_classes=classes.get("num_classes"))


def _call(source: str) -> Any:
    """Call `function` of `path/to/file.py:function`."""
    file, _, function = source.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"There is no file {file!r} to take {function!r} from.")
    name = f"_prunesearch_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file, got {file!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that classes defined there can be copied and printed
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{file} has no function {function!r}.")
    return getattr(module, function)()
