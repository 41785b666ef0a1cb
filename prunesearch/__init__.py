"""Automated search for the structure of pruned convolutional networks.

    import prunesearch as ps

    network = ps.trace(model, example_inputs=x)
    result = ps.search(network, ps.Data(train=train_set), budget=ps.Budget(macs="50%"), study="sqlite:///search.db")
    small = ps.finetune(result.best.build(), ps.Data(train=train_set), teacher=model)

Names are imported when first used, so `import prunesearch` is fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunesearch import tasks as tasks
    from prunesearch._version import __version__ as __version__
    from prunesearch.api import search as search
    from prunesearch.budget import Budget as Budget
    from prunesearch.by_layers import LayerwisePruned as LayerwisePruned
    from prunesearch.by_layers import layerwise as layerwise
    from prunesearch.comparison import Compared as Compared
    from prunesearch.comparison import Comparison as Comparison
    from prunesearch.comparison import compare as compare
    from prunesearch.errors import CheckpointError as CheckpointError
    from prunesearch.errors import CheckpointLocked as CheckpointLocked
    from prunesearch.errors import ContractBroken as ContractBroken
    from prunesearch.errors import EvaluationFailed as EvaluationFailed
    from prunesearch.errors import InfeasibleBudget as InfeasibleBudget
    from prunesearch.errors import InvalidInput as InvalidInput
    from prunesearch.errors import NotEnoughMemory as NotEnoughMemory
    from prunesearch.errors import PruneSearchError as PruneSearchError
    from prunesearch.errors import StudyLocked as StudyLocked
    from prunesearch.errors import StudyMismatch as StudyMismatch
    from prunesearch.errors import StudyUnreadable as StudyUnreadable
    from prunesearch.errors import StudyUnwritable as StudyUnwritable
    from prunesearch.errors import TraceError as TraceError
    from prunesearch.errors import TrainingDiverged as TrainingDiverged
    from prunesearch.evaluators.accuracy import top1 as top1
    from prunesearch.evaluators.latency.timing import measure_latency as measure_latency
    from prunesearch.evaluators.recalibration import recalibrate_bn as recalibrate_bn
    from prunesearch.evaluators.winner import Winner as Winner
    from prunesearch.latency_table import LatencyTable as LatencyTable
    from prunesearch.models.checkpoint import load_weights as load_weights
    from prunesearch.models.count import count as count
    from prunesearch.models.export import export_onnx as export_onnx
    from prunesearch.models.export import export_program as export_program
    from prunesearch.models.gates import gated as gated
    from prunesearch.models.gates import macs_per_image as macs_per_image
    from prunesearch.models.hypernet import PruningNet as PruningNet
    from prunesearch.models.hypernet_file import load_pruningnet as load_pruningnet
    from prunesearch.models.hypernet_file import save_pruningnet as save_pruningnet
    from prunesearch.models.network import Network as Network
    from prunesearch.models.saving import load as load
    from prunesearch.models.saving import save as save
    from prunesearch.models.skipping import skipping as skipping
    from prunesearch.models.slim import slim as slim
    from prunesearch.models.trace import trace as trace
    from prunesearch.models.zoo import make_model as make_model
    from prunesearch.report import write_report as write_report
    from prunesearch.result import SearchResult as SearchResult
    from prunesearch.running import Running as Running
    from prunesearch.scoring import Scoring as Scoring
    from prunesearch.structure import Cost as Cost
    from prunesearch.structure import Space as Space
    from prunesearch.structure import Structure as Structure
    from prunesearch.study.events import Event as Event
    from prunesearch.study.events import early_stopping as early_stopping
    from prunesearch.study.events import stop_after as stop_after
    from prunesearch.study.tensorboard import TensorBoardLogger as TensorBoardLogger
    from prunesearch.study.workers import Workers as Workers
    from prunesearch.tasks.examples import Examples as Examples
    from prunesearch.tasks.task import Task as Task
    from prunesearch.training.accelerating import Log as Log
    from prunesearch.training.augment import Augmentation as Augmentation
    from prunesearch.training.data import Data as Data
    from prunesearch.training.finetune import Training as Training
    from prunesearch.training.finetune import finetune as finetune
    from prunesearch.training.finetune import train as train
    from prunesearch.training.manidp import DynamicallyPruned as DynamicallyPruned
    from prunesearch.training.manidp import manidp as manidp
    from prunesearch.training.paam import AttentionPruned as AttentionPruned
    from prunesearch.training.paam import paam as paam
    from prunesearch.training.pruningnet import train_pruningnet as train_pruningnet
    from prunesearch.training.recipe import Recipe as Recipe
    from prunesearch.training.reports import EpochReport as EpochReport
    from prunesearch.training.reports import LayerReport as LayerReport
    from prunesearch.training.reports import Session as Session
    from prunesearch.training.reports import StepReport as StepReport
    from prunesearch.training.settings import AttentionSettings as AttentionSettings
    from prunesearch.training.settings import LayerwiseSettings as LayerwiseSettings
    from prunesearch.training.settings import ManifoldSettings as ManifoldSettings
    from prunesearch.training.settings import PruningNetRecipe as PruningNetRecipe
    from prunesearch.trial import Trial as Trial
    from prunesearch.verifiers.finetuning import FinetuneVerifier as FinetuneVerifier
    from prunesearch.verifiers.latency import LatencyVerifier as LatencyVerifier
    from prunesearch.verifiers.verifier import Verdict as Verdict
    from prunesearch.whole import prune as prune
    from prunesearch.whole import prune_in_steps as prune_in_steps

_PUBLIC = {
    "AttentionPruned": "prunesearch.training.paam:AttentionPruned",
    "AttentionSettings": "prunesearch.training.settings:AttentionSettings",
    "Augmentation": "prunesearch.training.augment:Augmentation",
    "Budget": "prunesearch.budget:Budget",
    "CheckpointError": "prunesearch.errors:CheckpointError",
    "CheckpointLocked": "prunesearch.errors:CheckpointLocked",
    "InvalidInput": "prunesearch.errors:InvalidInput",
    "Compared": "prunesearch.comparison:Compared",
    "Comparison": "prunesearch.comparison:Comparison",
    "ContractBroken": "prunesearch.errors:ContractBroken",
    "Cost": "prunesearch.structure:Cost",
    "Data": "prunesearch.training.data:Data",
    "DynamicallyPruned": "prunesearch.training.manidp:DynamicallyPruned",
    "EpochReport": "prunesearch.training.reports:EpochReport",
    "EvaluationFailed": "prunesearch.errors:EvaluationFailed",
    "Event": "prunesearch.study.events:Event",
    "Examples": "prunesearch.tasks.examples:Examples",
    "FinetuneVerifier": "prunesearch.verifiers.finetuning:FinetuneVerifier",
    "InfeasibleBudget": "prunesearch.errors:InfeasibleBudget",
    "LatencyTable": "prunesearch.latency_table:LatencyTable",
    "LatencyVerifier": "prunesearch.verifiers.latency:LatencyVerifier",
    "LayerReport": "prunesearch.training.reports:LayerReport",
    "LayerwisePruned": "prunesearch.by_layers:LayerwisePruned",
    "LayerwiseSettings": "prunesearch.training.settings:LayerwiseSettings",
    "Log": "prunesearch.training.accelerating:Log",
    "ManifoldSettings": "prunesearch.training.settings:ManifoldSettings",
    "Network": "prunesearch.models.network:Network",
    "NotEnoughMemory": "prunesearch.errors:NotEnoughMemory",
    "PruneSearchError": "prunesearch.errors:PruneSearchError",
    "PruningNet": "prunesearch.models.hypernet:PruningNet",
    "PruningNetRecipe": "prunesearch.training.settings:PruningNetRecipe",
    "Recipe": "prunesearch.training.recipe:Recipe",
    "Running": "prunesearch.running:Running",
    "Scoring": "prunesearch.scoring:Scoring",
    "SearchResult": "prunesearch.result:SearchResult",
    "Session": "prunesearch.training.reports:Session",
    "Space": "prunesearch.structure:Space",
    "StepReport": "prunesearch.training.reports:StepReport",
    "Structure": "prunesearch.structure:Structure",
    "StudyLocked": "prunesearch.errors:StudyLocked",
    "StudyMismatch": "prunesearch.errors:StudyMismatch",
    "StudyUnreadable": "prunesearch.errors:StudyUnreadable",
    "StudyUnwritable": "prunesearch.errors:StudyUnwritable",
    "Task": "prunesearch.tasks.task:Task",
    "TensorBoardLogger": "prunesearch.study.tensorboard:TensorBoardLogger",
    "TraceError": "prunesearch.errors:TraceError",
    "Training": "prunesearch.training.finetune:Training",
    "TrainingDiverged": "prunesearch.errors:TrainingDiverged",
    "Trial": "prunesearch.trial:Trial",
    "Verdict": "prunesearch.verifiers.verifier:Verdict",
    "Winner": "prunesearch.evaluators.winner:Winner",
    "Workers": "prunesearch.study.workers:Workers",
    "__version__": "prunesearch._version:__version__",
    "compare": "prunesearch.comparison:compare",
    "count": "prunesearch.models.count:count",
    "early_stopping": "prunesearch.study.events:early_stopping",
    "export_onnx": "prunesearch.models.export:export_onnx",
    "export_program": "prunesearch.models.export:export_program",
    "finetune": "prunesearch.training.finetune:finetune",
    "gated": "prunesearch.models.gates:gated",
    "layerwise": "prunesearch.by_layers:layerwise",
    "load": "prunesearch.models.saving:load",
    "load_pruningnet": "prunesearch.models.hypernet_file:load_pruningnet",
    "load_weights": "prunesearch.models.checkpoint:load_weights",
    "macs_per_image": "prunesearch.models.gates:macs_per_image",
    "make_model": "prunesearch.models.zoo:make_model",
    "manidp": "prunesearch.training.manidp:manidp",
    "measure_latency": "prunesearch.evaluators.latency.timing:measure_latency",
    "paam": "prunesearch.training.paam:paam",
    "prune": "prunesearch.whole:prune",
    "prune_in_steps": "prunesearch.whole:prune_in_steps",
    "recalibrate_bn": "prunesearch.evaluators.recalibration:recalibrate_bn",
    "save": "prunesearch.models.saving:save",
    "save_pruningnet": "prunesearch.models.hypernet_file:save_pruningnet",
    "search": "prunesearch.api:search",
    "skipping": "prunesearch.models.skipping:skipping",
    "slim": "prunesearch.models.slim:slim",
    "stop_after": "prunesearch.study.events:stop_after",
    "top1": "prunesearch.evaluators.accuracy:top1",
    "trace": "prunesearch.models.trace:trace",
    "train": "prunesearch.training.finetune:train",
    "train_pruningnet": "prunesearch.training.pruningnet:train_pruningnet",
    "write_report": "prunesearch.report:write_report",
}

_ROOMS = ("tasks",)
"""Rooms whose own public names are meant, as in `ps.tasks.segmentation()`."""

__all__ = sorted([*_PUBLIC, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"prunesearch.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'prunesearch' has no attribute {name!r}")
    from prunesearch.registry import resolve

    return resolve(_PUBLIC, name, "name")


def __dir__() -> list[str]:
    return list(__all__)


class _Package(ModuleType):
    """The package, in which `search` is the public function, whatever has been imported.

    The room `prunesearch.search` has the same name, and the import system binds it here; that must not hide it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "search" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
