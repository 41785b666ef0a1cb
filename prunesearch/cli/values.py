"""The values that several commands take. Their fields are options (`flags.py`), as those of public ones are.

What can be checked of a value by itself is checked when it is made, before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli.arguments import several_names, sizes_by_name
from prunesearch.cli.checks import budget_of, check_study_name, check_training_files, state_of
from prunesearch.cli.flags import Group
from prunesearch.running import Running
from prunesearch.scoring import Scoring
from prunesearch.study.workers import Workers
from prunesearch.training.recipe import Recipe

if TYPE_CHECKING:
    from prunesearch.budget import Budget
    from prunesearch.followup import FollowUp
    from prunesearch.models.network import Network
    from prunesearch.training.data import Data

NETWORK, DATA, BUDGET, SEARCH, SCORING = "Network", "Data", "Budget", "Search", "Scoring"
TRAINING, METHOD, STUDY, LATENCY = "Training", "Method", "Study", "Latency"
RUNNING, OUTPUT = "Where and how long", "Output"
DEFAULT_INPUT = "1x3x224x224"
DEFAULT_STUDY = "sqlite:///search.db"


@dataclass(frozen=True, kw_only=True)
class Printing:
    """How results are printed.

    Attributes:
        json: Print JSON, and nothing else, on stdout.
    """

    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Seed:
    """Randomness.

    Attributes:
        seed: Decides everything random.
    """

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Where:
    """On what device.

    Attributes:
        device: Where it runs: cpu, cuda or cuda:1.
    """

    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptionalModel:
    """A network, and its weights.

    Attributes:
        model: zoo:NAME, torchvision:NAME, timm:NAME, or path/to/file.py:function.
        weights: Its weights: a safetensors file or torch state dict.
    """

    model: str | None = None
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Model(OptionalModel):
    """A network that must be named."""

    model: str = field()  # without the default of what it extends

    def loaded(self, data: Data) -> Any:
        """The network, for some data."""
        from prunesearch.sources import load_model_for

        return load_model_for(self.model, self.weights, data)


@dataclass(frozen=True, kw_only=True)
class PrunedModel(Model):
    """A network, or what it was pruned to.

    Attributes:
        pruned: What `search --out` or prunesearch.save wrote for this model.
    """

    pruned: Path | None = None

    def load_pruned(self, model: Any) -> Any:
        """The pruned network; the unpruned one if no file is named."""
        from prunesearch.models.saving import load

        return model if self.pruned is None else load(self.pruned, model)


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What may be pruned in a network, as `prunesearch.trace` takes it.

    Attributes:
        part: Name of the only submodule to prune.
        round_to: Kept widths are multiples of this: 8, or for some layers 'layer4.*=16'; repeatable.
        min_channels: Narrowest width of a group: a count (4), a fraction (0.1), or for some layers 'stem=16';
            repeatable.
        ignored_layers: Module name or glob that keeps its channels.
        tied_layers: Names of layers that get one width, such as conv1,conv2.
    """

    part: str | None = None
    round_to: tuple[str, ...] = ()
    min_channels: tuple[str, ...] = ()
    ignored_layers: tuple[str, ...] = ()
    tied_layers: tuple[str, ...] = ()

    @cached_property
    def rules(self) -> dict[str, Any]:
        """The arguments of `prunesearch.trace`.

        Raises:
            ValueError: A number is none, or a single layer is to be tied.
        """
        return {
            "part": self.part,
            "round_to": sizes_by_name("--round-to", self.round_to or ("1",), whole=True),
            "min_channels": sizes_by_name("--min-channels", self.min_channels or ("0.1",), whole=False),
            "ignored_layers": self.ignored_layers,
            "tied_layers": [several_names("--tied-layers", names) for names in self.tied_layers],
        }


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a network is made for, where no data say it.

    Attributes:
        input: Shape of a batch.
        num_classes: Classes of a zoo, torchvision or timm network.
    """

    input: str = DEFAULT_INPUT
    num_classes: int | None = None


@dataclass(frozen=True, kw_only=True)
class OptionalData:
    """Data, if any are named.

    Attributes:
        data: digits, fashion-mnist, cifar10, cifar100, imagefolder:FOLDER, or path/to/file.py:function.
        data_root: Folder where data sets lie.
        image_size: Height and width of an imagefolder's images.
        download: Let torchvision fetch a data set that is not there.
        task: What the network is for.
    """

    data: str | None = None
    data_root: Path | None = None
    image_size: int | None = None
    download: bool = False
    task: str | None = None

    def load(self) -> Data:
        """The data that are named."""
        from prunesearch.sources import load_data

        settings = vars(self)
        return load_data(settings["data"], **{name: value for name, value in settings.items() if name != "data"})


@dataclass(frozen=True, kw_only=True)
class Images(OptionalData):
    """Data that score structures.

    Attributes:
        calibration: How many training images score structures and calibrate BatchNorm.
        data_workers: Processes that read an imagefolder's training images.
    """

    data: str = field()  # without the default of what it extends
    calibration: int | None = None
    data_workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingImages(Images):
    """Data that train.

    Attributes:
        validation: Share of the training images to hold out.
    """

    validation: float | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A budget of what needs no table.

    Attributes:
        budget: Limits of macs, params, flops or peak_memory, such as macs=50% or params=1M.
    """

    budget: str

    @cached_property
    def limits(self) -> Budget:
        """The budget.

        Raises:
            ValueError: It is none, or limits latency.
        """
        return budget_of(self.budget, has_table=False)


@dataclass(frozen=True, kw_only=True)
class LimitsByTable:
    """A budget.

    Attributes:
        budget: Limits of macs, params, flops, latency_ms, peak_memory or energy_mj, such as latency_ms=4,params=1M.
        table: What milliseconds, or millijoules, are predicted from; the command latency makes that of milliseconds.
    """

    budget: str
    table: Path | None = None

    @cached_property
    def limits(self) -> Budget:
        """The budget.

        Raises:
            ValueError: It is none, or a table and a limit in milliseconds are not both there.
        """
        return budget_of(self.budget, self.table)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A latency table.

    Attributes:
        table: What milliseconds are predicted from; the command latency makes it.
    """

    table: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database of studies.

    Attributes:
        study: Database: a file such as search.db, or postgresql://USER@SERVER/NAME.
    """

    study: str


@dataclass(frozen=True, kw_only=True)
class NamedStudy(Database):
    """A study of a database.

    Attributes:
        study_name: Which study of the database.
    """

    study_name: str = "search"


@dataclass(frozen=True, kw_only=True)
class NamedStudies(Database):
    """Studies of a database.

    Attributes:
        study_names: Which studies of the database.
    """

    study_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OptionalStudy:
    """A study, if one is named.

    Attributes:
        study: Database: a file such as search.db, or postgresql://USER@SERVER/NAME.
        study_name: Which study of the database.
    """

    study: str | None = None
    study_name: str = "search"


@dataclass(frozen=True, kw_only=True)
class FoundIn(OptionalStudy):
    """The study that found a pruned network, where what is known of it later is recorded."""

    def check(self, pruned: Path | None) -> None:
        """Make sure that there is a pruned network, and the study.

        Raises:
            ValueError: There is not.
        """
        if self.study is None:
            return
        if pruned is None:
            raise ValueError("--study is where a pruned network was found; name that network with --pruned.")
        check_study_name(self.study, self.study_name)

    def follow_up(self, network: Network) -> FollowUp | None:
        """Where facts of the pruned network are recorded; None, if no study is named.

        Args:
            network: The unpruned one, traced.
        """
        from prunesearch.followup import FollowUp

        return None if self.study is None else FollowUp(self.study, self.study_name, network)


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """What a training leaves.

    Attributes:
        out: Write the trained network here, as safetensors.
        checkpoint: State of the training.
        log: Folder for a row per epoch.
        trackers: What writes the log: csv, tensorboard, or another of accelerate's.
    """

    out: Path
    checkpoint: Path | None = None
    log: Path | None = None
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_training_files(self.out, self.checkpoint, self.log, self.trackers)

    @property
    def state(self) -> Path:
        """The file of the training's state."""
        return state_of(self.out, self.checkpoint)


_NO_TEACHER = "for a teacher"

ModelOptions = Annotated[Model, Group(NETWORK)]
PrunedOptions = Annotated[PrunedModel, Group(NETWORK)]
WidthOptions = Annotated[Widths, Group(NETWORK)]
ShapeOptions = Annotated[Shape, Group(NETWORK)]
ImageOptions = Annotated[Images, Group(DATA)]
TrainingImageOptions = Annotated[TrainingImages, Group(DATA)]
OptionalDataOptions = Annotated[OptionalData, Group(DATA)]
LimitOptions = Annotated[Limits, Group(BUDGET)]
LimitByTableOptions = Annotated[LimitsByTable, Group(BUDGET)]
TableOptions = Annotated[Table, Group(BUDGET)]
ScoringOptions = Annotated[Scoring, Group(SCORING)]
WorkerOptions = Annotated[Workers, Group(RUNNING, named={"count": "workers"})]
RunningOptions = Annotated[
    Running,
    Group(
        RUNNING,
        without={
            "workers": "a value of its own, Workers",
            "callbacks": "functions; --timeout, --patience and --tensorboard are some",
            "open_another": "so it is where no --study is named",
        },
    ),
]
RecipeOptions = Annotated[Recipe, Group(TRAINING)]
RecipeWithoutTeacher = Annotated[
    Recipe,
    Group(TRAINING, without=dict.fromkeys(("distillation", "temperature", "features", "feature_weight"), _NO_TEACHER)),
]
RecipeOfTrained = Annotated[Recipe, Group(TRAINING, without={"from_scratch": "what is pruned is a trained network"})]
RecipeOfGates = Annotated[
    Recipe,
    Group(
        TRAINING,
        without={
            **dict.fromkeys(("distillation", "temperature", "features", "feature_weight"), _NO_TEACHER),
            "ema": "would blur thresholds",
            "from_scratch": "gates are trained into a trained network",
        },
    ),
]
SeedOptions = Annotated[Seed, Group(RUNNING)]
DeviceOptions = Annotated[Where, Group(RUNNING)]
DatabaseOptions = Annotated[Database, Group(STUDY)]
NamedStudyOptions = Annotated[NamedStudy, Group(STUDY)]
NamedStudiesOptions = Annotated[NamedStudies, Group(STUDY)]
FoundInOptions = Annotated[FoundIn, Group(STUDY)]
TrainingFileOptions = Annotated[TrainingFiles, Group(OUTPUT)]
PrintingOptions = Annotated[Printing, Group(OUTPUT)]
