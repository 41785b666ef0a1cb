"""What every command has: help with an example, --json, --config; and that asking costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Any, get_args

import pytest
import typer

from prunesearch.cli import app, completion
from prunesearch.cli.commands import PANELS
from prunesearch.evaluators import WEIGHT_SOURCE
from prunesearch.progress import duration
from prunesearch.resources import RESOURCES
from prunesearch.search import SEARCHERS
from prunesearch.study.workers import EXECUTORS
from tests.cli.calls import Call

NAMES = list(PANELS)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_json_and_a_config_file(call: Call, name: str) -> None:
    run = call(name, "--help")
    assert run.returncode == 0
    text = " ".join(run.stdout.split())
    assert f"Example: prunesearch {name}" in text
    assert "--json" in text
    assert "--config" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_help_and_is_in_a_panel_and_no_flag_is_a_commands_name(name: str) -> None:
    for option in options(name):
        assert option.help, f"{name} {option.opts}"
        assert option.rich_help_panel or option.name in ("config", "help"), f"{name} {option.opts}"
        assert option.metavar or option.is_flag, f"{name} {option.opts}"
        assert option.opts[-1].removeprefix("--") not in NAMES  # or a config file could not tell them apart


def test_an_option_means_the_same_in_every_command() -> None:
    kinds: dict[str, set[str]] = {}
    for name in NAMES:
        for option in options(name):
            if (name, option.opts[0]) != ("demo", "--out"):  # that writes several files
                kinds.setdefault(option.opts[0], set()).add(str(option.metavar))
    assert {flag: seen for flag, seen in kinds.items() if len(seen) > 1} == {}


def test_without_arguments_the_commands_are_shown_in_the_order_of_the_job(call: Call) -> None:
    run = call()
    assert run.returncode == 0
    places = [run.stdout.index(f"│ {name} ") for name in NAMES]
    assert places == sorted(places)
    assert call("--version").stdout.startswith("prunesearch ")


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("search", "budget", RESOURCES),
        ("search", "searcher", SEARCHERS),
        ("search", "build_with", WEIGHT_SOURCE.names.own),
        ("search", "metric", ["loss", "accuracy", "fidelity", "agreement"]),
        ("search", "executor", EXECUTORS),
        ("latency", "backend", completion.BACKENDS),
        ("latency", "device", completion.DEVICES),
        ("pruningnet", "form", completion.FORMS),
        ("pruningnet", "start", completion.STARTS),
        ("finetune", "optimizer", ["sgd", "adamw"]),
        ("finetune", "precision", ["fp32", "bf16", "fp16"]),
    ],
)
def test_a_help_names_the_choices_of_an_option(command: str, option: str, choices: Iterable[str]) -> None:
    (found,) = [each for each in options(command) if each.name == option]
    assert [choice for choice in choices if choice not in found.help] == []


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from prunesearch.cli import main
try:
    main({arguments!r})
except SystemExit:
    sys.exit("torch" in sys.modules or "sqlalchemy" in sys.modules or "numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


def test_the_study_that_is_meant_if_none_is_named_is_in_the_help(call: Call) -> None:
    assert "[default: (sqlite:///search.db)]" in call("search", "--help").stdout
    assert "sqlite:///search.db)" not in call("show", "--help").stdout  # which has no such default


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunesearch", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("prunesearch ")


def test_completions_are_what_there_is() -> None:
    from prunesearch.evaluators.latency.backends import BACKENDS
    from prunesearch.models.hypernet import Form, Start
    from prunesearch.tasks.scored import METRICS

    assert set(METRICS) < set(completion.METRICS)
    assert tuple(BACKENDS) == completion.BACKENDS
    assert (get_args(Form), get_args(Start)) == (completion.FORMS, completion.STARTS)


def test_values_are_completed_without_torch() -> None:
    code = """
import sys
import typer
from prunesearch.cli import app
def completed(command, option, begun):
    command = typer.main.get_command(app).commands[command]
    option = next(each for each in command.params if each.name == option)
    return [found.value for found in option.shell_complete(typer.Context(command), begun)]
assert completed("search", "searcher", "ev") == ["evolution"]
assert completed("search", "criterion", "bn") == ["bn_scale"]
assert completed("search", "evaluator", "p") == ["precise_bn"]
assert completed("search", "weight_source", "g") == ["generated:"]
assert completed("search", "build_with", "rec") == ["reconstructed"]
assert completed("search", "verifiers", "l") == ["latency"]
assert completed("search", "executor", "p") == ["processes"]
assert completed("search", "task", "seg") == ["segmentation"]
assert completed("search", "data", "cifar") == ["cifar10", "cifar100"]
assert completed("finetune", "optimizer", "a") == ["adamw"]
assert completed("finetune", "schedule", "") == ["cosine", "constant"]
assert completed("finetune", "precision", "b") == ["bf16"]
assert completed("pruningnet", "sampling", "s") == ["sandwich"]
assert completed("latency", "model", "t") == ["torchvision:", "timm:"]
assert "zoo:resnet20" in completed("explain", "model", "zoo:res")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_studies_of_the_database_are_completed(call: Call) -> None:
    from prunesearch.structure import Space
    from prunesearch.study.study import Study

    url = "sqlite:///completed.db"
    Study(url, "first", {"seed": 0}, Space((), (), ())).close()

    class Context:
        params = {"study": url}  # noqa: RUF012 - as typer has it

    assert completion.study_names(Context(), "f") == ["first"]  # type: ignore[arg-type]
    Context.params = {"study": "sqlite:///none.db"}
    assert completion.study_names(Context(), "f") == []  # type: ignore[arg-type]
    assert duration(61) == "1 min 1 s"


def options(name: str) -> list[Any]:
    command = typer.main.get_command(app)
    return [option for option in command.commands[name].params if option.name != "help"]  # type: ignore[attr-defined]
