"""What the command line names means the same every time, and disturbs nothing."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import prunesearch
from prunesearch.sources import load_model
from tests.models_state import generators


@pytest.mark.parametrize("source", ["zoo:resnet8", "torchvision:squeezenet1_1"])
def test_a_model_without_weights_is_the_same_each_time(source: str) -> None:
    before = generators()
    one, two = (load_model(source, None, num_classes=10, input_shape=(2, 3, 32, 32)) for _ in range(2))
    assert generators() == before
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A file of a user's with a module and a package beside it."""
    (tmp_path / "beside.py").write_text("class Narrow:\n    pass\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from package.inner import WIDTH\n")
    (tmp_path / "package" / "inner.py").write_text("WIDTH = 3\n")
    (tmp_path / "net.py").write_text(
        "from beside import Narrow\nfrom package import WIDTH\n"
        "class Own(Narrow):\n    pass\n"
        "def model():\n    import beside\n    return Own(), WIDTH\n"
    )
    return tmp_path / "net.py"


def python(code: str, *arguments: str, cwd: Path) -> str:
    """Run code in a fresh process, which knows nothing of the folders of this one."""
    root = Path(prunesearch.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stdout + run.stderr


LOAD = """
import sys
from pathlib import Path
from prunesearch.study.packing import pack
from prunesearch.user_files import module_of, run
module = module_of(Path(sys.argv[1]))
run(module)
made = module.model()
Path("packed").write_bytes(pack(lambda: made))
print(module.__name__)
"""
UNPACK = """
from pathlib import Path
from prunesearch.study.packing import unpack
made, width = unpack(Path("packed").read_bytes())()
print(type(made).__mro__[1].__module__, width)
"""


def test_what_is_beside_a_file_of_the_users_is_imported_here_and_in_workers(net: Path) -> None:
    elsewhere = net.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "beside.py").write_text("raise RuntimeError('not this one')")
    assert python(LOAD, str(net), cwd=elsewhere) == "net\n"
    assert python(UNPACK, cwd=elsewhere) == "beside 3\n"


def test_a_file_beside_it_that_has_the_name_of_pythons_own_disturbs_nobody(net: Path) -> None:
    for name in ("json.py", "socket.py", "mmap.py"):
        (net.parent / name).write_text("raise RuntimeError('not this one')")
    elsewhere = net.parent / "elsewhere"
    elsewhere.mkdir()
    assert python(LOAD, str(net), cwd=elsewhere) == "net\n"
    assert python(UNPACK, cwd=elsewhere) == "beside 3\n"


def test_two_modules_of_one_name_beside_two_files_are_refused_and_not_mixed_up(net: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "beside.py").write_text("class Narrow: pass\n")
    (other / "data.py").write_text("def data():\n    pass\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom prunesearch.user_files import module_of, run\n"
        "run(module_of(Path(sys.argv[1])))\nmodule_of(Path(sys.argv[2]))"
    )
    said = python(code, str(net), str(other / "data.py"), cwd=other)
    assert "ValueError" in said
    assert "beside.py are imported by the same name, beside, and Python can only import one" in said
    (other / "beside.py").unlink()
    assert python(code, str(net), str(other / "data.py"), cwd=other) == ""


def test_a_file_of_the_users_may_have_any_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        width = {"one": 3, "two": 5}[folder]
        (tmp_path / folder / "copy.py").write_text(
            f"import torch\ndef model():\n    return torch.nn.Linear(2, {width})\n"
        )
    models = [
        load_model(f"{tmp_path / folder / 'copy.py'}:model", None, num_classes=None, input_shape=(1, 2))
        for folder in ("one", "two")
    ]
    assert [model.out_features for model in models] == [3, 5]
    assert copy.copy([1]) == [1]
