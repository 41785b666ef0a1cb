"""What the command line names: models and data, built in or from the user's own file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunesearch.errors import CheckpointError
from prunesearch.models import saving
from prunesearch.models.checkpoint import load_weights
from prunesearch.models.nested import Batch, mapped
from prunesearch.models.zoo import make_model
from prunesearch.registry import did_you_mean, resolve
from prunesearch.source_names import check_data, check_model, function_of_file, is_in_a_file
from prunesearch.source_names import parse_shape as parse_shape
from prunesearch.tasks import CLASSIFICATION, make_task
from prunesearch.tasks.task import Task
from prunesearch.training import DATASETS
from prunesearch.training.data import Data
from prunesearch.user_files import file_of, in_the_file


def load_data(
    source: str,
    *,
    data_root: Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    calibration: int | None = None,
    data_workers: int | None = None,
    validation: float | None = None,
    task: str | None = None,
) -> Data:
    """Return the data a source names; what is None or False is left to the data set.

    Args:
        source: One of `prunesearch.training.DATASETS`, `imagefolder:FOLDER`, or `path/to/file.py:function`, which is
            given those of the arguments below that it has parameters for.
        data_root: Folder where data sets lie.
        image_size: Height and width, where images can be made so.
        download: Fetch what is not there.
        calibration: How many training images score structures.
        data_workers: Processes that read training images.
        validation: Share of the training images that is held out, of any data.
        task: What the network is for, of any data (`load_task`).

    Raises:
        ValueError: Unknown name, an argument that the data set does not take, files that are missing or damaged, or a
            function that fails or returns something else than `Data`.
    """
    settings = {
        "data_root": data_root,
        "image_size": image_size,
        "download": download or None,
        "calibration": calibration,
        "data_workers": data_workers,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    check_data(source)
    kind, _, rest = source.partition(":")
    where: AbstractContextManager[None] = nullcontext()
    if is_in_a_file(source):
        function, where = _function(source), in_the_file(source)
    else:
        function = resolve(DATASETS, kind, "data set")
        function = partial(function, rest) if rest else function
    known = [name for name in settings if name in inspect.signature(function).parameters]
    for name in given:
        if name not in known:
            flags = ", ".join(map(_flag, known)) or "no such option"
            remedy = f"Give the function a parameter {name}, or leave" if is_in_a_file(source) else "Leave"
            raise ValueError(f"{source} does not take {_flag(name)}; it takes {flags}. {remedy} the option out.")
    with where:
        data = function(**given)
    if not isinstance(data, Data):
        raise ValueError(
            f"Expected {source} to return prunesearch.Data, got {type(data).__name__}. Write return "
            "prunesearch.Data(train=..., test=...) at its end."
        )
    data = data if task is None else replace(data, task=load_task(task))
    return data if validation is None else replace(data, validation=validation)


def load_task(source: str) -> Task:
    """The task that a source names.

    Args:
        source: A name of a task (`prunesearch.tasks.make_task`), or `path/to/file.py:function`, which is called
            without arguments.

    Raises:
        ValueError: Unknown name, or the function fails or returns something else than a `Task`.
    """
    if not is_in_a_file(source):
        return make_task(source)
    found = _call(source)
    if not isinstance(found, Task):
        raise ValueError(f"Expected {source} to return a prunesearch.Task, got {type(found).__name__}.")
    return found


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
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"Expected at least 1 class, got {num_classes}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same command must mean the same network when it is run again
        model = _model(source, {} if num_classes is None else {"num_classes": num_classes}, input_shape)
    if not isinstance(model, nn.Module):
        raise ValueError(f"Expected {source} to return a torch.nn.Module, got {type(model).__name__}.")
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_model_for(source: str, weights: Path | None, data: Data) -> nn.Module:
    """`load_model` with as many classes as some data have, if they have classes, for images of their shape."""
    classes = data.class_count() if data.goal.name == CLASSIFICATION else None
    inputs = data.examples()
    shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else ()
    return load_model(source, weights, num_classes=classes, input_shape=shape)


def _model(source: str, classes: dict[str, int], input_shape: tuple[int, ...]) -> Any:
    check_model(source)
    if is_in_a_file(source):
        return _call(source)
    kind, _, name = source.partition(":")
    if kind == "zoo":
        if len(input_shape) != 4:
            raise ValueError(f"Expected zoo networks to see (n, c, h, w) images, got {input_shape}.")
        return make_model(name, in_channels=input_shape[1], image_size=input_shape[2], **classes)
    if kind == "torchvision":
        return _torchvision(name, classes)
    return _timm(name, classes)


def example_inputs(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random images of a shape, from a generator of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_the_type_of(network: nn.Module, inputs: Batch) -> Batch:
    """Inputs with floats of as many bits as those of a network."""
    own = next((tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()), None)
    return mapped(inputs, lambda x: x.to(own) if own is not None and x.is_floating_point() else x)


def remembered_inputs(pruned: Path | None, weights: Path | None) -> Batch:
    """Inputs such as the file of a pruned network, or else that of weights, remembers; empty if none does.

    Raises:
        CheckpointError: One is not there, or the first was not written by `prunesearch.save`. The second may be of
            anybody.
    """
    remembered = () if pruned is None else saving.remembered_inputs(pruned)
    if remembered or weights is None:
        return remembered
    if not weights.is_file():
        raise CheckpointError(f"There is no weights file {weights}.")
    try:
        return saving.remembered_inputs(weights)
    except CheckpointError:
        return ()


def _torchvision(name: str, classes: dict[str, int]) -> Any:
    from torchvision import models

    if name not in models.list_models():
        raise ValueError(f"torchvision has no network {name!r}.{did_you_mean(name, models.list_models(), most=4)}")
    own = inspect.signature(models.get_model_builder(name)).parameters
    nothing = {parameter: None for parameter in ("weights", "weights_backbone") if parameter in own}  # fetch nothing
    return models.get_model(name, **nothing, **classes)


def _timm(name: str, classes: dict[str, int]) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm:NAME needs one more package: pip install 'prunesearch[timm]'.") from error
    if not timm.is_model(name):
        raise ValueError(f"timm has no network {name!r}.{did_you_mean(name, timm.list_models(), most=4)}")
    return timm.create_model(name, pretrained=False, num_classes=classes.get("num_classes"))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _call(source: str) -> Any:
    """Call `function` of `path/to/file.py:function`."""
    function = _function(source)
    with in_the_file(source):
        return function()


def _function(source: str) -> Callable[..., Any]:
    """`function` of `path/to/file.py:function`; the file is run."""
    file, function = function_of_file(source)
    module = file_of(file, source)
    found = getattr(module, function, None)
    if found is not None and not callable(found):
        kind = type(found).__name__
        raise ValueError(f"Expected {function!r} in {file} as a function, got {kind}. Return it from a function.")
    if found is None:
        functions = [(key, value) for key, value in vars(module).items() if inspect.isfunction(value)]
        own = [key for key, value in functions if value.__module__ == module.__name__]
        raise ValueError(f"{file} has no function {function!r}.{did_you_mean(function, own)}")
    return found
