"""What stands in a database is text: no markup, no emoji, no command to the terminal, whatever its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from prunesearch.cli import main
from prunesearch.cli.console import Table
from prunesearch.plain_text import plain
from prunesearch.study.store import Store
from tests.toys import chain_space, trial

HOSTILE = {
    "closing markup": "run[/]",
    "markup": "[bold red]run[/bold red]",
    "a link": "[link=https://example.org]run[/link]",
    "an emoji's name": ":warning: run :smile:",
    "clears the screen": "run\x1b[2J\x1b[H",
    "a title of the window": "run\x1b]0;owned\x07",
    "an eight-bit escape": "run\x9b2J",
    "goes back to the start of the line": "fine\rrun",
    "a new line": "run\nstudy 'other': 100 trials",
    "from right to left": "run\u202egnp.exe",
    "a backslash": "run\\[/]",
    "half a character": "run\ud800",
    "a command for shells": "run$(touch HACKED)`touch HACKED`",
    "a format": "{0.__class__} %s %(name)s",
    "HTML": "</script><script>alert(1)</script><img src=x onerror=alert(1)>",
}


def write(path: Path, text: str) -> None:
    """A study in which everything that may be text is."""
    space = chain_space()
    first = replace(trial(0, space.minimum, 1.0), cost=space.cost(space.minimum), worker=text, evaluator=text)
    with closing(Store(f"sqlite:///{path}")) as store:
        stored = text.encode("utf-8", "replace").decode()  # SQLite takes no half characters
        store.create(stored, {"searcher": text, "budget": text, "seed": text, text: text}, asdict(space))
        store.add(stored, replace(first, worker=stored, evaluator=stored))
        failed = replace(first, number=1, score=None, failure=stored, worker=stored, evaluator=stored)
        store.add(stored, failed)
        store.add_to_summary(stored, {"notes": [{"kind": "scores", "said": text}]})
        store.set_driver(stored)


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "status": lambda name: ["status"],
    "list": lambda name: ["list"],
    "show": lambda name: ["show", "--study-name", name],
    "no such study": lambda name: ["show", "--study-name", name + "x"],
    "report": lambda name: ["report", "--out", "page.html"],
    "csv": lambda name: ["export", "--study-name", name, "--csv", "table.csv"],
    "compare": lambda name: ["compare"],
    "delete": lambda name: ["delete", "--study-name", name, "--yes"],
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_of_a_database_commands_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = text.encode("utf-8", "replace").decode()
    write(tmp_path / "study.db", text)
    for command, words in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            main([*words(name), "--study", "study.db"])
        said = capsys.readouterr()
        assert ended.value.code in (0, 2), command
        assert "Traceback" not in said.err
        for printed in (said.out, said.err):
            assert printed == plain(printed), command
        if command in ("status", "list"):
            assert ended.value.code == 0
            assert plain(name).replace("\n", "\\n") in said.out, command
    assert not (tmp_path / "HACKED").exists()
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_has_every_text_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    write(tmp_path / "study.db", text)
    name = text.encode("utf-8", "replace").decode()
    for command in ("status", "list", "show"):
        with pytest.raises(SystemExit):
            main([command, "--study", f"sqlite:///{tmp_path / 'study.db'}", "--json",
                  *(["--study-name", name] if command == "show" else [])])  # fmt: skip
        found = json.loads(capsys.readouterr().out)
        assert (found if command == "show" else found[0])["study"] == name


def test_a_shell_completes_no_name_that_it_could_run(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path / 'study.db'}")) as store:
        for name in [*(text.encode("utf-8", "replace").decode() for text in HOSTILE.values()), "search budget 50%"]:
            store.create(name, {}, {})
    words = f"prunesearch show --study {tmp_path / 'study.db'} --study-name "
    given = {"_PRUNESEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "5"}
    program = "from prunesearch.cli import app; app(prog_name='prunesearch')"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **given}, check=False
    )
    assert found.stdout.splitlines() == [":warning: run :smile:", "search budget 50%"]


def test_a_table_on_a_terminal_shows_markup_as_it_is() -> None:
    table = Table("[b]heading", title="[red]title[/]")
    table.add_row("run[/]", ":smile:")
    console = Console(force_terminal=True, width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    shown = console.export_text()
    assert all(text in shown for text in ("[b]heading", "[red]title[/]", "run[/]", ":smile:"))
    console.file.close()


_PRINTS = """
import ctypes, os, sys
print("printed when the file is read")
os.write(1, b"written to the descriptor\\n")
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)
    def forward(self, x):
        print("printed in the forward")
        sys.__stdout__.write("written to the first stdout\\n")
        ctypes.CDLL(None).printf(b"printed by C\\n")
        return self.b(self.a(x).relu().mean((2, 3)))
def make(): return Net()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="C's library has no name there")
@pytest.mark.parametrize(("command", "by_config"), [("explain", False), ("explain", True), ("verify", True)])
def test_json_is_alone_on_stdout_whatever_a_model_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str, by_config: bool
) -> None:
    (tmp_path / "printing.py").write_text(_PRINTS)
    (tmp_path / "config.toml").write_text("json = true\n")
    how = ["--config", "config.toml"] if by_config else ["--json"]
    monkeypatch.chdir(tmp_path)
    with open(1, "w", closefd=False) as stdout, open(2, "w", closefd=False) as stderr:  # as in a process of its own
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as ended:
            main([command, "--model", "printing.py:make", "--input", "1x1x8x8", *how])
        monkeypatch.undo()
    out, err = capfd.readouterr()
    assert not ended.value.code, err
    json.loads(out)
    for said in ("printed when", "written to the descriptor", "in the forward", "first stdout", "by C"):
        assert said in err


def test_json_knows_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    from prunesearch.cli.console import print_json

    print_json({"a": [float("inf"), (float("nan"), 1.5)], 3: -float("inf")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [None, 1.5]], "3": None}
