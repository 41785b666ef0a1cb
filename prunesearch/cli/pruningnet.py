"""The command about generated weights: `pruningnet`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prunesearch.cli.checks import check_network_file
from prunesearch.cli.completion import FORMS, STARTS
from prunesearch.cli.console import print_json, say
from prunesearch.cli.flags import Group
from prunesearch.cli.running import first_interrupt_waits, interruptible, say_where, shown
from prunesearch.cli.values import (
    OUTPUT,
    TRAINING,
    DeviceOptions,
    ImageOptions,
    ModelOptions,
    PrintingOptions,
    SeedOptions,
    WidthOptions,
)
from prunesearch.registry import check_name
from prunesearch.training.settings import PruningNetRecipe

if TYPE_CHECKING:
    from prunesearch.models.network import Network
    from prunesearch.models.ranking import Ranking
    from prunesearch.training.data import Data
    from prunesearch.training.reports import StepReport


@dataclass(frozen=True, kw_only=True)
class Generators:
    """The network that generates weights (`prunesearch.PruningNet`).

    Attributes:
        form: compact, published, or supernet (the baseline).
        hidden: Units of the generators.
        rank: Rank of the matrix by which widths change the weights of the compact form.
        start: From trained weights, or from scratch.
        criterion: Which channels structures take.
    """

    form: str = "compact"
    hidden: int = 32
    rank: int = 8
    start: str = "trained"
    criterion: str | None = None

    def __post_init__(self) -> None:
        check_name(FORMS, self.form, "form")
        check_name(STARTS, self.start, "start")

    @property
    def settings(self) -> dict[str, Any]:
        """What the constructor of the network takes."""
        return {name: value for name, value in vars(self).items() if name != "criterion"}

    def ranking(self, network: Network, data: Data, seed: int) -> Ranking | None:
        """Which channels structures take; None: the first ones, where nothing is known of them."""
        from prunesearch.evaluators.channels import make_criterion

        criterion = self.criterion or ("l1" if self.start == "trained" else None)
        if criterion is None:
            return None
        return make_criterion(criterion, seed=seed).rank(network, data.examples_of(data.calibration_set()))


@dataclass(frozen=True, kw_only=True)
class PruningNetOutput:
    """What is output.

    Attributes:
        out: Where the PruningNet goes.
    """

    out: Path

    def __post_init__(self) -> None:
        check_network_file(self.out)


def pruningnet(
    model: ModelOptions,
    widths: WidthOptions,
    images: ImageOptions,
    generators: Annotated[Generators, Group(TRAINING, unset={"criterion": "l1; from scratch the first ones"})],
    recipe: Annotated[PruningNetRecipe, Group(TRAINING)],
    seed: SeedOptions,
    where: DeviceOptions,
    output: Annotated[PruningNetOutput, Group(OUTPUT)],
    printing: PrintingOptions,
) -> None:
    """Train a PruningNet, which gives every structure weights of its own. Run the same command again to continue.

    Then search with it: `prunesearch search ... --searcher evolution --weight-source generated:FILE`.

    Example: `prunesearch pruningnet --model zoo:resnet20 --weights w.pt --data digits --out net.safetensors`
    """
    rules = widths.rules
    from prunesearch.models.hypernet import PruningNet
    from prunesearch.models.trace import trace

    say_where(where.device)
    data = images.load()
    network = trace(model.loaded(data), data.examples(), **rules)
    ranking = generators.ranking(network, data, seed.seed)
    net = PruningNet(network, **generators.settings, ranking=ranking, seed=seed.seed)
    full = network.space.cost(network.space.full).params
    size = f"{net.size:,} parameters, {net.size / full:.1f} times the network's"
    say(f"{generators.form} form: {size}.", aside=printing.json)
    has_trained = _train(net, data, recipe, seed.seed, output.out, where.device)
    if printing.json:
        facts = {"out": str(output.out), "form": generators.form, "parameters": net.size, "network_parameters": full}
        print_json({**facts, "was_finished": not has_trained})
    else:
        done = "Trained" if has_trained else "Nothing to do, it is trained"
        say(f"{done}: {output.out}. Search with --weight-source generated:{output.out}")


def _train(net: Any, data: Data, recipe: PruningNetRecipe, seed: int, out: Path, device: str | None) -> bool:
    """Train with progress; whether there was anything to do."""
    from prunesearch.training.pruningnet import train_pruningnet

    steps: list[int] = []
    with (
        interruptible("Every step is kept"),
        first_interrupt_waits() as stop_if_asked,
        shown("training", "steps") as bar,
    ):

        def on_step(report: StepReport) -> None:
            steps.append(report.step)
            bar.update(report.step, report.steps, f"loss {report.loss:.4f}")
            stop_if_asked()

        train_pruningnet(net, data, recipe=recipe, seed=seed, file=out, on_step=on_step, device=device, progress=False)
    return bool(steps)
