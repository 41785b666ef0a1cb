"""The command `prune`: `prunesearch.prune`, the whole job."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prunesearch.cli.console import print_json, say
from prunesearch.cli.flags import Group
from prunesearch.cli.following import words_of
from prunesearch.cli.running import first_interrupt_waits, interruptible
from prunesearch.cli.values import (
    OUTPUT,
    SEARCH,
    DeviceOptions,
    LimitByTableOptions,
    ModelOptions,
    PrintingOptions,
    RecipeOptions,
    SeedOptions,
    TrainingImageOptions,
)
from prunesearch.files import check_folder
from prunesearch.running import Running


@dataclass(frozen=True, kw_only=True)
class Trying:
    """How much is searched.

    Attributes:
        n_trials: Structures to score in all, earlier runs included.
    """

    n_trials: int = 200


@dataclass(frozen=True, kw_only=True)
class PrunedFolder:
    """Where everything is kept.

    Attributes:
        folder: Everything is kept here: the study, the state of the training, and pruned.safetensors.
    """

    folder: Path = Path("pruned")

    def __post_init__(self) -> None:
        check_folder("--folder", self.folder)


def prune(
    model: ModelOptions,
    images: TrainingImageOptions,
    budget: LimitByTableOptions,
    trying: Annotated[Trying, Group(SEARCH)],
    recipe: RecipeOptions,
    seed: SeedOptions,
    where: DeviceOptions,
    output: Annotated[PrunedFolder, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """The whole job: trace, search, build and finetune. Run the same command again to continue.

    Example: `prunesearch prune --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --folder small`
    """
    limits = budget.limits
    from prunesearch import whole

    data = images.load()
    network = model.loaded(data)
    said: list[str] = []

    def tell(sentence: str) -> None:
        said.append(sentence)
        say(sentence, aside=printing.json)

    kept = f"The study and the state of the training are in {output.folder}"
    with interruptible(kept), first_interrupt_waits() as stop_if_asked:
        whole.prune(
            network,
            data,
            limits,
            recipe=recipe,
            seed=seed.seed,
            folder=output.folder,
            say=tell,
            n_trials=trying.n_trials,
            device=where.device,
            running=Running(callbacks=lambda event: stop_if_asked()),
            on_step=lambda report: stop_if_asked(),
        )
    out = output.folder / "pruned.safetensors"
    if printing.json:
        print_json({"out": str(out), "study": str(output.folder / "search.db"), "said": said})
        return
    say(f"Wrote {out}.")
    named = [*words_of(model, whole_paths=True), "--pruned", str(out)]
    say(f"Next: {shlex.join(['prunesearch', 'export', *named, '--out', str(out.with_suffix('.onnx'))])}")
