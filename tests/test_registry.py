"""What a name stands for: the package's own, what installed packages add, and what stands in a module or a file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunesearch.registry import Registry
from prunesearch.search import SEARCHER
from prunesearch.search.random_search import RandomSearcher
from tests.packages import install

SEARCHERS = SEARCHER.names
ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def adds(**names: str) -> dict[str, dict[str, str]]:
    return {"prunesearch.searchers": names}


def test_a_name_of_an_installed_package_stands_for_what_it_says_and_is_listed_without_an_import(folder: Path) -> None:
    install(folder, "climbing", "class Climber:\n    pass\n", adds(climb="Climber"))
    assert SEARCHERS.names() == [*SEARCHERS.own, "climb"]
    assert "climbing" not in sys.modules
    assert SEARCHERS.has("climb")
    assert SEARCHERS.find("climb").__name__ == "Climber"
    with pytest.raises(ValueError, match=r"Unknown searcher 'climp'; there are uniform, .*, climb, or .*'climb'\?"):
        SEARCHERS.check("climp")
    assert Registry("task", "prunesearch.tasks", {}).names() == []  # the group is another


def test_packages_own_names_win_nothing_and_lose_nothing(folder: Path) -> None:
    install(folder, "climbing", "class Climber:\n    pass\n", adds(random="Climber"))
    expected = (
        r"The searcher 'random' of the distribution climbing has the name of one of prunesearch's own\. Uninstall"
    )
    for ask in (SEARCHERS.find, SEARCHERS.check):
        with pytest.raises(ValueError, match=expected):
            ask("random")
    assert SEARCHERS.names() == [*SEARCHERS.own]
    SEARCHERS.check("uniform")  # nothing else is touched


def test_two_packages_with_one_name_are_both_named_and_can_be_told_apart(folder: Path) -> None:
    install(folder, "climbing", "class Climber:\n    pass\n", adds(climb="Climber"))
    install(folder, "other", "class Second:\n    pass\n", adds(climb="Second"))
    with pytest.raises(
        ValueError, match=r"^The searcher 'climb' comes from the distributions climbing and other\."
    ) as said:
        SEARCHERS.find("climb")
    assert "'climbing:Climber'" in str(said.value)
    assert SEARCHERS.find("other:Second").__name__ == "Second"
    assert SEARCHERS.names().count("climb") == 1


@pytest.mark.parametrize(
    ("code", "attribute", "said"),
    [
        ("import nothing_of_this_name\n", "Climber", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise RuntimeError('no licence')\n", "Climber", "RuntimeError: no licence"),
        ("class Climber:\n    pass\n", "Climbr", "AttributeError"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(folder: Path, code: str, attribute: str, said: str) -> None:
    install(folder, "broken", code, adds(climb=attribute))
    with pytest.raises(
        ValueError, match=r"^The searcher 'climb' of the distribution broken cannot be imported from broken:"
    ) as error:
        SEARCHERS.check("climb")
    assert said in str(error.value)
    assert "Repair or uninstall that package." in str(error.value)


def test_a_place_in_a_module_or_a_file_is_as_good_as_a_name(folder: Path) -> None:
    (folder / "mine.py").write_text("class Climber:\n    class Inner:\n        pass\n")
    assert SEARCHERS.find("mine:Climber") is SEARCHERS.find("mine:Climber")
    assert SEARCHERS.find("mine:Climber.Inner").__name__ == "Inner"
    assert SEARCHERS.find("prunesearch.search.random_search:RandomSearcher") is RandomSearcher
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "alone.py").write_text("class Climber:\n    pass\n")
    file = f"{folder / 'elsewhere' / 'alone.py'}:Climber"
    assert SEARCHERS.find(file) is SEARCHERS.find(file)  # the file is run once
    SEARCHERS.check(file)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such:Climber", "There is no module 'no_such' to take the searcher 'no_such:Climber' from. Install"),
        ("prunesearch.no_such:Climber", "There is no module 'prunesearch.no_such' to take"),
        ("mine:Climbr", "mine has no 'Climbr' to take as the searcher. Did you mean 'Climber'?"),
        ("mine:", "Expected the searcher as a name or as package.module:attribute, got 'mine:'"),
        (":Climber", "Expected the searcher as a name or as package.module:attribute"),
        ("a b:Climber", "There is no module 'a b'"),
        ("failing:Climber", "The searcher 'failing:Climber' cannot be imported: ZeroDivisionError: division by zero."),
        ("needy:Climber", "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'."),
        ("no_such.py:Climber", "There is no file 'no_such.py' to take the searcher 'no_such.py:Climber' from."),
        ("FOLDER/failing.py:Climber", "failing.py:Climber failed, line 2: ZeroDivisionError: division by zero."),
    ],
)
def test_a_place_that_is_not_there_is_refused_in_a_sentence(folder: Path, place: str, message: str) -> None:
    (folder / "mine.py").write_text("class Climber:\n    pass\n")
    (folder / "failing.py").write_text("\n1 / 0\n")
    (folder / "needy.py").write_text("import nothing_of_this_name\n")
    place = place.replace("FOLDER", str(folder))
    for _ in range(2):  # what failed half way is not found the second time, either
        with pytest.raises(ValueError, match=re.escape(message)):
            SEARCHERS.check(place)


def test_help_and_completion_show_added_names_and_import_neither_them_nor_torch(tmp_path: Path) -> None:
    code = "import torch\nraise RuntimeError('imported')\n"
    kinds = {
        "searchers": "climb",
        "criteria": "spread",
        "evaluators": "judge",
        "weight_sources": "borrowed",
        "tasks": "sorting",
    }
    install(tmp_path, "noisy", code, {f"prunesearch.{group}": {name: "X"} for group, name in kinds.items()})
    program = """
import sys
from prunesearch.cli import main
from prunesearch.cli.completion import one_of
from prunesearch.cli.options import FLAGS
for option, text, name in (
    ("searcher", "cl", "climb"),
    ("criterion", "sp", "spread"),
    ("evaluator", "j", "judge"),
    ("weight_source", "bo", "borrowed"),
    ("task", "so", "sorting"),
):
    complete = FLAGS[option].complete or one_of(FLAGS[option].role.names.names())
    assert complete(text) == [name], option
try:
    main(["search", "--help"])
except SystemExit:
    sys.exit(3 if {"torch", "noisy", "numpy"} & set(sys.modules) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in kinds.values():
        assert name in done.stdout


def test_a_package_that_is_installed_meanwhile_is_found(folder: Path) -> None:
    assert not SEARCHERS.has("climb")
    install(folder, "climbing", "class Climber:\n    pass\n", adds(climb="Climber"))
    assert SEARCHERS.has("climb")
