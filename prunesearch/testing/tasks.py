"""What a task promises; see `prunesearch.tasks.task.Task`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunesearch.models.isolation import in_eval_mode
from prunesearch.models.nested import Batch, called, in_float32, mapped, size_of, tensors_in
from prunesearch.study.packing import pack, unpack
from prunesearch.tasks import make_task
from prunesearch.tasks.examples import Examples
from prunesearch.tasks.metric import Measured
from prunesearch.tasks.outputs import described
from prunesearch.tasks.task import Task
from prunesearch.testing.expecting import expect_that
from prunesearch.testing.subjects import digits

_NEAR = 1e-4


class TaskContract:
    """Tests of a task on a network and a batch; a subclass says which task, and gives both.

    Attributes:
        task: The name, the `Task`, what makes one, or `"package.module:attribute"`.
    """

    task: ClassVar[Any]

    def make(self) -> Task:
        """The task."""
        return make_task(self.task)

    def network(self) -> nn.Module:
        """A network of the kind that the task is for; by default a classifier of digits."""
        return digits().network.model

    def batch(self) -> Batch:
        """At least eight examples, as data give them at once; by default images and labels of digits."""
        return digits().examples.take(slice(32)).batch

    def examples(self) -> Examples:
        """The batch with the task."""
        return Examples(self.batch(), self.make())

    def outputs(self, examples: Examples) -> Any:
        """What the network returns for some examples, in eval mode."""
        with in_eval_mode(self.network()), torch.no_grad():
            return called(self.network(), examples.inputs)

    def test_the_network_can_be_called_with_the_inputs_of_a_batch(self) -> None:
        """Of as many examples as the batch has, however many these are."""
        examples = self.examples()
        n = size_of(self.batch())
        expect_that(n >= 8, f"Expected a batch of at least 8 examples, got {n}")
        for some, wanted in ((examples, n), (examples.take(slice(3)), 3)):
            got = size_of(some.inputs)
            expect_that(got == wanted, f"Expected inputs of the {wanted} examples of a batch, got {got}")
            self.outputs(some)

    def test_reading_a_batch_leaves_it_as_it_was(self) -> None:
        """It is read many times."""
        examples = self.examples()
        before = [tensor.clone() for tensor in tensors_in(examples.batch)]
        outputs = self.outputs(examples)
        if examples.task.loss is not None:
            examples.losses(outputs)
        same = all(torch.equal(now, then) for now, then in zip(tensors_in(examples.batch), before, strict=True))
        expect_that(same, "Expected inputs and loss to leave the batch as it was")

    def test_losses_are_finite_and_those_of_a_batch_are_those_of_its_parts(self) -> None:
        """One per example, or their mean."""
        examples = self.examples()
        if examples.task.loss is None:
            return
        whole = examples.losses(self.outputs(examples))
        n = len(examples)
        expect_that(tuple(whole.shape) in ((n,), ()), f"Expected ({n},) losses or one number, got {tuple(whole.shape)}")
        expect_that(bool(whole.isfinite().all()), "Expected finite losses")
        half = examples.take(slice(n // 2))
        part = half.losses(self.outputs(half))
        if whole.dim():
            near = torch.allclose(whole[: n // 2], part, atol=_NEAR, rtol=1e-3)
            expect_that(near, "Expected the losses of examples not to depend on what else is in the batch")

    def test_the_loss_has_gradients(self) -> None:
        """Or nothing could be finetuned."""
        examples = self.examples()
        if examples.task.loss is None:
            return
        outputs = mapped(self.outputs(examples), _with_gradient)
        loss = examples.losses(outputs).mean()
        expect_that(loss.requires_grad, "Expected the loss to depend on what the network returns")
        loss.backward()  # type: ignore[no-untyped-call]
        reached = [tensor.grad is not None for tensor in tensors_in(outputs) if tensor.is_leaf and tensor.requires_grad]
        expect_that(any(reached), "Expected the loss to have a gradient in what the network returns")

    def test_the_metric_is_a_finite_number_that_batches_can_be_told_to_one_after_the_other(self) -> None:
        """As evaluations of large data tell it."""
        examples = self.examples()
        if examples.task.metric is None and examples.task.loss is None:
            return
        value = self._measured(examples, 1)
        expect_that(math.isfinite(value), f"Expected a finite metric, got {value}")
        again = self._measured(examples, 1)
        expect_that(again == value, f"Expected the same metric of the same batch, got {again}, not {value}")
        self._measured(examples, 3)

    def test_a_network_is_at_no_distance_from_itself_and_agrees_with_itself(self) -> None:
        """Fidelity is measured by them, and distillation trains by one."""
        examples = self.examples()
        task, outputs = examples.task, in_float32(self.outputs(examples))
        for temperature in (1.0, 2.0):
            own = task.distil(outputs, outputs, temperature)
            other = task.distil(mapped(outputs, _disturbed), outputs, temperature)
            near = float(own.detach().abs().mean()) < _NEAR
            expect_that(near, f"Expected distil of {described(outputs)} and itself near 0, got {own}")
            further = float(other.detach().mean()) > float(own.detach().mean())
            expect_that(further, "Expected distil of disturbed outputs to be more than that of the same")
        agreed = task.agreement(outputs, outputs)
        fine = bool(((agreed >= 0) & (agreed <= 1)).all()) and float(agreed.float().mean()) > 1 - _NEAR
        expect_that(fine, f"Expected agreement 1 with the same outputs, and shares in [0, 1], got {agreed}")

    def test_strata_are_whole_numbers_one_for_each_example(self) -> None:
        """Subsets are taken with equal shares of each."""
        examples = self.examples()
        strata = examples.strata()
        expect_that(tuple(strata.shape) == (len(examples),), f"Expected ({len(examples)},) strata, got {strata.shape}")
        expect_that(not strata.is_floating_point(), f"Expected whole numbers as strata, got {strata.dtype}")

    def test_data_that_fit_are_not_refused(self) -> None:
        """`check` is for those that do not."""
        examples = self.examples()
        if examples.task.check is not None:
            try:
                examples.task.check(self.outputs(examples), examples.batch)
            except ValueError as error:
                raise AssertionError(f"Expected check to let data pass that fit; it says: {error}") from error

    def test_what_a_worker_is_handed_reads_batches_alike(self) -> None:
        """Several workers get copies of the task."""
        examples = self.examples()
        copied: Any = unpack(pack(lambda: (_Reader(examples.task),)))()[0]  # type: ignore[arg-type, return-value]
        there = list(tensors_in(copied.task.inputs(examples.batch)))
        here = list(tensors_in(examples.inputs))
        same = len(here) == len(there) and all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
        expect_that(same, "Expected a worker's copy of the task to read the same inputs")

    def _measured(self, examples: Examples, parts: int) -> float:
        measured = Measured(examples.task, "loss" if examples.task.metric is None else "metric")
        for part in examples.split(-(-len(examples) // parts)):
            measured.update(self.outputs(part), part.batch, len(part))
        return measured.compute()


class _Reader:
    def __init__(self, task: Task) -> None:
        self.task = task


def _with_gradient(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor


def _disturbed(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=tensor.dtype)
    return tensor + noise.to(tensor.device) * (tensor.std() + 1)
