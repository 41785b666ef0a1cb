"""Whether options can be met, found out before torch is imported, data are read and a network is traced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.cli.completion import METRICS
from prunesearch.files import check_is_writable_file, safetensors_path
from prunesearch.registry import check_name

if TYPE_CHECKING:
    from prunesearch.budget import Budget
    from prunesearch.contracts import Contract


def check_network(model: str | None, **files: Path | None) -> None:
    """Make sure that a model may be one, and that the files that belong to it are there.

    Args:
        model: What `--model` says.
        **files: By the names of their options.

    Raises:
        ValueError: It is none, or there is no such file.
    """
    from prunesearch.source_names import check_model

    if model is not None:
        check_model(model)
    for name, file in files.items():
        if file is not None and not file.is_file():
            raise ValueError(f"There is no file {file}, which --{name.replace('_', '-')} names.")


def check_data(data: str | None, validation: float | None = None) -> None:
    """Make sure that data may be some, and that a share of them can be held out.

    Raises:
        ValueError: They are none, or the share is out of range.
    """
    from prunesearch.source_names import check_data as check

    if data is not None:
        check(data)
    if validation is not None and not 0 < validation < 1:
        raise ValueError(f"Expected --validation as a share between 0 and 1, such as 0.1, got {validation}.")


def check_task(name: str | None) -> None:
    """Make sure that a task is one, as far as that can be told without running the user's file.

    Raises:
        ValueError: It is none, or there is no such file.
    """
    from prunesearch.source_names import function_of_file
    from prunesearch.tasks import TASK

    if name is None:
        return
    if name.partition(":")[0].endswith(".py"):
        function_of_file(name)
    else:
        check_named(TASK, name)


def check_metric(name: str | None, task: str | None, data: str) -> None:
    """Make sure that there is a metric, where it is known what for: of data and tasks that are no files of the user's.

    Raises:
        ValueError: There is none of this name.
    """
    from prunesearch.tasks import CLASSIFICATION

    if name is not None and task in (None, CLASSIFICATION) and ".py:" not in data:
        check_name(METRICS, name, "metric")


def check_named(contract: Contract, name: str) -> None:
    """Make sure that a name of a role stands for something, or that `package.module:attribute` can be imported.

    What is in the working folder can be imported, as if the command were a script there.

    Raises:
        ValueError: It does not, or cannot.
        TypeError: What it stands for cannot play the role.
    """
    from prunesearch.user_files import make_importable

    if ":" in name:
        make_importable(Path.cwd())
    contract.names.check(name)
    if name not in contract.names.own:
        contract.found(name)


def check_scoring(
    searcher: str,
    options: Mapping[str, Any],
    criterion: str,
    evaluator: str,
) -> None:
    """Make sure that there is everything that a search is told to use.

    Raises:
        ValueError: A name is unknown.
        TypeError: The searcher has no such option, or it is text instead of a number.
    """
    from prunesearch.evaluators import EVALUATOR
    from prunesearch.evaluators.channels import CRITERION
    from prunesearch.search import SEARCHER, check_searcher

    check_named(SEARCHER, searcher)
    check_named(CRITERION, criterion)
    check_named(EVALUATOR, evaluator)
    check_searcher(searcher, options)


def check_policy_share(searcher: str, share: float | None) -> None:
    """Make sure that there will be a policy that can be asked for a share of the budget.

    Raises:
        ValueError: The searcher learns no policy, or the share is out of range.
    """
    from prunesearch.ranges import number
    from prunesearch.search import WITH_POLICY, learns_policy

    if share is None:
        return
    number("--policy-share as a share of the budget", share, "(0, 1]")
    if not learns_policy(searcher):
        raise ValueError(
            f"--policy-share asks a policy, and the searcher {searcher} learns none. "
            f"Give --searcher {' or '.join(WITH_POLICY)}, or leave --policy-share out."
        )


def check_weight_source(option: str, name: str | None) -> None:
    """Make sure that a source of weights is one, and that its file is there.

    Raises:
        ValueError: It is none, has a file where none belongs, or the file is missing.
    """
    from prunesearch.evaluators import WEIGHT_SOURCE

    if name is None:
        return
    kind, colon, file = name.partition(":")
    if not WEIGHT_SOURCE.names.has(kind):
        check_named(WEIGHT_SOURCE, name)
        return
    check_named(WEIGHT_SOURCE, kind)
    if kind in WEIGHT_SOURCE.names.own and kind != "generated" and colon:
        raise ValueError(f"The weight source {kind!r} has no file, got {file!r}.")
    if kind == "generated" and not file:
        raise ValueError(f'Expected {option} as "generated:FILE"; got no file.')
    if file and not Path(file).is_file():
        raise ValueError(f"There is no file {file}, which {option} names.")


def check_study(url: str) -> None:
    """Make sure that a study may be kept there.

    Raises:
        ValueError: It is no URL of a database, and no file either.
        StudyUnreadable: It is damaged, of another program, of a newer release, or cannot be there.
    """
    from prunesearch.study.database import parse
    from prunesearch.study.store import look

    look(parse(url))


def budget_of(text: str, latency_table: Path | None = None, *, takes_table: bool = True) -> Budget:
    """The budget that options ask for.

    Args:
        text: What `--budget` says.
        latency_table: What `--latency-table` says.
        takes_table: Whether the command has such an option.

    Raises:
        ValueError: It is none, or one of the two is there without the other.
    """
    from prunesearch.budget import Budget, parse_limits
    from prunesearch.latency_table import LatencyTable

    limit = parse_limits(text).get("latency_ms")
    if limit is not None and not takes_table:
        raise ValueError(f"This command cannot limit latency_ms, got {text!r}. Limit macs or params.")
    if limit is not None and latency_table is None:
        raise ValueError(
            f"latency_ms={limit} is predicted from a table: give --latency-table FILE, which prunesearch latency makes."
        )
    if limit is None and latency_table is not None:
        raise ValueError(
            f"--latency-table is for a limit in milliseconds, such as --budget latency_ms=4; the budget is {text!r}."
        )
    return Budget.parse(text, None if latency_table is None else LatencyTable.load(latency_table))


def check_training_files(out: Path, checkpoint: Path | None, log: Path | None, tracker: Sequence[str] | None) -> None:
    """Make sure that what a training leaves can be written.

    Raises:
        ValueError: The network, the state or the log cannot, or there is a tracker without a log.
    """
    check_network_file(out)
    check_writable(state_of(out, checkpoint))
    check_folders(log=log)
    if tracker and log is None:
        raise ValueError("--tracker says how the log is written; name its folder with --log.")


def state_of(out: Path, checkpoint: Path | None) -> Path:
    """The file of a training's state: the one that is named, or one beside the network."""
    return checkpoint or out.with_name(out.name + ".checkpoint")


def check_writable(*files: Path | None) -> None:
    """Find out before hours of work whether files can be written after them.

    Raises:
        ValueError: One cannot.
    """
    for file in files:
        if file is None:
            continue
        check_is_writable_file(file)
        folder = Path(os.path.realpath(file)).parent if file.is_symlink() else file.parent
        if not folder.is_dir():
            raise ValueError(f"The folder {folder} of {file} does not exist. Make it first.")
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{file} cannot be written: there is no permission to write in {folder}. Name another.")


def check_network_file(file: Path | None) -> None:
    """Find out before hours of work whether a network can be written after them.

    Raises:
        ValueError: It cannot, or the file's name ends like that of another format.
    """
    if file is not None:
        check_writable(safetensors_path(file))


def check_folders(**folders: Path | None) -> None:
    """Find out at once whether folders can be made where options say.

    Args:
        **folders: By the names of the options.

    Raises:
        ValueError: A file is in the way.
    """
    for name, folder in folders.items():
        if folder is not None and (folder.exists() or folder.is_symlink()) and not folder.is_dir():
            raise ValueError(f"Expected --{name} as a folder; {folder} is a file. Name another.")
