"""Options are made of the fields of dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from prunesearch.cli.flags import Flag, Group, command
from prunesearch.docstrings import field_meanings

Colour = Literal["red", "green"]


@dataclass(frozen=True, kw_only=True)
class Base:
    """What is common.

    Attributes:
        n_steps: How many steps. More is said here.
        where: A file.
    """

    n_steps: int | None = None
    where: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    """Everything that a field can be.

    Attributes:
        rate: Of `"learning"`.
        colour: Which one.
        names: Of layers.
        options: Of something.
        quick: Hurry.
        shape: Read by a function.
    """

    n_steps: int = field()
    rate: float = 0.5
    colour: Colour = "red"
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = True
    shape: tuple[str, ...] = ("1",)
    hidden: int = 3

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("too fast")


CHECKED: list[tuple[str, float]] = []
FLAGS = {
    "n_steps": Flag(metavar="N", minimum=1),
    "names": Flag(metavar="NAME"),
    "shape": Flag(parse=lambda texts: tuple(texts[0].split("x")), unset="1"),
    "speed": Flag(unset="as usual", check=lambda option, value: CHECKED.append((option, value))),
}
SEEN: list[Settings] = []


def run(settings: Annotated[Settings, Group("Panel", without={"hidden": "internal"}, named={"rate": "speed"})]) -> None:
    """Do it."""
    SEEN.append(settings)


APP = typer.Typer()
APP.command()(command(run, FLAGS))


def called(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(APP, arguments, env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_what_is_given_becomes_a_value_and_the_rest_has_its_defaults() -> None:
    assert called("--n-steps", "3")[0] == 0
    assert SEEN.pop() == Settings(n_steps=3)
    every = ("--n-steps", "2", "--colour", "green", "--names", "a", "--names", "b", "--options", "k=[1]", "--no-quick")
    assert called(*every, "--shape", "2x3", "--where", "f.txt", "--speed", "0.25")[0] == 0
    assert CHECKED.pop() == ("--speed", 0.25)
    wanted = Settings(
        n_steps=2, rate=0.25, colour="green", names=("a", "b"), options={"k": [1]}, quick=False, shape=("2", "3"),
        where=Path("f.txt"),
    )  # fmt: skip
    assert SEEN.pop() == wanted


def test_the_help_says_what_the_docstring_says_first() -> None:
    text = " ".join(called("--help")[1].replace("│", " ").split())
    assert "--n-steps N [x>=1] How many steps." in text
    assert "More is said here" not in text
    assert "--names NAME Of layers; repeatable." in text
    assert "Of `learning`." in text
    assert "--quick --no-quick" in text
    assert "[default: (1)]" in text
    assert "hidden" not in text
    assert field_meanings(Settings)["where"] == "A file."


def test_what_must_be_given_is_asked_for_and_a_dataclass_may_refuse() -> None:
    assert "Missing option '--n-steps'" in called()[1]
    done = CliRunner().invoke(APP, ("--n-steps", "0"))
    assert str(done.exception) == "Expected --n-steps as a whole number >= 1, got '0'."
    done = CliRunner().invoke(APP, ("--n-steps", "1", "--speed", "2"))
    assert str(done.exception) == "too fast"
    assert not SEEN


def test_two_fields_cannot_be_one_option() -> None:
    def twice(one: Annotated[Base, Group("A")], other: Annotated[Base, Group("B")]) -> None:
        """Do it."""

    with pytest.raises(ValueError, match="duplicate parameter name: 'n_steps'"):
        command(twice, {})
