"""Progress in Python: on a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

import prunesearch as ps
from prunesearch.progress import Shown, shown
from tests.test_given import IMAGES, LABELS, Net, network, search


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(monkeypatch: pytest.MonkeyPatch, *, progress: bool) -> str:
    """What a terminal gets; made within the test, as pytest sets its own between the phases of one."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    run_all(progress)
    return terminal.getvalue()


def run_all(progress: bool) -> None:
    net, recipe = network(), ps.Recipe(epochs=1, batch_size=8)
    search(net, progress=progress)
    ps.finetune(Net(), (IMAGES, LABELS), recipe=recipe, progress=progress)
    data = ps.Data(train=(IMAGES, LABELS), calibration=8)
    generated = ps.PruningNetRecipe(epochs=1, batch_size=8)
    ps.train_pruningnet(ps.PruningNet(net), data, recipe=generated, progress=progress)


def test_what_takes_long_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seen(monkeypatch, progress=True)
    for word in ("scored: best loss", "training step: loss", "training: loss"):
        assert word in drawn


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, progress=False) == ""


@pytest.mark.parametrize("progress", [True, False])
def test_a_verifier_that_trains_shows_it_if_the_search_does(monkeypatch: pytest.MonkeyPatch, progress: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    data = ps.Data(train=(IMAGES, LABELS), validation=(IMAGES[:16], LABELS[:16]), calibration=32)
    recipe = ps.Recipe(epochs=1, batch_size=16)
    verifier = ps.FinetuneVerifier(data, reach=0.0, recipe=recipe)
    assert search(data=data, verifiers=verifier, progress=progress).verified
    assert ("training step: " in terminal.getvalue()) == progress


def test_without_a_terminal_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    search(network())
    assert capsys.readouterr().err == ""


def test_a_notebook_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shows: list[Mapping[str, str]] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shows.append(bundle))

    def display(bundle: Mapping[str, str], **_: Any) -> Any:
        shows.append(bundle)
        return handle

    fake = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=object()), display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", fake)
    with shown("scored", "trials") as bar:
        bar.update(1, 2, "a <b>")
        bar.update(2, 2, "a <b>")
    assert shows[-1]["text/plain"] == "scored: a <b> | 2 of 2, done"
    assert "a &lt;b&gt;" in shows[-1]["text/html"]


def test_a_place_that_is_open_already_is_used() -> None:
    told: list[tuple[int, int, str]] = []
    place = SimpleNamespace(draw=lambda done, total, text, seconds, left: told.append((done, total, text)))
    with shown("outer", "trials", Shown("inner", "trials", place)) as bar:
        bar.update(1, 4, "x")
    assert told == [(1, 4, "inner: x")]
