"""The whole job in one call, and the same in several steps with a training of the caller's own between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunesearch import plain_json
from prunesearch.api import search
from prunesearch.budget import AnyBudget, Budget, BudgetOrSet, as_budget
from prunesearch.errors import StudyMismatch
from prunesearch.files import check_folder, write_text
from prunesearch.given import as_network, refuse_unknown
from prunesearch.latency_table import LatencyTable
from prunesearch.models.copying import copied
from prunesearch.models.devices import device_of_module, devices_here
from prunesearch.models.nested import Batch, moved
from prunesearch.models.network import Network
from prunesearch.models.saving import load, save
from prunesearch.models.trace import trace
from prunesearch.models.wrappers import unwrapped
from prunesearch.progress import Progress
from prunesearch.question import differences, plain
from prunesearch.registry import parameters_of
from prunesearch.running import Running
from prunesearch.structure import Cost
from prunesearch.study.database import IN_MEMORY
from prunesearch.tasks.metric import as_text
from prunesearch.training.data import Data, Source, as_data
from prunesearch.training.finetune import check_training, record_reached, train
from prunesearch.training.recipe import Recipe
from prunesearch.training.reports import Session, StepReport

Say = Callable[[str], None]
Train = Callable[[nn.Module], nn.Module | None]
Limits = dict[str, int]
_OURS = ("network", "data", "budget", "study", "study_name")


def prune(
    model: nn.Module | Network,
    data: Data | Source,
    budget: AnyBudget,
    *,
    table: LatencyTable | str | Path | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    say: Say | None = print,
    device: str | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    progress: Progress = True,
    **settings: Any,
) -> nn.Module:
    """Trace, search, build and finetune: a smaller network that meets the budget comes back; the model stays as it is.

    The network is finetuned with the model as its teacher. With a folder, the study (`search.db`), the state of the
    training and what comes of it (`pruned.safetensors`) are kept there, and the same call again goes on where it was.

    Args:
        model: The trained network, or what `trace` made of it.
        data: What to search and train with; with `test`, the network is judged before and after.
        budget: What it has to meet, also as a text such as `"macs=50%"`.
        table: What latency is predicted from, if the budget limits it.
        recipe: How to finetune.
        seed: Decides everything random.
        folder: Where everything is kept.
        say: Told in sentences what became of each step; None is silent.
        device: Where the network is searched and finetuned; by default on the GPU where there is one. It comes back to
            where the model is.
        on_step: Called after every step of the training; an exception from it stops it, with the state on disk.
        progress: Whether to show how far each step is, where there is a terminal or a notebook.
        **settings: Further arguments of `search`, such as `n_trials=400`.

    Raises:
        InfeasibleBudget: No structure meets the budget.
        TypeError: A setting is one of those that this call makes itself.
        PruneSearchError, ValueError: As `trace`, `search` and `finetune`.
    """
    _check(settings)
    data, tell, budget = as_data(data), say or (lambda sentence: None), as_budget(budget, table)
    place = None if folder is None else Path(folder)
    if place is not None:
        check_folder("folder", place)
    network = as_network(model, data)
    check_training(network.model, data, Recipe() if recipe is None else recipe)
    running, devices = _running_on(device, settings), devices_here()
    where = devices.told(devices.chosen(running.device, network.device))
    if where is not None:
        tell(where)
    full = network.space.cost(network.space.full)
    kept = f" Layers that keep their width: {len(network.frozen)}." if network.frozen else ""
    tell(f"Traced {type(network.model).__name__}: {len(network.space.groups)} groups of channels.{kept}")
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    study = IN_MEMORY if place is None else f"sqlite:///{place / 'search.db'}"
    searched = {**settings, "running": running, "progress": progress}
    result = search(network, data, budget=budget, seed=seed, study=study, **searched)
    tell(f"Found: {result}.")
    for note in result.notes:
        tell(f"Note: {note}")
    state = None if place is None else place / "finetune.safetensors"
    built, structure = result.best.build(), result.best.structure
    session = Session(state, on_step=on_step, device=running.device, progress=progress)
    trained = train(built, data, recipe=recipe, teacher=network.model, seed=seed, session=session)
    tested = record_reached(
        result, structure, trained, built, data, teacher=network.model, seed=seed, device=running.device
    )
    small = trained.best
    if place is not None:
        save(small, place / "pruned.safetensors", example_inputs=data.examples())
        result.record("file", {"file": "pruned.safetensors", "structure": list(structure)})
    tell(_summary(small, full, result.best.cost, trained.metric, tested))
    return small


def prune_in_steps(
    model: nn.Module | Network,
    data: Data | Source,
    budgets: Sequence[AnyBudget],
    train: Train,
    *,
    folder: str | Path,
    seed: int = 0,
    say: Say | None = None,
    progress: Progress = True,
    rules: Mapping[str, Any] | None = None,
    device: str | None = None,
    **settings: Any,
) -> nn.Module:
    """Prune to one budget after the other, each time followed by a training of the caller's own.

    Each step traces the network that the step before it trained, searches it, and hands the winner to `train`. Budgets
    are in terms of the *original* network: `"macs=50%"` after `"macs=75%"` is half of what came in at the beginning.
    Everything is kept in a folder: one file of studies, one per step (`search.db`), and the trained network of each
    step (`step-1.safetensors`, ...). The same call again goes on after the last step whose training had ended; one
    that was interrupted begins that training anew, with the same network (keep checkpoints of your own for long ones).

    Args:
        model: The trained network, or what `trace` made of it.
        data: What structures are scored with.
        budgets: Of MACs and parameters, each at least as tight as the one before it.
        train: Given a pruned network in training mode, where the model is: trains it in place, or returns the trained
            one. The state of what comes back is taken; what a loop leaves on the module, such as the forward that
            accelerate puts there for mixed precision, is not, and it may be on another device.
        folder: Where everything is kept; made if it is not there.
        seed: Decides everything random here.
        say: Told in sentences what became of each step; None is silent.
        progress: Whether to show how far each step is, where there is a terminal or a notebook.
        rules: Further arguments of `trace`, such as `{"ignored_layers": ["head"]}`.
        device: Where structures are scored; by default on the GPU where there is one.
        **settings: Further arguments of `search`.

    Returns:
        The network of the last step, in eval mode.

    Raises:
        InfeasibleBudget: No structure meets a budget.
        ValueError: There are no budgets, one is looser than the one before it or limits latency, or `train` gave a
            network whose state has other names or shapes than that of the one it was given.
        TypeError: `train` returned something else than a network, or a setting is one of those that this call makes.
        StudyMismatch: The folder is of other steps; the message says what differs.
    """
    _check(settings)
    data, tell, place = as_data(data), say or (lambda sentence: None), Path(folder)
    examples = _examples(data, model.model if isinstance(model, Network) else model)
    original = model if isinstance(model, Network) else trace(model, examples, **(rules or {}))
    settings["running"] = _running_on(device, settings)
    limits = _absolute([as_budget(budget) for budget in budgets], original)
    place.mkdir(parents=True, exist_ok=True)
    asked = {"network": original.fingerprint(), "space": original.space.fingerprint, "seed": seed}
    alike = {**original.wishes, "rules": original.kinds.own, **(rules or {})}
    now = copied(original.model).eval()
    for number, wanted in enumerate(limits, 1):
        file = place / f"step-{number}.safetensors"
        question = {**asked, "limits": limits[:number]}
        if file.exists():
            _check_step(file, question)
            now = load(file, original.model).eval()
            tell(f"Step {number} of {len(limits)} was done: {file}.")
            continue
        network = original if number == 1 else trace(now, examples, **alike)
        small, cost = _searched(
            network, data, wanted, f"step {number}", place, seed, {"progress": progress, **settings}
        )
        trained = _trained(train, small)
        write_text(_note_of(file), json.dumps(question))
        save(trained, file, example_inputs=examples)
        now = load(file, original.model).eval()  # as it would be after an interruption, and with nothing of the loop
        tell(f"Step {number} of {len(limits)}: MACs {cost.macs:,}, parameters {cost.params:,}. Wrote {file}.")
    return now


def _note_of(file: Path) -> Path:
    """Where it is noted what the network of a step is of."""
    return file.with_suffix(".json")


def _check_step(file: Path, question: Mapping[str, Any]) -> None:
    """Make sure that the network of a step that was done is of these steps.

    Raises:
        StudyMismatch: It is of others, or nothing says of which.
    """
    note = _note_of(file)
    try:
        stored = plain_json.parse(note.read_text()) if note.exists() else {}
    except ValueError:
        stored = {}
    for name, was, now in differences(stored, plain(question)):
        told = "is not known" if was is None else f"was {was}"
        raise StudyMismatch(
            f"{file} is of other steps: its {name} {told}, and is {now} now. Give another folder, or the arguments of "
            "then.",
            field=name,
            stored=was,
            asked=now,
        )


def _searched(
    network: Network, data: Data, limits: Limits, name: str, place: Path, seed: int, settings: Mapping[str, Any]
) -> tuple[nn.Module, Cost]:
    """The pruned network of a step; the same network where it meets the limits already."""
    full = network.space.cost(network.space.full)
    unmet = {resource: limit for resource, limit in limits.items() if full[resource] > limit}
    if not unmet:
        return copied(network.model), full
    limited: dict[str, Any] = {**unmet}
    budget = Budget(**limited)
    study = f"sqlite:///{place / 'search.db'}"
    result = search(network, data, budget=budget, seed=seed, study=study, study_name=name, **settings)
    return result.best.build(), result.best.cost


def _examples(data: Data, model: nn.Module) -> Batch:
    """The first inputs of the data, where the model is."""
    return moved(data.examples(), device_of_module(model))


def _trained(train: Train, small: nn.Module) -> nn.Module:
    """What the caller's training made of a network, without what torch wraps around it."""
    given = _shapes(small)
    returned = train(small.train())
    found = small if returned is None else returned
    if not isinstance(found, nn.Module):
        raise TypeError(
            f"Expected train to return a torch.nn.Module, or nothing if it trains in place; got {type(found).__name__}."
        )
    found = unwrapped(found)
    differing = sorted(given.items() ^ _shapes(found).items())
    if differing:
        name, shape = differing[0]
        raise ValueError(
            f"Expected train to give back the network that it was given, {type(small).__name__}; got "
            f"{type(found).__name__}, and only one of the two has {name} of shape {shape}. Return the trained network "
            "itself, not what wraps it."
        )
    return found


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in network.state_dict().items() if isinstance(x, Tensor)}


def _absolute(budgets: Sequence[BudgetOrSet], original: Network) -> list[Limits]:
    """Limits as counts, in terms of the original network."""
    if not budgets:
        raise ValueError('Expected at least one budget, such as ["macs=75%", "macs=50%"], got none.')
    found: list[Limits] = []
    for budget in budgets:
        if not {name for name, _ in budget.limits} <= {"macs", "params"}:
            raise ValueError(
                "Expected budgets of macs and params, as other costs are of one network and each step has another; "
                f"got {budget}."
            )
        limits = {str(resource): int(limit) for resource, limit in budget.check(original.space).limits}
        before = found[-1] if found else {}
        looser = [resource for resource, limit in before.items() if limits.get(resource, math.inf) > limit]
        if looser:
            raise ValueError(
                f"Expected each budget to be at least as tight as the one before it; {budget} is looser in {looser[0]} "
                f"than the {before[looser[0]]:,} before."
            )
        found.append(limits)
    return found


def _running_on(device: str | None, settings: Mapping[str, Any]) -> Running:
    """How a search runs, as the settings say, on a device if one is given."""
    running: Running = settings.get("running", Running())
    return running if device is None else replace(running, device=device)


def _check(settings: Mapping[str, Any]) -> None:
    ours = [name for name in _OURS if name in settings]
    if ours:
        raise TypeError(f"{ours[0]} is decided by this call. Use search itself to choose it, or leave it out.")
    known = parameters_of(search)
    refuse_unknown({name: value for name, value in settings.items() if name not in known}, {}, search)


def _summary(small: nn.Module, full: Cost, cost: Cost, metric: str, tested: Mapping[str, Any] | None) -> str:
    facts = [
        f"MACs {full.macs:,} -> {cost.macs:,} ({cost.macs / full.macs:.1%})",
        f"parameters {full.params:,} -> {cost.params:,} ({cost.params / full.params:.1%})",
    ]
    if tested is not None:
        was, now = (as_text(metric, tested[key]) for key in ("unpruned", "reached"))
        facts.append(f"{metric} on {tested['examples']:,} test examples {was} -> {now}")
    return f"{type(small).__name__}: {', '.join(facts)}."
