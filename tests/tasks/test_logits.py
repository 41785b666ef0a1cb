"""What a network returns is understood as logits, or refused in a sentence that says what it returned."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prunesearch.tasks.logits import check_labels, class_logits, main_and_auxiliary

MAIN, FIRST, SECOND = torch.randn(3, 4, 5)
Pair = namedtuple("Pair", ["logits", "aux"])


@dataclass
class Answer:
    logits: Tensor
    aux: Tensor | None = None


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (MAIN, []),
        ((MAIN,), []),
        ((MAIN, FIRST), [FIRST]),
        ([MAIN, FIRST, SECOND], [FIRST, SECOND]),
        ((MAIN, None), []),
        (Pair(MAIN, FIRST), [FIRST]),
        (Answer(MAIN, FIRST), [FIRST]),
        (Answer(MAIN), []),
        ({"aux": FIRST, "out": MAIN}, [FIRST]),
        ({"logits": MAIN, "loss": None}, []),
    ],
)
def test_the_main_logits_and_those_beside_them_are_told_apart(returned: Any, expected: list[Tensor]) -> None:
    main, auxiliary = main_and_auxiliary(returned)
    assert torch.equal(main, MAIN)
    assert len(auxiliary) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(auxiliary, expected, strict=True))


@pytest.mark.parametrize(
    ("returned", "described"),
    [
        ((MAIN, torch.zeros(4, 7)), r"a tuple of \(4, 5\), \(4, 7\)"),
        ({"a": MAIN, "b": FIRST}, r"a dict 'a', 'b' of \(4, 5\), \(4, 5\)"),
        (torch.zeros(4), r"got \(4,\)"),
        (torch.zeros(4, 5, 2, 2), r"got \(4, 5, 2, 2\)"),
        ((), "a tuple of nothing"),
        (None, "a NoneType of nothing"),
        ((MAIN, "text"), "of .*, str"),
    ],
)
def test_what_is_no_logits_is_described(returned: Any, described: str) -> None:
    with pytest.raises(ValueError, match=f"Expected .n, classes. logits in training mode.*{described}"):
        main_and_auxiliary(returned)


def test_one_logit_is_a_binary_classifier() -> None:
    logit, labels = torch.randn(64, 1), torch.arange(64) % 2
    expected = F.binary_cross_entropy_with_logits(logit[:, 0], labels.float())
    assert torch.allclose(F.cross_entropy(class_logits(logit), labels), expected)
    assert torch.equal(class_logits(logit).argmax(1), (logit[:, 0] > 0).long())
    assert class_logits(MAIN) is MAIN


@pytest.mark.parametrize(("outputs", "labels"), [(1, [0, 2]), (1, [-1, 0]), (2, [0, 2]), (5, [5])])
def test_labels_beyond_the_classes_are_refused(outputs: int, labels: list[int]) -> None:
    check_labels(torch.tensor([0, 1]), outputs)
    with pytest.raises(ValueError, match=rf"labels from 0 to .* got {min(labels)} to {max(labels)}"):
        check_labels(torch.tensor(labels), outputs)
