"""What a shell says of options beside the fields that they are made of, by their names: one name, one meaning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from prunesearch.cli import completion
from prunesearch.cli.arguments import NOBODY
from prunesearch.cli.checks import (
    check_data,
    check_files,
    check_model,
    check_named,
    check_share,
    check_task,
    check_weight_source,
)
from prunesearch.cli.config import use_config
from prunesearch.cli.console import results
from prunesearch.cli.flags import Flag
from prunesearch.evaluators import EVALUATOR, WEIGHT_SOURCE
from prunesearch.evaluators.channels import CRITERION
from prunesearch.files import check_folder
from prunesearch.search import SEARCHER
from prunesearch.study.workers import EXECUTORS
from prunesearch.tasks import TASK
from prunesearch.training.augment import Augmentation
from prunesearch.verifiers import VERIFIER

_FILE, _FOLDER, _NUMBER, _NAME, _SECONDS = "FILE", "FOLDER", "N", "NAME", "SECONDS"
_SHARE, _GLOB, _WIDTHS, _OPTION = "SHARE", "GLOB", "[GLOB=]N", "NAME=VALUE"


def _check_verifiers(option: str, names: list[str]) -> None:
    if names != [NOBODY]:
        check_named(VERIFIER, option, names)


def _verifiers(names: list[str]) -> tuple[str, ...]:
    return () if names == [NOBODY] else tuple(names)


def results_alone(context: typer.Context, asked: bool) -> bool:
    """Keep what models and libraries print away from stdout, if a program reads it."""
    if asked and not context.resilient_parsing:
        context.with_resource(results.alone())
    return asked


FLAGS: Mapping[str, Flag] = {
    # networks
    "model": Flag(metavar=_NAME, complete=completion.models, check=check_model),
    "weights": Flag(metavar=_FILE, check=check_files),
    "pruned": Flag(metavar=_FILE, check=check_files),
    "input": Flag(metavar="NxCxHxW"),
    "num_classes": Flag(metavar=_NUMBER, minimum=1, unset="its own"),
    "part": Flag(metavar=_NAME),
    "round_to": Flag(metavar=_WIDTHS, unset="1"),
    "min_channels": Flag(metavar=_WIDTHS, unset="0.1"),
    "ignored_layers": Flag(metavar=_GLOB),
    "tied_layers": Flag(metavar="NAME,NAME"),
    # data
    "data": Flag(metavar=_NAME, complete=completion.data_sets, check=check_data),
    "data_root": Flag(metavar=_FOLDER, unset="data; for fashion-mnist, the folder of Debian's package"),
    "image_size": Flag(metavar=_NUMBER, minimum=1, unset="224"),
    "calibration": Flag(metavar=_NUMBER, minimum=1, unset="1024; for digits, 512"),
    "data_workers": Flag(metavar=_NUMBER, minimum=0, unset="0: this one"),
    "task": Flag(metavar=_NAME, role=TASK, check=check_task, unset="that of the data"),
    "validation": Flag(metavar=_SHARE, check=check_share),
    # budgets, searchers, scores
    "budget": Flag(metavar="LIMITS"),
    "table": Flag(metavar=_FILE, check=check_files),
    "searcher": Flag(metavar=_NAME, role=SEARCHER, check=partial(check_named, SEARCHER)),
    "options": Flag(metavar=_OPTION),
    "n_trials": Flag(metavar=_NUMBER, minimum=1),
    "verifiers": Flag(
        metavar=_NAME,
        role=VERIFIER,
        check=_check_verifiers,
        parse=_verifiers,
        unset="latency, if the budget limits it by a table of this machine",
    ),
    "criterion": Flag(metavar=_NAME, role=CRITERION, check=partial(check_named, CRITERION)),
    "weight_source": Flag(
        metavar=_NAME,
        role=WEIGHT_SOURCE,
        shown={"generated": "generated:FILE"},
        complete=completion.weight_sources,
        check=check_weight_source,
    ),
    "build_with": Flag(
        metavar=_NAME,
        role=WEIGHT_SOURCE,
        shown={"generated": "generated:FILE"},
        complete=completion.weight_sources,
        check=check_weight_source,
        unset="those that were scored",
    ),
    "evaluator": Flag(metavar=_NAME, role=EVALUATOR, check=partial(check_named, EVALUATOR)),
    "metric": Flag(
        metavar=_NAME, complete=completion.one_of(completion.METRICS), unset="loss; fidelity without labels"
    ),
    "images": Flag(metavar=_NUMBER, unset="all; 512 without a race"),
    "criterion_options": Flag(metavar=_OPTION),
    "evaluator_options": Flag(metavar=_OPTION),
    "n": Flag(metavar=_NUMBER, minimum=1),
    # how it runs
    "seed": Flag(metavar=_NUMBER, minimum=0),
    "workers": Flag(metavar=_NUMBER),
    "executor": Flag(metavar=_NAME, complete=completion.one_of(EXECUTORS)),
    "time_limit": Flag(metavar=_SECONDS),
    "max_retries": Flag(metavar=_NUMBER),
    "address": Flag(metavar="URL"),
    "gpus": Flag(metavar=_SHARE),
    "cache": Flag(metavar=_FOLDER, check=check_folder),
    "timeout": Flag(metavar=_SECONDS),
    "patience": Flag(metavar=_NUMBER),
    "watch": Flag(metavar=_SECONDS),
    # trainings
    "epochs": Flag(metavar=_NUMBER),
    "batch_size": Flag(metavar=_NUMBER),
    "optimizer": Flag(metavar=_NAME),
    "lr": Flag(metavar="RATE"),
    "momentum": Flag(metavar=_SHARE),
    "weight_decay": Flag(metavar="RATE"),
    "schedule": Flag(metavar=_NAME),
    "warmup": Flag(metavar=_SHARE),
    "label_smoothing": Flag(metavar=_SHARE),
    "distillation": Flag(metavar=_SHARE),
    "temperature": Flag(metavar=_NUMBER),
    "features": Flag(metavar=_NAME),
    "feature_weight": Flag(metavar=_NUMBER),
    "ema": Flag(metavar="DECAY"),
    "augmentation": Flag(metavar="flip,crop=N,erase=N", parse=Augmentation.parse, unset="none"),
    "precision": Flag(metavar=_NAME),
    "sampling": Flag(metavar=_NAME),
    "macs_from": Flag(metavar=_SHARE),
    "macs_to": Flag(metavar=_SHARE),
    "form": Flag(metavar=_NAME, complete=completion.one_of(completion.FORMS)),
    "start": Flag(metavar=_NAME, complete=completion.one_of(completion.STARTS)),
    "hidden": Flag(metavar=_NUMBER),
    "rank": Flag(metavar=_NUMBER),
    "share": Flag(metavar=_SHARE),
    "every": Flag(metavar=_NUMBER),
    "reach": Flag(metavar=_NUMBER),
    "strength": Flag(metavar=_NUMBER),
    "sparsity": Flag(metavar=_NUMBER),
    "similarity": Flag(metavar=_NUMBER),
    "simple": Flag(metavar=_SHARE),
    "share_of_budget": Flag(metavar=_SHARE),
    "epochs_per_layer": Flag(metavar=_NUMBER),
    "generations": Flag(metavar=_NUMBER),
    "scored": Flag(metavar=_NUMBER),
    # latency
    "backend": Flag(metavar=_NAME, complete=completion.one_of(completion.BACKENDS)),
    "device": Flag(metavar=_NAME, complete=completion.one_of(completion.DEVICES), unset="the GPU, if there is one"),
    "threads": Flag(metavar=_NUMBER),
    "points": Flag(metavar=_NUMBER, unset="the backend's"),
    "remote": Flag(metavar=_NAME),
    # studies
    "study": Flag(metavar="URL"),
    "study_name": Flag(metavar=_NAME, complete=completion.study_names),
    "study_names": Flag(metavar=_NAME, complete=completion.study_names, unset="all"),
    "trials": Flag(metavar=_NUMBER, minimum=0),
    "from_trial": Flag(metavar=_NUMBER, minimum=0),
    # what is left
    "policy_share": Flag(metavar=_SHARE),
    "tensorboard": Flag(metavar=_FOLDER, check=check_folder),
    "out": Flag(metavar=_FILE),
    "checkpoint": Flag(metavar=_FILE, unset="beside --out"),
    "log": Flag(metavar=_FOLDER, check=check_folder),
    "trackers": Flag(metavar=_NAME, unset="csv"),
    "onnx": Flag(metavar=_FOLDER, check=check_folder),
    "folder": Flag(metavar=_FOLDER),
    "optuna": Flag(metavar="URL"),
    "csv": Flag(metavar=_FILE),
    "parquet": Flag(metavar=_FILE),
    "title": Flag(metavar="TEXT", unset="network, data and budget"),
    "json": Flag(needs_no=False, callback=results_alone),
    "yes": Flag(needs_no=False),
}
"""By the name of an option, with underscores: an option means the same in every command."""


def configured() -> inspect.Parameter:
    """The option `--config`, which every command has: where options come from, so none of them itself."""
    info = typer.Option(
        "--config",
        help="TOML file whose keys are these flags; flags win over it.",
        metavar=_FILE,
        show_default=False,
        is_eager=True,
        callback=use_config,
    )
    kind = Annotated[Path | None, info]
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
