"""Recording a network's forward in both modes, and the check that what was recorded is the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunesearch.errors import TraceError
from prunesearch.models.batches import follow_batch
from prunesearch.models.copying import copied, without_data
from prunesearch.models.deadline import Deadline
from prunesearch.models.fingerprint import fingerprint
from prunesearch.models.flops import FlopCounter
from prunesearch.models.held import held_tensors
from prunesearch.models.isolation import attributes_kept, isolated
from prunesearch.models.misfit import told_as
from prunesearch.models.nested import tensors_in, without_arrays
from prunesearch.models.operators import BUILT_IN, Kinds
from prunesearch.models.recorded import Inputs, Recording
from prunesearch.models.recording import record
from prunesearch.models.replay import Replay
from prunesearch.models.tensor_file import has_plain_values

_TOLERANCE = 1e-4
"""Of the largest output; what is recorded computes the same operators in the same order."""
_LARGE = 1 << 16
"""Numbers in one example from which on it takes longer to compute a forward than to work out shapes alone."""
_DRAWS = (1, 2, 3)
"""Seeds with which a forward runs again that draws what it does at random."""


@dataclass(frozen=True)
class Way:
    """How a forward is recorded.

    Attributes:
        without_data: On tensors that have shapes only.
        as_given: On as many images as the example has, not on two.
        follows_batch: With numbers that turned out to be multiples of the number of images (`batches.follow_batch`).
        kinds: What is known of layers and operators; modules of a known class are not entered.
        trains: Whether what it does in training mode could be followed, too.
    """

    without_data: bool = False
    as_given: bool = False
    follows_batch: bool = False
    kinds: Kinds = BUILT_IN
    trains: bool = True


@dataclass(frozen=True)
class Forwards:
    """A network's forward, followed.

    Attributes:
        recordings: In eval mode, then of later runs as far as they run other layers, then in training mode as often as
            that does something else.
        training: In training mode, if it draws as in eval mode; None if that cannot be followed.
        notes: What the caller should know.
        way: How it was recorded.
        images: For how many images it was compared with the model, the fewest that it runs for of those tried.
    """

    recordings: tuple[Recording, ...]
    training: Recording | None
    notes: tuple[str, ...]
    way: Way
    images: int

    @property
    def evaluating(self) -> Recording:
        """In eval mode."""
        return self.recordings[0]


def inputs_of(example_inputs: Any) -> Inputs:
    """What a forward is called with, from what a caller gives: a batch, positional inputs, or inputs by name."""
    if isinstance(example_inputs, Inputs):
        return example_inputs
    example_inputs = without_arrays(example_inputs)
    if not any(x.dim() for x in tensors_in(example_inputs)):
        raise TypeError(
            "Expected example_inputs as a batch of inputs, a tuple of positional ones or a dictionary of those by "
            f"name, with tensors of shape (n, ...) in it; got {_kind(example_inputs)}"
        )
    if isinstance(example_inputs, Mapping):
        return Inputs((), dict(example_inputs))
    if isinstance(example_inputs, tuple) or (isinstance(example_inputs, list) and example_inputs):
        return Inputs(tuple(example_inputs))
    return Inputs((example_inputs,))


def _kind(given: Any) -> str:
    """What came instead of inputs; of what is a shape, how to make inputs of it."""
    if isinstance(given, (tuple, list)) and given and all(isinstance(size, int) for size in given):
        return f"a shape. Did you mean torch.zeros({', '.join(map(str, given))})?"
    return f"{type(given).__name__}."


def follow(
    model: nn.Module,
    inputs: Inputs,
    deadline: Deadline,
    leaves: Mapping[str, str] | None = None,
    kinds: Kinds = BUILT_IN,
) -> Forwards:
    """Record the forward of `model`, a copy of our own in eval mode, in both modes.

    Large images are first tried without their data, which saves computing; a forward that needs data, or does something
    else without them, is recorded with them.

    Raises:
        TraceError: It fails on the inputs, or what was recorded gives something else than the model for another number
            of images.
    """
    is_large = sum(x.numel() for x in inputs.tensors) > _LARGE * inputs.images
    ways = (*[Way(without_data=True)] * is_large, Way(), Way(as_given=True))
    for way in (replace(way, kinds=kinds) for way in ways):
        try:
            return _followed(model, inputs, deadline, leaves or {}, way)
        except TraceError:
            if way.as_given:
                raise
        except Exception:  # whatever torch raises on tensors without data
            if not way.without_data:
                raise
    raise AssertionError


def _followed(model: nn.Module, inputs: Inputs, deadline: Deadline, leaves: Mapping[str, str], way: Way) -> Forwards:
    evaluating = recorded(model, inputs, leaves, way=way, deadline=deadline)
    images, note = _check(model, evaluating, inputs, deadline, way)
    later, notes_on_later = _later(model, inputs, deadline, evaluating, way)
    others, training, notes = _training(model, inputs, deadline, evaluating, way)
    notes = (*notes_on_later, *notes)
    recordings = (evaluating, *later, *others)
    follows = any(node.meta.get("follows_batch") for recording in recordings for node in recording.graph.nodes)
    way = replace(way, follows_batch=follows, trains=training is not None)
    if evaluating.counts:
        notes = (
            f"The forward counts what its data decide, at {evaluating.counts}. What was recorded, and scores with it, "
            "hold for data that decide alike.",
            *notes,
        )
    if way.as_given and inputs.images > 1:
        notes = (f"The forward does something else for another number of images than {inputs.images}.", *notes)
    return Forwards(recordings, training, notes if note is None else (note, *notes), way, images)


def _later(
    model: nn.Module, inputs: Inputs, deadline: Deadline, evaluating: Recording, way: Way
) -> tuple[list[Recording], tuple[str, ...]]:
    """Recordings of later runs of a forward that stores something, such as their number, as far as other layers run.

    They are marked as of training mode, as what costs and scores are of is the first run.
    """
    found: list[Recording] = []
    if not evaluating.stores:
        return found, ()
    after, seen = copied(model), _tensors_used(evaluating)
    few, held = with_images(inputs, evaluating.images), held_tensors(model)
    try:
        while True:
            with isolated(few.tensors) as copies:
                ours = few.with_tensors(copies)
                after(*ours.args, **ours.kwargs)
            recording = recorded(after, inputs, evaluating.leaves, way=way, deadline=deadline)
            if _tensors_used(recording) <= seen:
                break
            seen |= _tensors_used(recording)
            _check(after, recording, inputs, deadline, way)
            known = {constant: name for constant, name in recording.held.items() if name in held}
            found.append(replace(recording, model=copied(after), held=known, training=True))
    except Exception as error:  # whatever the caller's forward raises in its second run
        return found, (f"What the forward does in later runs was not looked at in full: {error}",)
    note = "The forward runs other layers in later runs. Costs and scores are of its first."
    return found, (note,) if found else ()


def _tensors_used(recording: Recording) -> set[str]:
    """Parameters that a forward reads, itself or in the modules that it runs."""
    found: set[str] = set()
    for node in recording.graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            found |= {f"{target}.{name}" for name, _ in recording.model.get_submodule(target).named_parameters()}
        elif node.op == "get_attr" and node.meta.get("parameter"):
            found.add(target)
    return found


def _training(
    model: nn.Module, inputs: Inputs, deadline: Deadline, evaluating: Recording, way: Way
) -> tuple[list[Recording], Recording | None, tuple[str, ...]]:
    """Recordings of what training does otherwise, in full only if no note says that it could not be.

    Beside them the one that draws as in eval mode, which may be that; None if it could not be followed.
    """
    found: list[Recording] = []
    seen = [_steps(evaluating)]
    first: Recording | None = None
    try:
        model.train()
        for seed in (0, *_DRAWS):
            recording = recorded(model, inputs, evaluating.leaves, way=way, deadline=deadline, seed=seed)
            steps = _steps(recording)
            if steps not in seen:
                seen.append(steps)
                found.append(recording)
                if seed == 0:
                    _check(model, recording, inputs, deadline, way)
                    first = recording
            elif seed == 0:
                first = evaluating
            if not recording.draws:
                break
    except TraceError as error:
        return found, first, (f"What the forward does in training mode was not looked at in full: {error}",)
    finally:
        model.eval()
    return found, first, ()


def _steps(recording: Recording) -> list[str]:
    """What a forward does, in order, with which operands."""
    steps = [f"{node.op} {node.target} {node.args} {node.kwargs}" for node in recording.graph.nodes]
    constants = [fingerprint(x) if has_plain_values(x) else str(x) for x in recording.constants.values()]
    decisions = [(decision.relation, decision.where) for decision in recording.decisions]
    return [*steps, *constants, f"{decisions} {recording.asked}"]


def recorded(
    model: nn.Module,
    inputs: Inputs,
    leaves: Mapping[str, str],
    *,
    way: Way,
    deadline: Deadline | None = None,
    seed: int = 0,
) -> Recording:
    """Record the forward of `model`, a copy of our own, in its mode.

    Args:
        model: The module.
        inputs: What its network was traced with.
        leaves: Modules that are not entered, and why.
        way: How; that of the network, so that nodes have the same names.
        deadline: When to give up; in ten minutes by default.
        seed: Of what the forward draws at random.

    Raises:
        TraceError: It fails, or takes too long.
    """
    few = _few(inputs, way)
    deadline = deadline or Deadline(600.0)
    found = _recorded(model, few, leaves, way, deadline, seed)
    if way.follows_batch and few.images > 1 and not few.is_listed:
        follow_batch(found, _recorded(model, with_images(inputs, 3), leaves, way, deadline, seed))
    return found


def that_has_run(model: nn.Module, inputs: Inputs, way: Way) -> nn.Module:
    """A copy in eval mode that has run once on as many images as `recorded` runs.

    What a forward makes in its first run and keeps, such as the anchors of a detector, is there as in all later runs.
    """
    other, few = copied(model).eval(), _few(inputs, way)
    with isolated(few.tensors) as copies:
        ours = few.with_tensors(copies)
        other(*ours.args, **ours.kwargs)
    return other


def _few(inputs: Inputs, way: Way) -> Inputs:
    return inputs if way.as_given or inputs.images == 2 else with_images(inputs, 2)


def _recorded(
    model: nn.Module, few: Inputs, leaves: Mapping[str, str], way: Way, deadline: Deadline, seed: int
) -> Recording:
    found = _recorded_plainly(model, few, leaves, way, deadline, seed)
    for node in found.graph.nodes:
        is_whole = node.op == "call_module" and str(node.target) in found.leaves
        node.meta["kind"] = None if is_whole else way.kinds.of_node(node, model)
    return found


def _recorded_plainly(
    model: nn.Module, few: Inputs, leaves: Mapping[str, str], way: Way, deadline: Deadline, seed: int
) -> Recording:
    known = way.kinds.knows
    if not way.without_data:
        return record(model, few, deadline, is_layer=known, leaves=leaves, seed=seed)
    light = few.without_data()
    device = few.tensors[0].device
    with torch.device("meta"):
        found = record(
            without_data(model), light, deadline, is_layer=known, leaves=leaves, seed=seed, in_place_of_meta=device
        )
    if found.constants:
        raise TraceError("The forward uses tensors that it holds besides parameters and buffers.")
    if any(node.target is F.scaled_dot_product_attention for node in found.graph.nodes):
        raise TraceError("Attention runs in another kernel without data, which is counted in another way.")
    return replace(found, model=model)


def check_number(way: Way, network: str, traced_with: int, images: int) -> None:
    """Refuse to compute a recorded forward for a number of images that it does not hold for.

    Args:
        way: How it was recorded.
        network: What the network is called.
        traced_with: How many images it was recorded with.
        images: How many there are now.

    Raises:
        ValueError: It was followed for one number of images only, and this is another.
    """
    if way.as_given and images != traced_with:
        raise ValueError(
            f"What {network} does depends on the number of images: it was traced with "
            f"{traced_with} and holds for no other number. Expected as many, got {images}."
        )


def check_size(recording: Recording, inputs: Inputs) -> None:
    """Refuse to compute a recorded forward for images of a size for which its model does something else.

    Args:
        recording: In eval mode, of images of another size.
        inputs: Some images of that size.

    Raises:
        ValueError: The model cannot run on them, or what was recorded gives something else; the message has the size.
    """
    model, some = recording.model, with_images(inputs, recording.images)
    shapes = ", ".join(str(tuple(x.shape[1:])) for x in some.tensors)
    with told_as(lambda error: f"{type(model).__name__} cannot run on images of shape {shapes}: {error}"):
        theirs = _outputs(model, some, recording)
    with _tensors_kept(model, recording), isolated(some.tensors) as copies:
        try:
            difference = _difference(_tensors(Replay(recording).run(*copies)), theirs)
        except Exception:  # whatever operators raise on tensors of other sizes
            difference = math.inf
    if difference > _TOLERANCE:
        raise ValueError(
            f"{type(model).__name__} does something else for images of shape {shapes} than for those that it was "
            "traced with, so structures cannot be scored on both. Give images of one size."
        )


def does_the_same(one: Recording, other: Recording) -> bool:
    """Whether two recorded forwards consist of the same operators on the same operands."""
    return _steps(one) == _steps(other)


def outside_of(model: nn.Module, part: str | None) -> dict[str, str]:
    """Modules that stay whole where only one submodule is to be pruned: those beside the way to it.

    Raises:
        ValueError: There is no such submodule.
    """
    if part is None:
        return {}
    names = dict(model.named_modules())
    if part not in names or not part:
        raise ValueError(f"Expected part as the name of a submodule of {type(model).__name__}, got {part!r}.")
    found: dict[str, str] = {}
    steps = part.split(".")
    for depth in range(len(steps)):
        parent = ".".join(steps[:depth])
        for name, _ in names[parent].named_children():
            if name != steps[depth]:
                found[f"{parent}.{name}".lstrip(".")] = f"is outside of {part!r}"
    return found


# --- the check --------------------------------------------------------------------------------------------------------


def _check(
    model: nn.Module, recording: Recording, inputs: Inputs, deadline: Deadline, way: Way
) -> tuple[int, str | None]:
    """Compute what was recorded for another number of images, and compare with the model.

    Returns:
        For how many images it was compared; and what the caller should know, if the model runs for those of the example
        alone, which cannot be compared.
    """
    deadline.check("the comparison of what was recorded with the model")
    mode = "in training mode" if recording.training else "in eval mode"
    trouble = failure = None
    for other in _others(inputs, recording, as_given=way.as_given):
        try:
            theirs = _outputs(model, other, recording)
        except Exception as error:  # whatever the caller's forward raises
            failure = f"{type(model).__name__} runs on {recording.images} images, but not on {other.images}: {error}"
            continue
        if len(_tensors(recording.output)) != len(theirs) and recording.images > 1:  # a result for each image
            other = varied(with_images(inputs, recording.images))
            theirs = _outputs(model, other, recording)
        trouble = _trouble(model, recording, other, theirs)
        if trouble is not None and _follows_batch(model, recording, other, deadline, way):
            trouble = _trouble(model, recording, other, theirs)
        if trouble is None:
            return other.images, None
    if trouble is None:
        return inputs.images, failure
    if recording.counts:
        raise TraceError(
            f"{type(model).__name__} counts what its data decide, at {recording.counts}, outside of any submodule, so "
            "it does something else for other images. Move that into a module of its own, which is then kept whole, or "
            "trace the submodule in front of it."
        )
    raise TraceError(
        f"{type(model).__name__} {mode} {trouble} It depends on the number of images in a way that cannot be followed, "
        "on values of its data that reach it outside of torch, or on what earlier runs left."
    )


def _others(inputs: Inputs, recording: Recording, *, as_given: bool) -> list[Inputs]:
    """Inputs to compare on: another number of images; one is cheapest, but some forwards take it for something else.

    In training mode BatchNorm may refuse a single one.
    """
    if inputs.is_listed or as_given:
        return [varied(inputs)]
    few = [1, 3] if recording.images != 1 else [3]
    numbers = [3] if any(_takes_apart(node, recording.images) for node in recording.graph.nodes) else few
    if any(x.dim() == 1 and not x.is_floating_point() for x in inputs.tensors):  # such as lengths, which decide costs
        numbers = [2 * recording.images]
    return [with_images(inputs, n) for n in numbers] if recording.images > 1 else [varied(inputs)]


_APART = {"unbind": 1, "select": 1, "narrow": 1, "chunk": 2, "split": 2, "tensor_split": 2}
"""What takes a tensor apart, and which of its arguments is the dimension."""


def _takes_apart(node: fx.Node, images: int) -> bool:
    """Whether an operator may take images one by one: a loop over two of them would pass for one, not for three."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    source = next(iter(node.args), None)
    shape = source.meta.get("shape") if isinstance(source, fx.Node) else None
    if not node.meta.get("fed") or not shape or shape[0] != images:
        return False
    if name == "getitem":
        index = node.args[1]
        first = index[0] if isinstance(index, tuple) and index else index
        return isinstance(first, int) or (isinstance(first, slice) and first != slice(None))
    at = _APART.get(name)
    return at is not None and bool(node.kwargs.get("dim", node.args[at] if at < len(node.args) else 0) == 0)


def _outputs(model: nn.Module, inputs: Inputs, recording: Recording) -> list[Tensor]:
    with _tensors_kept(model, recording), isolated(inputs.tensors) as copies:
        ours = inputs.with_tensors(copies)
        return _tensors(model(*ours.args, **ours.kwargs))


def _tensors(value: Any) -> list[Tensor]:
    return list(tensors_in(value))


def _trouble(model: nn.Module, recording: Recording, other: Inputs, theirs: Sequence[Tensor]) -> str | None:
    """How what was recorded differs from the model for other inputs."""
    numbers = f"{other.images} images instead of {recording.images}"
    with _tensors_kept(model, recording), isolated(other.tensors) as copies:
        try:
            mine = _tensors(_replayed(recording, copies, other.images))
        except Exception as error:  # whatever operators raise on tensors of other sizes
            return f"does something else for {numbers}: {error}."
    difference = _difference(mine, theirs)
    if difference <= _TOLERANCE:
        return None
    return (
        f"returns something else than the operators that were noted while it ran: they differ by {difference:.2g} of "
        f"the largest output, for {numbers}."
    )


def _follows_batch(model: nn.Module, recording: Recording, other: Inputs, deadline: Deadline, way: Way) -> bool:
    """Whether all that differs for another number of images are multiples of it, which then follow it."""
    if other.images == recording.images:
        return False
    try:
        with _tensors_kept(model, recording):
            second = record(model, other, deadline, is_layer=way.kinds.knows, leaves=recording.leaves)
    except TraceError:
        return False
    return follow_batch(recording, second)


@contextmanager
def _tensors_kept(model: nn.Module, recording: Recording) -> Iterator[None]:
    """Afterwards buffers, and parameters that a forward writes to, are what they were, as is what modules hold."""
    before: dict[str, Tensor] = {name: x.clone() for name, x in model.named_buffers()}
    before |= {name: x.detach().clone() for name, x in model.named_parameters() if name in recording.writes}
    try:
        with attributes_kept(model):
            yield
    finally:
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                if name in before and tensor.shape == before[name].shape:
                    tensor.copy_(before[name])


def _replayed(recording: Recording, tensors: Sequence[Tensor], images: int) -> Any:
    with FlopCounter() as counter:
        replay = _CountingReplay(recording, counter)
        output = replay.run(*tensors)
    replay.note_shares(recording.images, images)
    return output


class _CountingReplay(Replay):
    """Sees what each operator costs for another number of images, so what one image costs, and which sizes differ."""

    def __init__(self, recording: Recording, counter: FlopCounter) -> None:
        super().__init__(recording)
        self._counter = counter
        self._flops: dict[fx.Node, int] = {}
        self._shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        result = super().run_node(n)
        self._flops[n] = self._counter.get_total_flops() - before
        if isinstance(result, Tensor):
            self._shapes[n] = tuple(result.shape)
        return result

    def note_shares(self, n: int, other: int) -> None:
        """Note for each operator which share of what it took for `n` images it takes for one: costs are a + b n."""
        for node, flops in self._flops.items():
            before = node.meta.get("flops", 0)
            if before and other != n:
                per_image = Fraction(flops - before, other - n)
                node.meta["of_one_image"] = (before - per_image * n + per_image) / before
        for node, shape in self._shapes.items():
            known = node.meta.get("shape", ())
            if other != n and len(known) == len(shape):
                node.meta["of_images"] = frozenset(dim for dim, size in enumerate(shape) if size != known[dim])


def _difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference, as a share of the largest value; infinite where shapes differ."""
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return math.inf
    largest = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if not mine.numel():
            continue
        if torch.equal(mine, other):
            continue
        a, b = mine.double().nan_to_num(posinf=1e30, neginf=-1e30), other.double().nan_to_num(posinf=1e30, neginf=-1e30)
        largest = max(largest, float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)))
    return largest


def with_images(inputs: Inputs, n: int) -> Inputs:
    """Inputs of another number of images: those that there are, again and again; a list of images stays as it is."""
    before = inputs.images
    if inputs.is_listed:
        return inputs

    def taken(x: Tensor) -> Tensor:
        if x.dim() == 0 or len(x) != before:
            return x
        return x[torch.arange(n, device=x.device) % before]

    return inputs.with_tensors([taken(x) for x in inputs.tensors])


def varied(inputs: Inputs) -> Inputs:
    """The same with a little noise, the same each time, so that no two images are alike; numbers of words stay."""
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        if not x.is_floating_point() or not x.numel():
            return x
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        return x + 0.1 * x.std(correction=0).clamp(min=0.1) * noise

    return inputs.with_tensors([noisy(x) for x in inputs.tensors])
