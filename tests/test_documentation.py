"""What the documentation says is what was measured and what the code has, and what it shows runs."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import prunesearch as ps
from prunesearch.cli import app
from prunesearch.evaluators import EVALUATORS, WEIGHT_SOURCES
from prunesearch.evaluators.channels import CRITERIA, make_criterion
from prunesearch.models.network import Network
from prunesearch.search import SEARCHERS
from prunesearch.training.data import Data
from tests.pages import PAGES, ROOT, Block, blocks, commands

NOT_RUN = 3
REGISTRIES: Mapping[str, Mapping[str, str]] = {
    "searchers": SEARCHERS,
    "criteria": CRITERIA,
    "weights": WEIGHT_SOURCES,
    "evaluators": EVALUATORS,
}
TRAININGS = ("finetune", "scratch", "distillation", "paam", "manidp", "layerwise", "pruningnet")
EPOCHS = {"paam.md": 5, "manidp.md": 3, "layerwise.md": 1}  # the fewest that these take; slow for that
LONG = ("gradual.md", "after_pruning.md", "extending.md", "tracing.md")  # many networks or files; slow, too
EXAMPLE = ROOT / "examples" / "prunesearch-hillclimb"
INCLUDED = ("ARCHITECTURE.md", "CONTRIBUTING.md")
STANDALONE = ("README.md", "start.md")  # these say all that is needed to run them


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("generator", ["benchmarks/tables.py", "docs/options.py"])
def test_every_table_is_what_the_committed_results_and_the_code_say(generator: str) -> None:
    module = script(ROOT / generator)
    for page in module.PAGES:
        assert module.render(page.read_text()) == page.read_text(), f"{page.name} is out of date; run: make readme"


def test_the_pictures_are_what_the_committed_results_say() -> None:
    module = script(ROOT / "benchmarks" / "pictures.py")
    for file, picture in module.PICTURES.items():
        assert file.read_text() == picture(), f"{file.name} is out of date; run: make readme"


def headings(page: Path) -> set[str]:
    """The anchors that GitHub and Sphinx make of a page's headings."""
    text = page.read_text()
    for included in re.findall(r"^```\{include\} (.*)$", text, flags=re.MULTILINE):
        text += (page.parent / included).read_text()
    found = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not re.match(r"\w+:", link)]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
    anchors = re.findall(r"\]\((?!\w+:)([^)#\s]*)#([^)\s]+)\)", text)
    assert not [
        (file, anchor) for file, anchor in anchors if anchor not in headings(page.parent / file if file else page)
    ]
    for folder in ("prunesearch", "tests", "benchmarks", "docs", "examples"):
        for path in re.findall(rf"`({folder}/[\w./]+)`", text):
            assert "NAME" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, names in REGISTRIES.items() for name in names])
def test_everything_that_has_a_name_has_a_page_that_the_index_of_its_kind_lists(folder: str, name: str) -> None:
    page = ROOT / "docs" / folder / f"{name}.md"
    assert page.exists(), f"Write {page.relative_to(ROOT)}; CONTRIBUTING.md says what goes into it."
    text = page.read_text()
    for heading in ("## When it wins", "## Cost", "## Options", "## Source"):
        assert heading in text, f"{page.name} has no section {heading!r}"
    assert f"({name}.md)" in (ROOT / "docs" / folder / "index.md").read_text()


def test_every_page_stands_for_something_that_has_a_name() -> None:
    for folder, names in REGISTRIES.items():
        found = {page.stem for page in (ROOT / "docs" / folder).glob("*.md")} - {"index"}
        assert found == set(names)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_way_of_training_has_a_page(name: str) -> None:
    listed = (ROOT / "docs" / "training" / "index.md").read_text()
    assert re.search(rf"\((\.\./)?{name}\.md\)", listed)


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference.rst").read_text()
    wanted = {name: place.replace(":", ".") for name, place in vars(ps)["_PUBLIC"].items() if name != "__version__"}
    errors = ".. automodule:: prunesearch.errors" in reference
    missing = [
        name
        for name, place in wanted.items()
        if f":: {place}\n" not in reference and not (errors and place.startswith("prunesearch.errors."))
    ]
    assert not missing


def keep_small(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """What takes long in the documentation's blocks takes little here; their text is run as it stands."""
    search, measure, plain = ps.search, ps.LatencyTable.measure, ps.Scoring()

    def short(kind: type[Any]) -> Any:
        return lambda **settings: kind(**{**settings, "epochs": min(settings.get("epochs", 10), epochs)})

    def brief_search(*args: Any, n_trials: int = 200, **settings: Any) -> Any:
        scoring = settings.pop("scoring", plain)
        if scoring.criterion == plain.criterion:  # which takes half of a search this small
            scoring = replace(scoring, criterion="l1")
        if scoring.images is None and isinstance(scoring.evaluator, str):  # on more, curves come first
            scoring = replace(scoring, images=64)
        if scoring.evaluator == "adaptive_bn":  # with 100 batches
            scoring = replace(scoring, evaluator_options={"batches": 3, **scoring.evaluator_options})
        return search(*args, n_trials=min(n_trials, 8), scoring=scoring, **settings)

    monkeypatch.setattr(ps, "search", brief_search)
    monkeypatch.setattr(ps, "Recipe", short(ps.Recipe))
    monkeypatch.setattr(ps, "PruningNetRecipe", short(ps.PruningNetRecipe))
    monkeypatch.setattr(ps.LatencyTable, "measure", staticmethod(lambda *a, **k: measure(*a, **{**k, "points": 2})))


@pytest.fixture
def names(network: Network, digits_data: Data) -> dict[str, Any]:
    """What blocks may use without saying where it comes from (docs/start.md shows how to make each)."""
    images, labels = digits_data.calibration_set()
    ranking = make_criterion("l1").rank(network)
    return {
        "ps": ps,
        "network": network,
        "model": network.model,
        "data": digits_data,
        "images": images,
        "labels": labels,
        "budget": ps.Budget(macs="50%"),
        "small": ps.slim(
            network, tuple(group.widths[len(group.widths) // 2] for group in network.space.groups), ranking
        ),
        "make_model": lambda: ps.make_model("resnet8", in_channels=1, image_size=8),
    }


def run(page: Path, names: dict[str, Any], package: str | None = None) -> str:
    """Run the Python of a page from top to bottom in one namespace; return what it printed.

    Blocks that need another package than torch and our own are left out, but for those that need this one.
    """
    with redirect_stdout(io.StringIO()) as printed:
        for block in blocks(page):
            if block.language == "python" and block.reason is None and block.needs in (None, package):
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    return printed.getvalue()


def shown(page: Path) -> list[str]:
    """The lines that a page says are printed: those of its blocks of text."""
    lines = "".join(block.code for block in blocks(page) if block.language == "text").splitlines()
    return [line for line in lines if line != "..."]


def needs(page: Path) -> list[str]:
    """The packages that blocks of a page say they need."""
    return sorted({block.needs for block in blocks(page) if block.needs is not None})


def marks(page: Path) -> list[pytest.MarkDecorator]:
    """Pages with loops of several libraries search and train with each."""
    loops = [pytest.mark.loops] if needs(page) else []
    return [*loops, pytest.mark.slow] if loops or page.name in EPOCHS or page.name in LONG else []


WITH_PYTHON = [
    pytest.param(page, marks=marks(page), id=named(page))
    for page in PAGES
    if page.name not in STANDALONE  # which run at full size, below
    and any(block.language == "python" and block.reason is None for block in blocks(page))
]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(
    page: Path, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_small(monkeypatch, EPOCHS.get(page.name, 1))
    monkeypatch.chdir(tmp_path)
    run(page, names)


WITH_PACKAGES = [
    pytest.param(
        page,
        package,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} is not installed; make test-loops does it"
        ),
        id=f"{named(page)}-{package}",
    )
    for page in PAGES
    for package in needs(page)
]


@pytest.mark.loops
@pytest.mark.filterwarnings("default")  # those libraries' own are theirs
@pytest.mark.parametrize(("page", "package"), WITH_PACKAGES)
def test_the_python_of_a_page_that_needs_another_package_runs(
    page: Path, package: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_small(monkeypatch, 1)
    monkeypatch.chdir(tmp_path)
    unpruned = names["network"].space.cost(names["network"].space.full)
    run(page, names, package)
    data, small = names["data"], names["small"]
    assert ps.count(small, data.examples(1)).macs <= 0.5 * unpruned.macs
    assert ps.top1(small, *data.test_set()) > 0.8  # chance is 0.1; a loop that breaks the network ends near it


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.name in STANDALONE], ids=named)
def test_what_a_newcomer_runs_first_runs_at_full_size(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(shown(page)) <= set(run(page, {}).splitlines())


@pytest.mark.slow
def test_the_commands_of_the_first_page_run_one_after_the_other_in_an_empty_folder(tmp_path: Path) -> None:
    page = ROOT / "docs" / "start.md"
    (file,) = [block.code for block in blocks(page) if block.code.startswith("# mine.py\n")]
    (tmp_path / "mine.py").write_text(file)
    lines = [words for _, words in commands(page) if words[0] == "prunesearch"]
    assert len(lines) > 5
    for words in lines:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert {"small.safetensors", "tuned.onnx", "mine.html"} <= {each.name for each in tmp_path.iterdir()}


def test_every_page_says_in_its_first_sentence_what_it_is_for() -> None:
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in INCLUDED]
    assert len(pages) > 60
    for page in pages:
        text = re.sub(r"^#[^\n]*$|^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).strip()
        assert re.match(r"This page |prunesearch makes ", text), page.name


def test_every_block_that_is_not_run_says_why_and_there_are_as_many_as_we_know_of() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.reason is not None]
    assert all(block.reason for block in left_out)
    assert len(left_out) == NOT_RUN, f"Not run: {', '.join(map(str, left_out))}"


COMMANDS = [(block, words) for page in PAGES for block, words in commands(page)]


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=lambda value: str(value) if isinstance(value, Block) else "")
def test_every_command_line_is_one_that_the_programs_take(block: Block, words: list[str]) -> None:
    program, *arguments = words
    if program == "prunesearch":
        check_prunesearch(arguments)
    elif program == "make":
        targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()  # type: ignore[index]
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
        asked = re.findall(r"\[(.*?)\]", " ".join(arguments))
        assert {extra for some in asked for extra in some.split(",")} <= set(extras)
    else:
        check_script(arguments)


def check_prunesearch(arguments: list[str]) -> None:
    """Every option exists; where nothing was left out (`...`), the values are of their types and none is missing."""
    group: Any = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    given = [word for word in arguments[1:] if word != "..."]
    context = command.make_context(arguments[0], list(given), resilient_parsing="..." in arguments)
    parsed, rest, _ = command.make_parser(context).parse_args(list(given))
    assert not rest
    example = re.findall(r"^(\w+) = \"prunesearch_", (EXAMPLE / "pyproject.toml").read_text(), flags=re.MULTILINE)
    for option, registry in (("searcher", SEARCHERS), ("criterion", CRITERIA), ("evaluator", EVALUATORS)):
        given = parsed.get(option, next(iter(registry)))
        assert given in registry or given in example or ":" in given
    assert parsed.get("weight_source", "inherited").partition(":")[0] in WEIGHT_SOURCES
    if "budget" in parsed and "latency_ms" not in parsed["budget"]:
        ps.Budget.parse(parsed["budget"])


def check_script(arguments: list[str]) -> None:
    """The file exists; a tutorial's options do, too."""
    if arguments[0] == "-m":
        return
    path = ROOT / arguments[0]
    assert path.exists()
    if path.parent.name == "tutorials":
        parser: argparse.ArgumentParser = script(path).arguments()
        parser.parse_args(arguments[1:])


def test_every_message_of_the_troubleshooting_page_is_one_of_the_program() -> None:
    """Its fences of text, but for `…`, are in the code as they stand there."""
    code = "".join(path.read_text() for path in (ROOT / "prunesearch").rglob("*.py"))
    said = re.sub(r"[\"']\s*\n\s*f?[\"']", "", code)  # strings that go on in the next line
    said = re.sub(r"\{[^{}]*\}", "", said)
    quoted = [block.code for block in blocks(ROOT / "docs" / "troubleshooting.md") if block.language == "text"]
    parts = [part.strip(" \n.,:") for message in quoted for part in message.split("…")]
    unknown = [part for part in parts if part and part not in said and part not in code]
    assert len(quoted) > 10
    assert not unknown


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", makefile)[1].split())  # type: ignore[index]
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert documented == targets


def test_make_test_loops_installs_every_package_that_pages_need() -> None:
    installed = re.search(r"^test-loops:.*\n.*'\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert installed is not None
    assert {package for page in PAGES for package in needs(page)} == set(installed[1].split(",")) - {"dev"}


def test_a_block_knows_its_line_and_why_it_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n\n<!-- not run: no cluster -->\n```python\nx = 1\n```\n\n<!-- setup\ny = 2\n-->\n")
    page.write_text(page.read_text() + "\n<!-- needs: lightning -->\n```python\nz = 3\n```\n")
    shown, hidden, needing = blocks(page)
    assert shown == Block(page, 5, "python", "x = 1\n", "no cluster")
    assert hidden == replace(shown, line=9, code="y = 2\n", reason=None)
    assert needing == Block(page, 14, "python", "z = 3\n", needs="lightning")
