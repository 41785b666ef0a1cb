"""The public names, and that asking for none of them costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prunesearch


def test_every_public_name_resolves() -> None:
    for name in prunesearch.__all__:
        assert getattr(prunesearch, name) is not None
    assert set(prunesearch.__all__) <= set(dir(prunesearch))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = prunesearch.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "module", ["prunesearch", "prunesearch.budget", "prunesearch.search", "prunesearch.study.store"]
)
def test_importing_the_package_or_a_room_without_networks_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ABSENT = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
"""Modules that Windows does not have."""
NOT_THERE = {
    "os": {
        "fork",
        "getpgrp",
        "getuid",
        "killpg",
        "pidfd_open",
        "sched_getaffinity",
        "sched_setaffinity",
        "setsid",
        "uname",
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "pthread_sigmask"},
}
"""What modules that it has are without there."""
GUARDED = {
    "study/watchdog.py": {"fork", "getpgrp", "killpg", "pidfd_open", "SIGKILL"},  # of local workers,
    "study/process_backend.py": {"killpg", "sched_getaffinity", "SIGKILL"},  # which are refused elsewhere
    "evaluators/latency/timing.py": {"sched_getaffinity", "sched_setaffinity"},  # behind `hasattr`
}
"""Files that may use some of it, by their path in the package."""


def test_what_only_posix_has_is_used_where_it_is_guarded() -> None:
    package = Path(prunesearch.__file__).parent
    used: dict[str, set[str]] = {}
    words = re.compile("|".join((*ABSENT, *NOT_THERE["os"], *NOT_THERE["signal"])))
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if words.search(text) else ():
            found = None
            if isinstance(node, ast.Import):
                found = {alias.name for alias in node.names} & set(ABSENT)
            elif isinstance(node, ast.ImportFrom):
                found = {str(node.module)} & set(ABSENT)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found = {node.attr} & NOT_THERE.get(node.value.id, set())
            if found:
                used.setdefault(file.relative_to(package).as_posix(), set()).update(found)
    assert used == GUARDED


ELSEWHERE = f"""
import asyncio, importlib, multiprocessing.connection, os, pkgutil, shutil, signal, subprocess, sys, tempfile
import accelerate, cvxpy, optuna, sklearn.linear_model, torch._dynamo, torch.utils.data, torchvision
for name in {ABSENT}:
    sys.modules[name] = None
for module, names in ((os, {NOT_THERE["os"]}), (signal, {NOT_THERE["signal"]})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import prunesearch
names = {{found.name for found in pkgutil.walk_packages(prunesearch.__path__, "prunesearch.")}}
for name in names - {{"prunesearch.__main__", "prunesearch.study.ray_backend", "prunesearch.training.yolo_trainers"}}:
    importlib.import_module(name)
print(len(names & sys.modules.keys()))
"""


@pytest.mark.slow
def test_all_modules_can_be_imported_where_there_is_no_posix() -> None:
    """As on Windows. What other packages import is imported before, as they may have other files there."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 250


IMPORTS = (
    "import prunesearch as ps",
    "import prunesearch.search; import prunesearch as ps",
    "from prunesearch.search import SEARCHERS; import prunesearch.search.uniform; import prunesearch as ps",
    "import prunesearch as ps; ps.search; import prunesearch.search; from prunesearch.search.uniform import *",
)


@pytest.mark.slow
def test_search_is_a_function_whatever_was_imported() -> None:
    """In one process, which forgets the package in between, as importing torch takes longest."""
    code = f"""
import inspect, pydoc, sys
for imports in {IMPORTS!r}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "prunesearch"]:
        del sys.modules[name]
    exec(imports)
    from prunesearch import search
    assert inspect.isfunction(ps.search) and ps.search is search, imports
    assert list(inspect.signature(ps.search).parameters)[:3] == ["network", "data", "budget"]
    assert len(inspect.signature(ps.search).parameters) <= 16
    assert "Search the structure of a network under a budget" in pydoc.render_doc(ps.search)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("criterion", r"has no argument 'criterion' any more. Write scoring=Scoring\(criterion=...\) instead"),
        ("weight_source", r"Write scoring=Scoring\(weight_source=...\) instead"),
        ("workers", r"Write running=Running\(workers=...\) instead"),
        ("n_trial", r"has no argument 'n_trial'. Did you mean 'n_trials'\?"),
    ],
)
def test_an_argument_that_search_does_not_have_is_answered_with_where_it_went(name: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        prunesearch.search(None, None, budget="macs=50%", **{name: 1})  # type: ignore[arg-type]
