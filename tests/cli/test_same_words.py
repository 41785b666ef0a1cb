"""Python, flags and config files have the same words: what differs stands here, with the reason."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import typer

import prunesearch as ps
from prunesearch.cli import app, config
from prunesearch.cli.commands import COMMANDS, PANELS
from prunesearch.cli.flags import groups_of
from prunesearch.evaluators.latency.remote import plan
from prunesearch.registry import resolve
from prunesearch.report import write_report
from prunesearch.sources import load_data
from prunesearch.study.workers import Workers
from prunesearch.training.settings import AttentionSettings, LayerwiseSettings, ManifoldSettings

NAMES = list(PANELS)
OBJECT = "an object; --model names it"
VALUES = "a value: its fields are options"
FUNCTION = "a function, which shows progress"
SHOWN = "a command always shows it, on a terminal as a bar, elsewhere as a line now and then"
TIME = "60 seconds are plenty for what a command can name; --time-limit is that of a structure"
TRACED = {
    "example_inputs": "of the shape of --input, or of the data",
    "round_to": "text, as it may be by layer; not given it is 1",
    "min_channels": "text, as it may be by layer; not given it is 0.1",
    "time_limit": TIME,
    "rules": "functions by class",
}
DATA = {
    "train": "--data names all of it",
    "test": "--data names all of it",
    "calibrate_on": "--data names all of it",
    "calibration": "not given it is that of the data set, of most 1024",
}
TRAINING = {
    "network": OBJECT,
    "recipe": VALUES,
    "settings": VALUES,
    "on_epoch": FUNCTION,
    "on_step": FUNCTION,
    "progress": SHOWN,
}

SHARED = {*TRACED, *DATA, *TRAINING}

EXCEPTIONS: dict[str, list[tuple[Callable[..., Any], dict[str, str]]]] = {
    "search": [
        (
            ps.search,
            {
                "network": OBJECT,
                "scoring": VALUES,
                "running": VALUES,
                "study": "a command that keeps nothing could not be run again to continue",
                "progress": SHOWN,
                "moved": "no argument, but an error for those of earlier releases",
            },
        ),
        (ps.Scoring, {}),
        (ps.Running, {}),
        (Workers, {"count": "--workers, as Running(workers=4) has it"}),
        (ps.trace, TRACED),
        (ps.Data, {**DATA, "validation": "no training, so nothing is held out"}),
    ],
    "finetune": [
        (ps.finetune, {**TRAINING, "teacher": "a network; the command has the unpruned one, unless told not to"}),
        (ps.Recipe, {}),
        (ps.Data, DATA),
    ],
    "paam": [
        (ps.paam, TRAINING),
        (ps.Recipe, {}),
        (AttentionSettings, {}),
        (ps.trace, TRACED),
        (ps.Data, DATA),
    ],
    "manidp": [
        (ps.manidp, TRAINING),
        (ps.Recipe, {}),
        (ManifoldSettings, {}),
        (ps.Data, DATA),
    ],
    "layerwise": [
        (
            ps.layerwise,
            {
                **TRAINING,
                "structure": "widths of a search in Python; --share-of-budget decides",
                "on_layer": FUNCTION,
                "on_score": FUNCTION,
            },
        ),
        (ps.Recipe, {}),
        (LayerwiseSettings, {}),
        (ps.trace, TRACED),
        (ps.Data, DATA),
    ],
    "pruningnet": [
        (
            ps.train_pruningnet,
            {
                "net": VALUES,
                "recipe": VALUES,
                "on_step": FUNCTION,
                "progress": SHOWN,
                "file": "--out, as of any other command",
                "save_every": "a minute, as of any other training",
            },
        ),
        (ps.PruningNetRecipe, {}),
        (ps.PruningNet, {"network": OBJECT, "ranking": "an object; --criterion ranks"}),
        (ps.trace, TRACED),
        (ps.Data, {**DATA, "validation": "the last step is what counts, so nothing is held out"}),
    ],
    "prune": [
        (
            ps.prune,
            {
                "recipe": VALUES,
                "folder": "a command that keeps nothing could not be run again to continue",
                "say": FUNCTION,
                "on_step": FUNCTION,
                "progress": SHOWN,
                "settings": "arguments of search; its own command has all of them",
            },
        ),
        (ps.Recipe, {}),
        (ps.Data, DATA),
    ],
    "compare": [(ps.compare, {"network": OBJECT, "models": "objects; --pruned names them"})],
    "latency": [
        (
            ps.LatencyTable.measure,
            {
                "network": OBJECT,
                "device": "a network of a command is on the CPU",
                "batch_size": "the first number of --input",
                "threads": "1, so that the same command measures the same anywhere",
                "file": "--out, as of any other command",
                "on_progress": FUNCTION,
                "progress": SHOWN,
            },
        ),
        (
            plan,
            {
                "network": OBJECT,
                "device": "--remote; --device is one that is here",
                "batch_size": "the first number of --input",
                "points": "not given it is the backend's, 6",
            },
        ),
        (ps.trace, TRACED),
    ],
    "explain": [(ps.trace, TRACED)],
    "verify": [(ps.Network.verify, {"self": OBJECT}), (ps.trace, TRACED)],
    "report": [(write_report, {})],
}
"""Of each command what it stands for in Python; of that what is no option with the same name and default, and why.

What a command leaves out of a dataclass it says itself (`Group.without`).
"""

OF_FILES = {"model", "weights", "pruned", "data", "out", "json", "config", "help"}
OF_DATA_SETS = set(inspect.signature(load_data).parameters) - {"source"}
ONLY_FLAGS: Mapping[str, set[str]] = {
    "prune": {"n_trials"},  # one of the `**settings`, which are those of search
    "search": {"timeout", "patience", "tensorboard", "policy_share"},
    "finetune": {"trackers", "study_name"},
    "paam": {"trackers"},
    "manidp": {"trackers"},
    "layerwise": {"trackers"},
    "pruningnet": {"criterion"},
    "compare": {"input", "num_classes"},
    "latency": {"remote", "input", "num_classes"},
    "explain": {"input", "num_classes"},
    "verify": {"input", "num_classes", "table", "study", "study_name"},
}
"""Options that stand for files, for a callback, for a method of the result, or for where facts are recorded."""


@cache
def command(name: str) -> Any:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def options(name: str) -> dict[str, Any]:
    return {option.name: option for option in command(name).params}


def arguments(of: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults; None for what is made anew each time, such as an empty dictionary."""
    found = {name: parameter.default for name, parameter in inspect.signature(of).parameters.items()}
    return {name: None if repr(default) == "<factory>" else default for name, default in found.items()}


def left_out(name: str, of: Callable[..., Any]) -> Mapping[str, str]:
    """The fields of a dataclass that a command says it does not take, and why; not what another value gives it."""
    function = resolve(COMMANDS[PANELS[name]], name, "command")
    without = next((group.without for kind, group in groups_of(function).values() if kind is of), {})
    return {field: why for field, why in without.items() if field not in options(name)}


def is_same(argument: str, default: Any, flags: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    """Whether a command has an option for an argument, and a config file a key, and not giving it means the same."""
    if argument not in flags or argument.replace("_", "-") not in keys:
        return False
    option = flags[argument]
    if default is inspect.Parameter.empty:
        return bool(option.required) or argument in OF_FILES
    if default in (None, ()) or dataclasses.is_dataclass(default):
        return option.default in (None, [])
    if type(default) in (int, float):  # read by us, from text
        return bool(option.default == str(default))
    return bool(option.default == default)


CASES = [(name, of) for name, each in EXCEPTIONS.items() for of, _ in each]


@pytest.mark.parametrize(("name", "of"), CASES, ids=[f"{name}-{of.__qualname__}" for name, of in CASES])
def test_every_argument_and_field_is_an_option_with_its_name_and_default(name: str, of: Callable[..., Any]) -> None:
    reasons = {**dict(EXCEPTIONS[name])[of], **left_out(name, of)}
    flags, keys = options(name), config._flags(command(name))
    known = arguments(of)
    differ = {argument for argument, default in known.items() if not is_same(argument, default, flags, keys)}
    assert differ == reasons.keys() & known.keys()
    assert reasons.keys() - known.keys() <= SHARED


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_option_is_an_argument_or_a_field(name: str) -> None:
    public = {argument for of, _ in EXCEPTIONS[name] for argument in arguments(of)}
    extra = options(name).keys() - public - OF_FILES - OF_DATA_SETS
    assert extra == ONLY_FLAGS.get(name, set())


RENAMED = [
    ("search", "--as-finished", "--asynchronous"),
    ("search", "--ignore", "--ignored-layers"),
    ("search", "--latency-table", "--table"),
    ("search", "--option", "--options"),
    ("search", "--save", "--out"),
    ("finetune", "--augment", "--augmentation"),
    ("finetune", "--tracker", "--trackers"),
    ("paam", "--option", "--share"),
    ("latency", "--elsewhere", "--remote"),
]


@pytest.mark.parametrize(("name", "before", "now"), RENAMED)
def test_an_option_of_an_earlier_release_is_answered_with_its_new_name(
    capsys: pytest.CaptureFixture[str], name: str, before: str, now: str
) -> None:
    from prunesearch.cli import main

    with pytest.raises(SystemExit) as ended:
        main([name, before, "x"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"{before} is now " in said
    assert now in said
    assert now.removeprefix("--").replace("-", "_") in options(name)


def test_every_option_that_was_renamed_is_gone_and_tested() -> None:
    assert {before for _, before, _ in RENAMED} == config.RENAMED.keys()
    flags = {flag for name in NAMES for option in options(name).values() for flag in option.opts}
    assert not flags & config.RENAMED.keys()


def test_words_for_an_option_stand_for_another_one_that_a_command_has() -> None:
    flags = {flag for name in NAMES for option in options(name).values() for flag in option.opts}
    assert {option for meant in config.MEANT.values() for option in meant} <= flags
    assert not [word for word, meant in config.MEANT.items() if word in meant]
    assert flags & config.MEANT.keys() == {"--out", "--study", "--checkpoint", "--data"}  # which some have otherwise
    assert not config.MEANT.keys() & config.RENAMED.keys()
