"""Options that several commands have: one name, one meaning, one place in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prunesearch.cli import completion
from prunesearch.cli.config import use_config
from prunesearch.cli.console import results
from prunesearch.contracts import Contract
from prunesearch.tasks import TASK

NETWORK, DATA, BUDGET, SEARCH, SCORING = "Network", "Data", "Budget", "Search", "Scoring"
TRAINING, STUDY, LATENCY, RUNNING, OUTPUT = "Training", "Study", "Latency", "Where and how long", "Output"
_FILE, _FOLDER, _NUMBER = "FILE", "FOLDER", "N"


def option(*names: str, help: str, panel: str, **others: Any) -> Any:
    """An option in a panel of the help; a default is shown only where it says something."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **others)


def one_of(contract: Contract, **shown: str) -> str:
    """The names of a role for a help, those that installed packages add among them.

    Args:
        contract: The role.
        **shown: By name what stands there instead.
    """
    names = [shown.get(name, name) for name in contract.names.names()]
    return f"{', '.join(names)}, package.module:attribute or path/to/file.py:attribute"


def _results_alone(context: typer.Context, asked: bool) -> bool:
    """Keep what models and libraries print away from stdout, if a program reads it."""
    if asked and not context.resilient_parsing:
        context.with_resource(results.alone())
    return asked


def writes(help: str, *names: str, **others: Any) -> Any:
    """The option `--out`: the file that a command leaves behind."""
    return option("--out", *names, help=help, panel=OUTPUT, metavar=_FILE, **{"show_default": False, **others})


_MODEL = option(
    "--model",
    help="zoo:NAME, torchvision:NAME, timm:NAME, or path/to/file.py:function.",
    panel=NETWORK,
    metavar="NAME",
    autocompletion=completion.models,
    show_default=False,
)
ModelOption = Annotated[str, _MODEL]
OptionalModelOption = Annotated[str | None, _MODEL]
WeightsOption = Annotated[
    Path | None,
    option(
        "--weights",
        help="Its weights: a safetensors file or torch state dict.",
        panel=NETWORK,
        metavar=_FILE,
        show_default=False,
    ),
]
PrunedOption = Annotated[
    Path | None,
    option(
        "--pruned",
        help="What `search --out` or prunesearch.save wrote for this model.",
        panel=NETWORK,
        metavar=_FILE,
        show_default=False,
    ),
]
DEFAULT_INPUT = "1x3x224x224"
InputOption = Annotated[str, option("--input", help="Shape of a batch.", panel=NETWORK, metavar="NxCxHxW")]
ClassesOption = Annotated[
    int | None,
    option(
        "--num-classes",
        help="Classes of a zoo, torchvision or timm network.",
        panel=NETWORK,
        metavar=_NUMBER,
        min=1,
        show_default="its own",
    ),
]
RoundToOption = Annotated[
    list[str] | None,
    option(
        "--round-to",
        help="Kept widths are multiples of this: 8, or for some layers 'layer4.*=16'; repeatable.",
        panel=NETWORK,
        metavar="[GLOB=]N",
        show_default="1",
    ),
]
MinChannelsOption = Annotated[
    list[str] | None,
    option(
        "--min-channels",
        help="Narrowest width of a group: a count (4), a fraction (0.1), or for some layers 'stem=16'; repeatable.",
        panel=NETWORK,
        metavar="[GLOB=]N",
        show_default="0.1",
    ),
]
IgnoreOption = Annotated[
    list[str] | None,
    option("--ignore", help="Module name or glob that keeps its channels; repeatable.", panel=NETWORK, metavar="GLOB"),
]

_DATA = option(
    "--data",
    help="digits, fashion-mnist, cifar10, cifar100, imagefolder:FOLDER, or path/to/file.py:function.",
    panel=DATA,
    metavar="NAME",
    autocompletion=completion.data_sets,
    show_default=False,
)
DataOption = Annotated[str, _DATA]
OptionalDataOption = Annotated[str | None, _DATA]
DataRootOption = Annotated[
    Path | None,
    option(
        "--data-root",
        help="Folder where data sets lie.",
        panel=DATA,
        metavar=_FOLDER,
        show_default="data; of fashion-mnist Debian's",
    ),
]
ImageSizeOption = Annotated[
    int | None,
    option("--image-size", help="Height and width of an imagefolder's images.", panel=DATA, metavar=_NUMBER, min=1,
           show_default="224"),
]  # fmt: skip
DownloadOption = Annotated[
    bool, option("--download", help="Let torchvision fetch a data set that is not there.", panel=DATA)
]
CalibrationOption = Annotated[
    int | None,
    option(
        "--calibration",
        help="How many training images score structures and calibrate BatchNorm.",
        panel=DATA,
        metavar=_NUMBER,
        min=1,
        show_default="1024; of digits 512",
    ),
]
DataWorkersOption = Annotated[
    int | None,
    option("--data-workers", help="Processes that read an imagefolder's training images.", panel=DATA,
           metavar=_NUMBER, min=0, show_default="0: this one"),
]  # fmt: skip

TaskOption = Annotated[
    str | None,
    option(
        "--task",
        help=f"What the network is for: {one_of(TASK)}.",
        panel=DATA,
        metavar="NAME",
        autocompletion=completion.tasks,
        show_default="that of the data",
    ),
]

BudgetOption = Annotated[
    str,
    option(
        "--budget",
        help="Such as macs=50% or latency_ms=4,params=1M.",
        panel=BUDGET,
        metavar="LIMITS",
        show_default=False,
    ),
]
LatencyTableOption = Annotated[
    Path | None,
    option(
        "--latency-table",
        help="What milliseconds are predicted from; the command latency makes it.",
        panel=BUDGET,
        metavar=_FILE,
        show_default=False,
    ),
]
SeedOption = Annotated[int, option("--seed", help="Decides everything random.", panel=RUNNING, metavar=_NUMBER, min=0)]

DEFAULT_STUDY = "sqlite:///search.db"
_STUDY: dict[str, Any] = {
    "help": "Database: a file such as search.db, or postgresql://USER@SERVER/NAME.",
    "panel": STUDY,
    "metavar": "URL",
}
StudyOption = Annotated[str, option("--study", **_STUDY, show_default=False)]
OptionalStudyOption = Annotated[str | None, option("--study", **_STUDY, show_default=False)]
ImplicitStudyOption = Annotated[str | None, option("--study", **_STUDY, show_default=DEFAULT_STUDY)]
NAME_OF_STUDY: dict[str, Any] = {
    "help": "Which study of the database.",
    "panel": STUDY,
    "metavar": "NAME",
    "autocompletion": completion.study_names,
}
StudyNameOption = Annotated[str, option("--study-name", **NAME_OF_STUDY)]
StudyNamesOption = Annotated[
    list[str] | None,
    option("--study-name", **{**NAME_OF_STUDY, "help": "Which study of the database; repeatable."}, show_default="all"),
]

EpochsOption = Annotated[
    int, option("--epochs", help="Passes over the training images.", panel=TRAINING, metavar=_NUMBER)
]
BatchSizeOption = Annotated[int, option("--batch-size", help="Images per step.", panel=TRAINING, metavar=_NUMBER)]
LearningRateOption = Annotated[float, option("--lr", help="Peak learning rate.", panel=TRAINING, metavar="RATE")]
OptimizerOption = Annotated[
    str,
    option(
        "--optimizer",
        help="sgd or adamw.",
        panel=TRAINING,
        metavar="NAME",
        autocompletion=completion.one_of(completion.OPTIMIZERS),
    ),
]
LabelSmoothingOption = Annotated[
    float, option("--label-smoothing", help="Of the cross-entropy.", panel=TRAINING, metavar="SHARE")
]
AugmentOption = Annotated[str, option("--augment", help="Such as flip,crop=4,erase=8.", panel=TRAINING, metavar="WHAT")]
FromScratchOption = Annotated[bool, option("--from-scratch", help="Draw new random weights first.", panel=TRAINING)]
PrecisionOption = Annotated[
    str,
    option(
        "--precision",
        help="fp32, bf16 or fp16.",
        panel=TRAINING,
        metavar="NAME",
        autocompletion=completion.one_of(completion.PRECISIONS),
    ),
]
ValidationOption = Annotated[
    float | None,
    option(
        "--validation",
        help="Share of the training images to hold out.",
        panel=DATA,
        metavar="SHARE",
        show_default=False,
    ),
]
EpochsOfPatienceOption = Annotated[
    int | None,
    option(
        "--patience",
        help="Stop after so many epochs without a better one; needs images to validate with.",
        panel=RUNNING,
        metavar=_NUMBER,
        show_default=False,
    ),
]
CheckpointOption = Annotated[
    Path | None,
    option("--checkpoint", help="State of the training.", panel=OUTPUT, metavar=_FILE, show_default="beside --out"),
]
LogOption = Annotated[
    Path | None, option("--log", help="Folder for a row per epoch.", panel=OUTPUT, metavar=_FOLDER, show_default=False)
]
TrackerOption = Annotated[
    list[str] | None,
    option("--tracker", help="csv, tensorboard, ...; repeatable.", panel=OUTPUT, metavar="NAME", show_default="csv"),
]

JsonOption = Annotated[
    bool, option("--json", help="Print JSON, and nothing else, on stdout.", panel=OUTPUT, callback=_results_alone)
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file whose keys are these flags; flags win over it.",
        metavar=_FILE,
        show_default=False,
        is_eager=True,
        callback=use_config,
    ),
]
