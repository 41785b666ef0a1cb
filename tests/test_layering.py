"""The arrows of ARCHITECTURE.md: who may import whom, and where each library is at home."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

import prunesearch

ROOT = Path(prunesearch.__file__).parent
NOUNS = {
    "budget",
    "contracts",
    "docstrings",
    "errors",
    "files",
    "html_table",
    "latency_file",
    "latency_model",
    "latency_table",
    "latency_times",
    "locking",
    "plain_json",
    "plain_text",
    "progress",
    "question",
    "ranges",
    "registry",
    "resources",
    "shares",
    "structure",
    "trial",
    "urls",
    "user_files",
}
MAY_IMPORT = {
    "nouns": set(),
    "models": {"nouns"},
    "search": {"nouns"},
    "tasks": {"nouns", "models"},
    "evaluators": {"nouns", "models", "tasks"},
    "training": {"nouns", "models", "tasks"},
    "verifiers": {"nouns", "models", "tasks", "evaluators", "training"},
    "study": {"nouns", "search.searcher"},
    "report": {"nouns", "study"},
    "testing": {"nouns", "models", "tasks", "search", "evaluators", "training", "study"},  # and nobody imports it
}
COMPOSERS = {
    "__init__",
    "__main__",
    "_version",
    "api",
    "best_so_far",
    "by_layers",
    "cli",
    "comparison",
    "demo",
    "evidence",
    "followup",
    "given",
    "judged",
    "kept_way",
    "plots",
    "preparation",
    "result",
    "rounds",
    "running",
    "scoring",
    "source_names",
    "sources",
    "whole",
}  # may import everything
HOMES = {
    "accelerate": {"training/accelerating.py"},
    "deap": {"search/variation.py"},
    "cvxpy": {"search/convex.py"},
    "optuna": {"search/bayes.py", "study/optuna_export.py"},
    "sqlalchemy": {f"study/{file}.py" for file in ("database", "locks", "optuna_export", "schema", "store")},
    "filelock": {"locking.py"},
    "cloudpickle": {"study/packing.py"},
    "pyarrow": {"study/tables.py"},
    "ray": {"study/ray_backend.py"},
    "tensorboard": {"study/tensorboard.py"},
    "sklearn": {"training/digits.py", "evaluators/channels/lasso.py"},
    "onnxruntime": {"evaluators/latency/onnx_runtime.py"},
    "torchvision": {"sources.py", "training/datasets.py", "tasks/detect.py"},
    "scipy": {"models/coupling.py", "search/genetic.py", "search/surrogate.py"},
    "typer": {"cli/"},
    "rich": {"cli/", "progress.py"},
    "IPython": {"progress.py"},
    "matplotlib": {"plots.py", "result.py"},
    "pandas": {"study/tables.py", "result.py"},
    "jinja2": {"report/"},
    "markupsafe": {"report/"},
    "safetensors": {"demo.py", "models/checkpoint.py", "models/tensor_file.py"},
    "timm": {"sources.py"},
    "ultralytics": {"training/yolo_trainers.py"},
    "pytest": set(),
    "lightning": set(),  # these two are the caller's
    "transformers": set(),
    "onnxscript": {"models/export.py"},
    "torch": {
        "models/",
        "tasks/",
        "evaluators/",
        "training/",
        "testing/",
        "search/ddpg.py",
        "api.py",
        "by_layers.py",
        "comparison.py",
        "demo.py",
        "followup.py",
        "given.py",
        "judged.py",
        "preparation.py",
        "result.py",
        "sources.py",
        "whole.py",
    },
}
DOORS = {
    "tasks/__init__.py imports prunesearch.training.detectors",  # the same
    "tasks/__init__.py imports prunesearch.training.yolo",  # tasks of other packages' networks, which come with data
    "latency_table.py imports prunesearch.evaluators.latency.measuring",  # LatencyTable.measure
    "resources/energy.py imports prunesearch.evaluators.energy",  # EnergyTable.measure
    "resources/peak_memory.py imports prunesearch.models.memory_model",  # a budget of memory, of a network
}  # public names that stand in one room and are done in another, reached by a string when they are called
FILES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    parts = module.split(".")
    return "nouns" if parts[0] in NOUNS else parts[0]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^(prunesearch\.[\w.]+):\w+$", node.value)  # names in registries


def violations(path: Path) -> list[str]:
    where = path.relative_to(ROOT)
    room = room_of(".".join(where.with_suffix("").parts))
    found = []
    for imported in imports(path):
        top, _, rest = imported.partition(".")
        target = room_of(rest)
        is_bound = top == "prunesearch" and (room not in COMPOSERS or target == "testing")
        if is_bound and target != room and not {target, rest} & MAY_IMPORT.get(room, set()):
            found.append(f"{where} ({room}) imports {imported}")
        homes = HOMES.get(top)
        if homes is not None and not any(str(where) == home or str(where).startswith(home) for home in homes):
            found.append(f"{where} imports {imported}, which is at home in {sorted(homes)}")
    return found


def is_door(violation: str) -> bool:
    file, _, imported = violation.partition(" (")
    return f"{file} {imported.partition(') ')[2]}" in DOORS


def test_every_arrow_points_the_right_way() -> None:
    found = [violation for path in FILES for violation in violations(path)]
    assert [violation for violation in found if not is_door(violation)] == []
    assert len(set(found)) == len(DOORS)  # several names may go through one


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("search/evolution.py", "from prunesearch.models.trace import trace"),
        ("budget.py", "import torch"),
        ("models/trace.py", "import prunesearch.evaluators.accuracy"),
        ("study/study.py", "import deap"),
        ("testing/searchers.py", "import pytest"),
        ("models/trace.py", "from prunesearch.testing import digits"),
        ("api.py", "from prunesearch.testing import digits"),
        ("search/__init__.py", 'SEARCHERS = {"wrong": "prunesearch.models.trace:trace"}'),
    ],
)
def test_a_wrong_arrow_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(violations(path)) == 1


def test_only_the_command_line_prints() -> None:
    printing = [
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []  # the command line itself prints through rich


def test_no_module_needs_itself() -> None:
    """Also not through others, nor for types alone, nor inside functions: each can be read after what it builds on."""
    modules = {".".join(("prunesearch", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    needs = {name: {each for each in needed(path, modules) if each != name} for name, path in modules.items()}
    assert needs["prunesearch.latency_table"] >= {"prunesearch.latency_file", "prunesearch.registry"}
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, with the circle


def needed(path: Path, modules: Container[str]) -> Iterator[str]:
    """The modules of the package that a file's import statements name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inside)
