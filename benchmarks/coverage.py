"""Which networks can be traced and pruned, how much of them, and how fast? Torch-Pruning runs on the same list beside.

    pip install timm ultralytics segmentation-models-pytorch monai transformers torchaudio torch-pruning
    python benchmarks/coverage.py [--networks 'timm:*' ...] [--checks prune export torch_pruning]

Each network is tried in a process of its own, with limits on time and memory, so that one cannot take the others with
it. What is found is added at once to a file of cells, one JSON object a line; run again to fill in what is missing. At
the end, or with `--write` alone, the cells become `benchmarks/results/coverage.json`.

Of the check `prune`: groups, frozen layers, leaves, the share of the MACs that pruning can remove, processor seconds of
tracing on one thread, the largest difference between a slimmed and the masked network of a random structure (in eval
mode and in training mode, relative to the largest output), and whether costs are those that torch's `FlopCounterMode`
counts. Of `use`: whether a half-MACs network trains a step, and whether it comes back from a file. Of `export`: how far
the outputs of the half-MACs network are in `torch.export` and in ONNX Runtime from its own. Of `torch_pruning`
(`BasePruner`, pruning_ratio=0.5, the last layers ignored, as in its README): whether the pruned network runs forward,
and the share of MACs left.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import multiprocessing
import os
import platform
import re
import resource
import signal
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import packages
import tasks
import torch
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.models.following import inputs_of
from prunesearch.models.nested import tensors_in
from prunesearch.models.ranking import NestedRanking

RESULTS = Path(__file__).parent / "results"
MEMORY = 14 * 2**30
"""Bytes of address space of one check."""
LIMITS: Mapping[str, int] = {"prune": 240, "use": 240, "export": 240, "torch_pruning": 60}
"""Seconds of a processor that a check may take, with the making of the network; others may be at work beside it."""
_PATIENCE = 3600.0
"""Seconds after which tracing gives up, whoever else is at work."""


def call(model: nn.Module, example_inputs: Any) -> Any:
    inputs = inputs_of(example_inputs)
    return model(*inputs.args, **inputs.kwargs)


def outputs(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        return [x for x in tensors_in(call(model, example_inputs)) if x.is_floating_point()]


def difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """Largest, as a share of the largest value of the tensor; infinite where shapes differ."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(mine.shape != other.shape for mine, other in pairs):
        return math.inf
    return max((float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs if a.numel()), default=0.0)


@dataclass(frozen=True)
class Subject:
    """A network that is looked at.

    Attributes:
        model: In eval mode.
        example_inputs: What it takes.
    """

    model: nn.Module
    example_inputs: Any

    @cached_property
    def network(self) -> ps.Network:
        """Traced."""
        return ps.trace(self.model, self.example_inputs, time_limit=_PATIENCE)


def prune(subject: Subject) -> dict[str, Any]:
    model, example_inputs, start = subject.model, subject.example_inputs, time.process_time()
    try:
        network = subject.network
    except ps.TraceError as error:
        return {"traced": False, "reason": without_paths(str(error))[:400]}
    row: dict[str, Any] = {"traced": True, "seconds": round(time.process_time() - start, 2)}
    space = network.space
    full, least = space.cost(space.full).macs, space.cost(space.minimum).macs
    row |= {"groups": len(space.groups), "removable": 1 - least / full, "macs": full}
    row |= {"frozen": dict(list(network.frozen.items())[:12]), "leaves": dict(network.leaves)}
    row["notes"] = [without_paths(note)[:200] for note in network.notes]
    found = network.verify(1)
    row |= {"difference": found.largest_difference / max(found.scale, 1e-30), "exact": found.costs_exact}
    row |= {"training_difference": found.training_difference, "counted": ps.count(model, example_inputs).macs == full}
    return row


def use(subject: Subject) -> dict[str, Any]:
    """A half-MACs network is trained, and comes back from a file."""
    model, example_inputs, network = subject.model, subject.example_inputs, subject.network
    slimmed = half(network)
    row = {"kept": ps.count(slimmed, example_inputs).macs / network.space.cost(network.space.full).macs}
    row |= tried("trains", lambda: trains(slimmed, model, example_inputs))
    return row | tried("saved", lambda: comes_back(half(network).eval(), model, example_inputs))


def tried(name: str, check: Callable[[], bool | str]) -> dict[str, Any]:
    try:
        found = check()
    except Exception as error:  # whatever it raises is the result
        return {name: False, f"{name}_reason": reason(error)}
    return {name: found} if isinstance(found, bool) else {name: None, f"{name}_reason": found}


def trains(slimmed: nn.Module, model: nn.Module, example_inputs: Any) -> bool | str:
    """Whether a step of training changes what it should; words where the unpruned network does not run so either."""
    try:
        call(model.train(), example_inputs)
    except Exception as error:  # such as targets that are wanted
        return f"nor does the unpruned network: {reason(error)}"
    finally:
        model.eval()
    slimmed.train()
    returned = [x for x in tensors_in(call(slimmed, example_inputs)) if x.requires_grad]
    if not returned:
        return "returns nothing with gradients in training mode"
    sum((x.float() ** 2).mean() for x in returned).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in slimmed.parameters() if p.grad is not None]
    return len(gradients) > 0 and all(bool(g.isfinite().all()) for g in gradients)


def comes_back(slimmed: nn.Module, model: nn.Module, example_inputs: Any) -> bool:
    """Whether a file gives the network that was saved."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.safetensors"
        ps.save(slimmed, file)
        again = ps.load(file, model).eval()
    torch.manual_seed(0)
    ours = outputs(slimmed, example_inputs)
    torch.manual_seed(0)
    return difference(outputs(again, example_inputs), ours) < 1e-6


def half(network: ps.Network) -> nn.Module:
    """A random structure with half the MACs, or as near as it gets, and random channels."""
    space, rng = network.space, np.random.default_rng(0)
    limit = max(space.cost(space.minimum).macs, space.cost(space.full).macs // 2)
    structure = space.check(ps.Budget(macs=limit).check(space).fit(space.sample(rng, 1))[0].tolist())
    ranking = NestedRanking.by_importance([rng.random(len(units)) for units in network.units])
    return ps.slim(network, structure, ranking)


def export(subject: Subject) -> dict[str, Any]:
    """The half-MACs network in other programs; whether the unpruned one gets there where it does not."""
    model, example_inputs = subject.model, subject.example_inputs
    slimmed = half(subject.network).eval()
    row: dict[str, Any] = {}
    for name, check in (("program", in_program), ("onnx", in_onnx)):
        row |= tried(name, partial(check, slimmed, example_inputs))
        if not row[name]:
            theirs = tried(name, partial(check, model, example_inputs))
            if not theirs[name]:
                why = row.get(f"{name}_reason", "other outputs")
                row |= {name: None, f"{name}_reason": f"nor does the unpruned network: {why}"}
    return row


def in_program(model: nn.Module, example_inputs: Any) -> bool:
    program = ps.export_program(model, example_inputs).module()
    torch.manual_seed(0)
    theirs = outputs(program, example_inputs)
    torch.manual_seed(0)
    return difference(theirs, outputs(model, example_inputs)) < 1e-3


def in_onnx(model: nn.Module, example_inputs: Any) -> bool:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        ps.export_onnx(model, file, example_inputs)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        given = [x for x in inputs_of(example_inputs).tensors]
        names = [item.name for item in session.get_inputs()]
        theirs = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
    found = [torch.from_numpy(value) for value in theirs if isinstance(value, np.ndarray)]
    ours = outputs(model, example_inputs)
    found = [x for x in found if x.is_floating_point()]
    return difference(found[: len(ours)], ours) < 1e-3


def torch_pruning(subject: Subject) -> dict[str, Any]:
    import torch_pruning as tp

    model, example_inputs = subject.model, subject.example_inputs
    start = time.perf_counter()
    before, shapes = ps.count(model, example_inputs).macs, [x.shape for x in outputs(model, example_inputs)]
    named = inputs_of(example_inputs)
    given = dict(named.kwargs) if named.kwargs else named.args if len(named.args) > 1 else named.args[0]
    last = {x.shape[dim] for x in outputs(model, example_inputs) for dim in (1, -1) if x.dim() > 1}
    ignored = [
        module for module in model.modules()
        if (isinstance(module, nn.Linear) and module.out_features in last)
        or (isinstance(module, nn.Conv2d) and module.out_channels in last)
    ]  # fmt: skip
    pruner = tp.pruner.BasePruner(
        model, given, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=ignored
    )
    pruner.step()
    found = outputs(model, example_inputs)
    if [x.shape for x in found] != shapes:
        return {"runs": False, "reason": "the outputs have other shapes"}
    kept = ps.count(model, example_inputs).macs / before
    return {"runs": True, "kept": kept, "seconds": round(time.perf_counter() - start, 2)}


CHECKS: Mapping[str, Callable[[Subject], dict[str, Any]]] = {
    "prune": prune,
    "use": use,
    "export": export,
    "torch_pruning": torch_pruning,
}


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {without_paths(str(error))[:250]}"


def without_paths(message: str) -> str:
    """A message without the folders of this machine."""
    return re.sub(r"/\S*/(?=[^/\s]+)", "", message)


def sentences_without_paths(found: Any) -> Any:
    """The same with every sentence in it as `without_paths` gives it."""
    if isinstance(found, dict):
        return {key: sentences_without_paths(value) for key, value in found.items()}
    if isinstance(found, list):
        return [sentences_without_paths(value) for value in found]
    return without_paths(found) if isinstance(found, str) else found


# --- one network in a process of its own ------------------------------------------------------------------------------


def each(name: str, checks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each check finds, or why it found nothing. The network is traced once for all of them."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        model, example_inputs = packages.make(name)
        outputs(model, example_inputs)
    except Exception as error:  # whatever the package raises
        yield from ({"made": False, "reason": reason(error)} for _ in checks)
        return
    subject = Subject(model, example_inputs)
    for check in checks:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + LIMITS[check], resource.RLIM_INFINITY))
        try:
            yield CHECKS[check](subject)
        except Exception as error:  # whatever it raises is the result
            yield {"failed": True, "reason": reason(error)}


def apart(name: str, checks: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same in a process of its own, a copy of this one, which has imported what takes long."""
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe(duplex=False)
    child = forked.Process(target=_send, args=(theirs, name, checks))
    child.start()
    theirs.close()
    for done, check in enumerate(checks):
        try:
            yield check, ours.recv()
        except EOFError:
            child.join()
            is_late = child.exitcode == -signal.SIGXCPU
            why = f"longer than {LIMITS[check]} s" if is_late else f"ended with status {child.exitcode}"
            yield check, {"failed": True, "reason": why}
            yield from apart(name, checks[done + 1 :])
            break
    child.kill()
    child.join()


def _send(pipe: Any, name: str, checks: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere:  # some packages print
        os.dup2(nowhere.fileno(), 1)
    for found in each(name, checks):
        pipe.send(found)


# --- all of them ------------------------------------------------------------------------------------------------------


def read(cells: Path) -> dict[str, dict[str, Any]]:
    """Cells by network and check, with what was found and with which commit; a later line counts."""
    rows: dict[str, dict[str, Any]] = {}
    for line in cells.read_text().splitlines() if cells.exists() else ():
        cell = json.loads(line)
        rows.setdefault(cell["network"], {})[cell["check"]] = cell
    return rows


def commit() -> str:
    """The commit of the code that runs."""
    where = Path(__file__).parent
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=where, check=True, capture_output=True, text=True
    ).stdout.strip()


def write(cells: Path, out: Path) -> None:
    """The results of all cells, in the order of the list."""
    from importlib.metadata import version

    listed = ("torch", "torchvision", "timm", "ultralytics", "segmentation-models-pytorch", "monai", "transformers",
              "torchaudio", "torch-pruning", "onnxruntime")  # fmt: skip
    found = {name: row for name, row in read(cells).items() if name in packages.names()}
    rows = {
        name: {check: sentences_without_paths(cell["found"]) for check, cell in found[name].items()}
        for name in packages.names()
        if name in found
    }
    commits = {check: dict(Counter(row[check]["commit"] for row in found.values() if check in row)) for check in CHECKS}
    facts = {"threads": 1, "machine": platform.machine(), "limits": dict(LIMITS), "commits": commits}
    tasks.save({"facts": {**facts, **{name: version(name) for name in listed}}, "rows": rows}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["*"], help="globs")
    parser.add_argument("--checks", nargs="*", default=list(CHECKS), choices=CHECKS)
    parser.add_argument("--cells", type=Path, default=tasks.CACHE / "coverage.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS / "coverage.json")
    parser.add_argument("--write", action="store_true", help="only turn cells into results")
    arguments = parser.parse_args()
    if not arguments.write:
        arguments.cells.parent.mkdir(parents=True, exist_ok=True)
        fill(arguments.cells, arguments.networks, arguments.checks)
    write(arguments.cells, arguments.out)


def fill(cells: Path, globs: Iterable[str], checks: Iterable[str]) -> None:
    """Run what is missing, all checks of a network, then the next one; what changes the network runs alone."""
    wanted = [name for name in packages.names() if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]
    torch.set_num_threads(1)
    ran_with = commit()
    for name in wanted:
        packages.load(name)
        missing = [check for check in checks if check not in read(cells).get(name, {})]
        alone = [check for check in missing if check == "torch_pruning"]
        for together in ([check for check in missing if check not in alone], alone):
            for check, found in apart(name, together) if together else ():
                cell = {"network": name, "check": check, "commit": ran_with, "found": found}
                with cells.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                print(name, check, json.dumps(found)[:200], flush=True)


if __name__ == "__main__":
    main()
