"""The main job, end to end, on real data that comes with scikit-learn: what `prunesearch demo` runs.

Every cell is kept in the study file when it is done, so a demo that was interrupted goes on where it was.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from prunesearch._version import __version__
from prunesearch.api import search
from prunesearch.budget import Budget
from prunesearch.evaluators.accuracy import top1
from prunesearch.evaluators.latency.timing import measure_latency, processor_name
from prunesearch.files import whole
from prunesearch.models.checkpoint import load_weights
from prunesearch.models.network import Network
from prunesearch.models.peak_memory import measured_peak_bytes
from prunesearch.models.trace import trace
from prunesearch.models.zoo import make_model
from prunesearch.plain_text import about
from prunesearch.result import SearchResult
from prunesearch.running import Running
from prunesearch.search.evolution import EvolutionSettings
from prunesearch.study.store import Store
from prunesearch.study.study import recording
from prunesearch.training.data import Data
from prunesearch.training.digits import digits
from prunesearch.training.finetune import finetune
from prunesearch.training.recipe import Recipe

SEARCHERS: Mapping[str, Mapping[str, Any]] = {
    "uniform": {},
    "random": {},
    # MetaPruning's population of 50 suits a thousand evaluations; a hundred go further as more, smaller generations
    "evolution": {"settings": EvolutionSettings(population=20, parents=5, mutants=10, crossovers=8)},
    "surrogate": {},
}
BUDGET = Budget(macs="20%")  # `benchmarks/demo_budget.py` says why, and why so little finetuning
MODEL = "resnet20"
_LATENCY_BATCH = 256
TRAINING = Recipe(epochs=20, batch_size=64, lr=0.2)
FINETUNING = Recipe(epochs=1, batch_size=64, lr=0.02)


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        searcher: Its name; "unpruned" for the network it all starts from.
        evaluations: Structures it scored.
        macs: Multiply-accumulates per image, exact.
        params: Parameters, exact.
        accuracy_before: Test accuracy before finetuning.
        accuracy_after: Test accuracy after finetuning; None for the unpruned network.
        search_seconds: Time spent scoring.
        ms_per_image: Measured, batches of 256.
    """

    searcher: str
    evaluations: int
    macs: int
    params: int
    accuracy_before: float
    accuracy_after: float | None
    search_seconds: float
    ms_per_image: float


@dataclass(frozen=True)
class Demo:
    """What a demo found, and on what machine.

    Attributes:
        rows: The unpruned network, then one row per searcher.
        facts: Versions, machine, seeds and settings; `seconds` and `cpu_seconds` are None if an earlier run had done
            part of it.
        study: URL of the database.
    """

    rows: tuple[Row, ...]
    facts: dict[str, Any]
    study: str

    def as_dict(self) -> dict[str, Any]:
        """Rows and facts as plain values, ready for JSON."""
        return {"rows": [asdict(row) for row in self.rows], "facts": self.facts}


@dataclass(frozen=True)
class _Talk:
    """Between a demo and who runs it: what it says, and whether it is to stop."""

    tell: Callable[[str], None]
    stop_if_asked: Callable[[], None]


def run_demo(
    out: Path,
    *,
    n_trials: int = 128,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    stop_if_asked: Callable[[], None] | None = None,
) -> Demo:
    """Train, trace, search with four searchers, finetune each winner, measure; on one thread.

    Args:
        out: An existing folder for the weights and the study file.
        n_trials: Structures each searcher may score.
        seed: Decides everything random.
        say: Told, in a sentence, what is being done.
        stop_if_asked: Called after every structure and every step of a training; an exception from it ends the demo.
            What was scored is kept.
    """
    with _one_thread():
        return _run(
            out,
            n_trials=n_trials,
            seed=seed,
            talk=_Talk(say or (lambda sentence: None), stop_if_asked or (lambda: None)),
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, which wait for each other where other programs run, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(out: Path, *, n_trials: int, seed: int, talk: _Talk) -> Demo:
    start, cpu_start = time.monotonic(), time.process_time()
    data = digits(seed=seed)
    weights, database = out / f"unpruned-seed{seed}.safetensors", out / f"demo-seed{seed}.db"
    is_fresh = not weights.exists() and not database.exists()
    model = _trained(weights, data, seed, talk)
    network = trace(model, data.test_set()[0][:2])
    talk.tell(f"Traced {MODEL}: {len(network.space.groups)} groups, {about(network.space.size)} structures.")
    unpruned = _unpruned_row(network, data)
    rows = [unpruned]
    url = f"sqlite:///{database}"
    for name, options in SEARCHERS.items():
        talk.tell(f"Searching with {name} under MACs {dict(BUDGET.limits)['macs']}, up to {n_trials} structures.")
        result = search(
            network,
            data,
            budget=BUDGET,
            searcher=name,
            n_trials=n_trials,
            seed=seed,
            study=url,
            study_name=name,
            options=options,
            running=Running(callbacks=lambda event: talk.stop_if_asked()),
        )
        rows.append(_finished(result, network, data, unpruned, seed, talk))
    facts = _facts(n_trials, seed) | {
        "test_images": len(data.test_set()[0]),
        "seconds": round(time.monotonic() - start, 1) if is_fresh else None,
        "cpu_seconds": round(time.process_time() - cpu_start, 1) if is_fresh else None,
    }
    return Demo(tuple(rows), facts, url)


def _trained(path: Path, data: Data, seed: int, talk: _Talk) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make_model(MODEL, in_channels=1, image_size=8)
    if path.exists():
        load_weights(model, path)
        return model.eval()
    talk.tell(f"Training {MODEL} on scikit-learn's digits, epochs: {TRAINING.epochs}.")
    trained = finetune(model, data, recipe=TRAINING, seed=seed, on_step=lambda report: talk.stop_if_asked())
    with whole(path) as draft:
        safetensors.torch.save_file(trained.state_dict(), draft)
    return trained


def _unpruned_row(network: Network, data: Data) -> Row:
    cost = network.space.cost(network.space.full)
    images, labels = data.test_set()
    accuracy, latency = top1(network.model, images, labels), measure_latency(network.model, images[:_LATENCY_BATCH])
    return Row("unpruned", 0, cost.macs, cost.params, accuracy, None, 0.0, latency.median_ms)


def _finished(result: SearchResult, network: Network, data: Data, unpruned: Row, seed: int, talk: _Talk) -> Row:
    with closing(Store(result.study, create=False)) as store:
        summary = store.summary(result.name)
    if summary is None or summary.get("structure") != list(result.best.structure):
        talk.tell(f"Finetuning the winner of {result.name}, epochs: {FINETUNING.epochs}.")
        summary = _finetune_and_measure(result, network, data, unpruned, seed, talk)
        with recording(result.study, result.name) as study:
            study.add_to_summary(result.name, summary)
    return Row(
        searcher=result.name,
        evaluations=len(result.trials),
        macs=result.best.cost.macs,
        params=result.best.cost.params,
        accuracy_before=summary["accuracy_before"],
        accuracy_after=summary["accuracy_after"],
        search_seconds=sum(trial.seconds for trial in result.trials),
        ms_per_image=summary["ms_per_image"],
    )


def _finetune_and_measure(
    result: SearchResult, network: Network, data: Data, unpruned: Row, seed: int, talk: _Talk
) -> dict[str, Any]:
    images, labels = data.test_set()
    winner = result.best.build()
    start = time.monotonic()
    tuned = finetune(
        winner,
        data,
        recipe=FINETUNING,
        teacher=network.model,
        seed=seed,
        on_step=lambda report: talk.stop_if_asked(),
    )
    seconds = time.monotonic() - start
    return {
        "structure": list(result.best.structure),
        "accuracy_unpruned": unpruned.accuracy_before,
        "accuracy_before": top1(winner, images, labels),
        "accuracy_after": top1(tuned, images, labels),
        "ms_per_image_unpruned": measure_latency(
            network.model, images[:_LATENCY_BATCH]
        ).median_ms,  # same minute, same noise
        "ms_per_image": measure_latency(tuned, images[:_LATENCY_BATCH]).median_ms,
        "latency_batch_size": _LATENCY_BATCH,
        "peak_bytes_unpruned": measured_peak_bytes(network.model, [images[:_LATENCY_BATCH]]),
        "peak_bytes": measured_peak_bytes(tuned, [images[:_LATENCY_BATCH]]),
        "peak_batch_size": _LATENCY_BATCH,
        "finetune_seconds": seconds,
        "macs_unpruned": unpruned.macs,
        "params_unpruned": unpruned.params,
    }


def _facts(n_trials: int, seed: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "data": "scikit-learn digits, 1,797 images of 8x8 pixels, a quarter of them for testing",
        "budget": f"MACs {dict(BUDGET.limits)['macs']}",
        "n_trials": n_trials,
        "population": SEARCHERS["evolution"]["settings"].population,
        "seed": seed,
        "latency_batch_size": _LATENCY_BATCH,
        "training": asdict(TRAINING),
        "finetuning": asdict(FINETUNING),
        "prunesearch": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor_name("cpu"),
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }
