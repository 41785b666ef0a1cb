"""What the command line names means the same every time, and disturbs nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from prunesearch.sources import load_model
from tests.models_state import generators


@pytest.mark.parametrize("source", ["zoo:resnet8", "torchvision:squeezenet1_1"])
def test_a_model_without_weights_is_the_same_each_time(source: str) -> None:
    before = generators()
    one, two = (load_model(source, None, num_classes=10, input_shape=(2, 3, 32, 32)) for _ in range(2))
    assert generators() == before
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


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
