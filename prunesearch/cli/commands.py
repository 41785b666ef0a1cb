"""Which commands there are. Each is made when it is asked for: nobody waits for the options of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

from prunesearch.cli.checks import check_apart
from prunesearch.cli.flags import command
from prunesearch.cli.options import FLAGS, configured
from prunesearch.registry import resolve

MARKUP: Any = "markdown"
"""In which docstrings are read as helps."""

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Try it": {"demo": "prunesearch.cli.demonstration:demo"},
    "The whole job": {"prune": "prunesearch.cli.pruning:prune"},
    "Before a search": {
        "explain": "prunesearch.cli.networks:explain",
        "latency": "prunesearch.cli.timing:latency",
        "pruningnet": "prunesearch.cli.pruningnet:pruningnet",
    },
    "Search": {"search": "prunesearch.cli.studies:search", "status": "prunesearch.cli.records:status"},
    "After a search": {
        "finetune": "prunesearch.cli.finetuning:finetune",
        "compare": "prunesearch.cli.comparing:compare",
        "verify": "prunesearch.cli.networks:verify",
        "report": "prunesearch.cli.records:report",
        "export": "prunesearch.cli.networks:export",
    },
    "Structure and weights in one training": {
        "paam": "prunesearch.cli.paam:paam",
        "manidp": "prunesearch.cli.manidp:manidp",
        "layerwise": "prunesearch.cli.layerwise:layerwise",
    },
    "What is recorded": {
        "list": "prunesearch.cli.records:list_studies",
        "show": "prunesearch.cli.records:show",
        "delete": "prunesearch.cli.records:delete",
    },
}
"""Every command, in the order of the job, as `--help` groups them."""

PANELS: Mapping[str, str] = {name: panel for panel, names in COMMANDS.items() for name in names}
"""The panel of each command."""


class Commands(TyperGroup):
    """The group of all commands; to be given to typer as `cls`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _MadeWhenAsked()


class _MadeWhenAsked(Mapping[str, Any]):
    """Commands by name. Names alone make none of them."""

    def __getitem__(self, name: str) -> Any:
        return made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(PANELS)

    def __len__(self) -> int:
        return len(PANELS)


@cache
def made(name: str) -> Any:
    """A command with its options; KeyError if there is none of this name."""
    panel = PANELS[name]
    function = resolve(COMMANDS[panel], name, "command")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=MARKUP)
    alone.command(name, rich_help_panel=panel)(command(function, FLAGS, (configured(),), check_apart))
    return typer.main.get_command(alone)
