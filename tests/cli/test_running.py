"""What a command that takes long shows, on a terminal and where there is none."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from prunesearch import sources
from prunesearch.best_so_far import BestSoFar
from prunesearch.cli import main
from prunesearch.cli.running import Lines
from prunesearch.progress import Shown, TerminalBar, duration
from prunesearch.structure import Cost
from prunesearch.study.events import Event
from prunesearch.study.store import Store
from prunesearch.trial import pareto_front
from tests.cli.calls import BUDGET, NETWORK
from tests.toys import trial


def test_without_a_terminal_lines_come_at_growing_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    shown = Shown("scored", "trials", Lines(), clock=lambda: now[0])
    for done in range(1, 3601):  # one a second, an hour in all
        now[0] = float(done)
        shown.update(done, 3600, "best 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scored 10 of 3600: best 0.5, 59 min 50 s left"
    assert 5 < len(lines) < 40
    assert capsys.readouterr().out == ""


def test_a_short_run_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown("scored", "trials", Lines())
    shown.update(1, 2)
    assert capsys.readouterr().err == ""


def test_a_bar_has_the_best_its_macs_the_front_the_rate_and_the_time_left() -> None:
    drawn = io.StringIO()
    now = [0.0]
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(file=drawn, width=200, force_terminal=True)) as bar:
        tell = BestSoFar(
            Shown("scored", "trials", TerminalBar(bar), clock=lambda: now[0]),
            100,
            lambda score: f"accuracy {score:.1%}",
        )
        now[0] = 2.0
        trials = [replace(trial(i, (i,), 0.1 * i), cost=Cost(10 * i, 1)) for i in range(1, 4)]
        tell(Event("search", trials[0], trials[0], 12, 1.0, tuple(pareto_front(trials[:1]))))
        now[0] = 4.0
        tell(Event("search", trials[2], trials[2], 12, 4.0, tuple(pareto_front(trials))))
    assert "scored: best accuracy 30.0% with 30.0% of the MACs, front 3, 0.5/s" in drawn.getvalue()
    assert "left" in drawn.getvalue()


def test_what_earlier_runs_did_does_not_make_this_one_look_fast(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    shown = Shown("scored", "trials", Lines(), clock=lambda: now[0])
    now[0] = 1.0
    shown.update(901, 1000)  # the first of this run
    now[0] = 20.0
    shown.update(920, 1000)
    assert capsys.readouterr().err == ("Resuming: 900 of 1000 trials done.\nscored 920 of 1000: 1 min 20 s left\n")
    assert duration(0.2) == "0 s"


@pytest.mark.parametrize("module", ["typer", "rich.console", "numpy", "torch", "torch.nn"])
def test_an_interrupt_while_modules_are_imported_is_one_line_and_no_traceback(module: str) -> None:
    code = f"""
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore interrupts
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["prunesearch", "explain", "--model", "zoo:resnet8", "--input", "1x1x8x8"]
runpy.run_module("prunesearch", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: Interrupted.\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "begun", "kept"),
    [
        (
            ("prune", *NETWORK, *BUDGET, "--n-trials", "2", "--epochs", "10000", "--folder", "ended"),
            "Found: ",
            "The study",
        ),
        (("demo", "--out", "ended-demo"), "Training ", "Everything scored is kept"),
    ],
    ids=["prune", "demo"],
)
def test_a_signal_ends_commands_that_do_several_things_in_order(
    folder: Path, arguments: tuple[str, ...], begun: str, kept: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-u", "-c", "from prunesearch.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    try:
        next(line for line in process.stdout if line.startswith(begun))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    word = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}[number]
    assert errors.splitlines()[-1].startswith(f"error: {word}. {kept}")


def test_where_interrupts_are_ignored_they_stay_so() -> None:
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from prunesearch.__main__ import main
sys.argv = ["prunesearch", "--version"]
try:
    main()
finally:
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_is_told_from_a_confirmation_that_was_not_given(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sources, "load_model", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--model", "zoo:resnet8"])
    expected = (130, "Interrupted.") if isinstance(error, KeyboardInterrupt) else (1, "Not confirmed")
    assert ended.value.code == expected[0]
    assert expected[1] in capsys.readouterr().err


def test_a_study_that_is_deleted_meanwhile_has_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    Store(url).close()
    monkeypatch.setattr(Store, "studies", lambda self: ["gone"])
    for command in ("status", "list"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--study", url, "--json"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.strip() == "[]"
