"""The command `search`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli.checks import (
    check_metric,
    check_network_file,
    check_policy_share,
    check_study,
)
from prunesearch.cli.console import Table, print_json, print_table, say
from prunesearch.cli.flags import Group
from prunesearch.cli.following import next_command, words_of
from prunesearch.cli.policies import Answer, answer, check_can_be_met
from prunesearch.cli.running import first_interrupt_waits, interruptible, say_where, shown
from prunesearch.cli.values import (
    DEFAULT_STUDY,
    OUTPUT,
    RUNNING,
    SEARCH,
    STUDY,
    ImageOptions,
    LimitByTableOptions,
    ModelOptions,
    PrintingOptions,
    RunningOptions,
    ScoringOptions,
    WidthOptions,
    WorkerOptions,
)
from prunesearch.search import check_searcher

if TYPE_CHECKING:
    from prunesearch.models.network import Network
    from prunesearch.result import SearchResult
    from prunesearch.study.events import Callback, Event
    from prunesearch.training.data import Data


@dataclass(frozen=True, kw_only=True)
class Searching:
    """What `prunesearch.search` takes beside its values.

    Attributes:
        searcher: Who proposes structures.
        options: Of the searcher, such as population=20.
        n_trials: Structures to score in all, earlier runs included.
        build_with: Weights of the winner alone.
        verifiers: What checks the winner itself, or none.
        seed: Decides everything random.
    """

    searcher: str = "surrogate"
    options: Mapping[str, Any] = field(default_factory=dict)
    n_trials: int = 200
    build_with: str | None = None
    verifiers: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_searcher(self.searcher, self.options)


@dataclass(frozen=True, kw_only=True)
class SearchStudy:
    """Where a search is kept.

    Attributes:
        study: Database: a file such as search.db, or postgresql://USER@SERVER/NAME.
        study_name: Which study of the database.
    """

    study: str | None = None
    study_name: str | None = None

    @property
    def url(self) -> str:
        """Of the database."""
        return self.study or DEFAULT_STUDY


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """What ends a search early.

    Attributes:
        timeout: Stop after so many seconds.
        patience: Stop after so many trials without a better one.
    """

    timeout: float | None = None
    patience: int | None = None

    @property
    def callbacks(self) -> list[Callback]:
        """What ends it."""
        from prunesearch.study.events import early_stopping, stop_after

        found = [] if self.timeout is None else [stop_after(self.timeout)]
        return found if self.patience is None else [*found, early_stopping(self.patience)]


@dataclass(frozen=True, kw_only=True)
class SearchOutput:
    """What a search leaves.

    Attributes:
        policy_share: Ask the policy that conditional learnt for this share of the budget; --out then gets that network.
        tensorboard: Folder for curves that TensorBoard shows.
        out: Write the best network here, as safetensors.
    """

    policy_share: float | None = None
    tensorboard: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        check_network_file(self.out)

    @property
    def callbacks(self) -> list[Callback]:
        """What writes while the search goes on."""
        from prunesearch.study.tensorboard import TensorBoardLogger

        return [] if self.tensorboard is None else [TensorBoardLogger(self.tensorboard)]

    def write(self, result: SearchResult, answered: Answer | None, data: Data) -> None:
        """Write the best network, or the one that the policy answered, if there is a file for it."""
        from prunesearch.models.saving import save

        if self.out is not None:
            built = result.best.build() if answered is None else result.build(answered.structure)
            save(built, self.out, example_inputs=data.examples())
            kept = result.best.structure if answered is None else answered.structure
            result.record("file", {"file": self.out.name, "structure": list(kept)})


def search(
    model: ModelOptions,
    widths: WidthOptions,
    images: ImageOptions,
    budget: LimitByTableOptions,
    searching: Annotated[Searching, Group(SEARCH)],
    where: Annotated[
        SearchStudy, Group(STUDY, unset={"study": DEFAULT_STUDY, "study_name": "the one with the same settings"})
    ],
    scoring: ScoringOptions,
    workers: WorkerOptions,
    running: RunningOptions,
    stopping: Annotated[Stopping, Group(RUNNING)],
    output: Annotated[SearchOutput, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Search the best structure under a budget. Run the same command again to continue.

    Training images score structures; the test set is not looked at.

    Example: `prunesearch search --model zoo:resnet20 --weights w.pt --data digits --budget macs=50% --out small.st`
    """
    limits, rules, callbacks = budget.limits, widths.rules, stopping.callbacks
    check_metric(scoring.metric, images.task, images.data)
    check_policy_share(searching.searcher, output.policy_share)
    check_study(where.url)
    from prunesearch import api
    from prunesearch.models.trace import trace
    from prunesearch.study.database import show

    say_where(running.device)
    data = images.load()
    network = trace(model.loaded(data), data.examples(), **rules)
    if output.policy_share is not None:
        check_can_be_met(limits, network.space, output.policy_share)
    with interruptible(), first_interrupt_waits() as stop_if_asked, shown("scored", "trials") as bar:
        fresh: list[int] = []

        def on_event(event: Event) -> bool:
            fresh.append(event.trial.number)
            stop_if_asked()
            return False

        result = api.search(
            network,
            data,
            budget=limits,
            **vars(searching),
            scoring=scoring,
            study=where.url,
            study_name=where.study_name,
            running=replace(
                running,
                workers=workers,
                callbacks=[*callbacks, *output.callbacks, on_event],
                open_another=where.study is None,
            ),
            progress=bar,
        )
    if not fresh:
        say(f"Nothing to do: study {result.name!r} has its {len(result.trials)} trials.", aside=True)
    for note in result.notes:
        say(f"note: {note}", aside=True)
    answered = None if output.policy_share is None else answer(result, limits, output.policy_share)
    output.write(result, answered, data)
    asked = words_of(model, widths, images, budget, searching, scoring)
    kept = ["--study", show(where.url), "--study-name", result.name]
    result.follow_up.note(
        {
            "subject": {"network": model.model, "data": images.data, "task": data.goal.name},
            "command": ["prunesearch", "search", *asked, *kept],
        }
    )
    found = Found(result, network, where.url, output.out, answered)
    if printing.json:
        print_json(found.as_json())
    else:
        found.say(next_command(result, model, images, where.url, output.out))


@dataclass(frozen=True)
class Found:
    """What a search found, for people or for a program.

    Attributes:
        result: The result.
        network: What was searched.
        url: Of the database.
        out: Where the best network was written, if it was.
        answered: What the policy answered, if it was asked.
    """

    result: SearchResult
    network: Network
    url: str
    out: Path | None
    answered: Answer | None

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        from prunesearch.study.database import show as public

        result, judged = self.result, self.result.judged
        return {
            "study": public(self.url),
            "name": result.name,
            "trials": len(result.trials),
            "best": result.best.trial.facts(),
            "unpruned": self.network.space.cost(self.network.space.full).amounts,
            "judged": None if judged is None else vars(judged),
            "front": [winner.trial.facts() for winner in result.front()],
            "policy": None if self.answered is None else self.answered.as_json(),
            "notes": list(result.notes),
            "out": None if self.out is None else str(self.out),
        }

    def say(self, following: str) -> None:
        """For people.

        Args:
            following: The command that usually follows.
        """
        from prunesearch.study.database import show as public

        result, answered = self.result, self.answered
        say(str(result))
        if result.beside:
            say(f"Uniform widths under the same budget: {result.beside}.")
        say(f"Study {result.name!r} in {public(self.url)}.")
        if answered is not None:
            say(str(answered))
        if self.out is not None:
            say(f"Wrote {self.out}{'' if answered is None else ', the network of the policy'}.")
        kept = {"kept": result.best.structure, **({} if answered is None else {"policy": answered.structure})}
        table = Table("group", "width", *kept)
        for group, *widths in zip(self.network.space.groups, *kept.values(), strict=True):
            table.add_row(group.name, str(group.width), *map(str, widths))
        print_table(table)
        say(f"Next: {following}")
