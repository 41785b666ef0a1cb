"""Whether options can be met, found out before torch is imported, data are read and a network is traced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesearch.cli.completion import METRICS
from prunesearch.files import check_is_writable_file, safetensors_path, same_file
from prunesearch.registry import check_name

if TYPE_CHECKING:
    from prunesearch.budget import Budget
    from prunesearch.contracts import Contract


def check_model(option: str, source: str) -> None:
    """Make sure that a model may be one.

    Args:
        option: That names it.
        source: What it says.

    Raises:
        ValueError: It is none.
    """
    from prunesearch.source_names import check_model as check

    check(source)


def check_files(option: str, files: Path | Sequence[Path]) -> None:
    """Make sure that files are there.

    Raises:
        ValueError: There is none.
    """
    for file in [files] if isinstance(files, Path) else files:
        if file.is_dir():
            raise ValueError(f"Expected {option} as a file, got the folder {file}.")
        if not file.is_file():
            raise ValueError(f"There is no file {file}, which {option} names.")


def check_data(option: str, source: str) -> None:
    """Make sure that data may be some.

    Raises:
        ValueError: They are none.
    """
    from prunesearch.source_names import check_data as check

    check(source)


def check_share(option: str, share: float) -> None:
    """Make sure that a share of the data can be held out.

    Raises:
        ValueError: It is out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected {option} as a share between 0 and 1, such as 0.1, got {share}.")


def check_task(option: str, name: str) -> None:
    """Make sure that a task is one, as far as that can be told without running the user's file.

    Raises:
        ValueError: It is none, or there is no such file.
    """
    from prunesearch.source_names import function_of_file, is_in_a_file
    from prunesearch.tasks import TASK

    if is_in_a_file(name):
        function_of_file(name)
    else:
        check_named(TASK, option, name)


def check_metric(name: str | None, task: str | None, data: str) -> None:
    """Make sure that there is a metric, where it is known what for: of data and tasks that are no files of the user's.

    Raises:
        ValueError: There is none of this name.
    """
    from prunesearch.tasks import CLASSIFICATION

    if name is not None and task in (None, CLASSIFICATION) and ".py:" not in data:
        check_name(METRICS, name, "metric")


def check_named(contract: Contract, option: str, given: str | Sequence[str]) -> None:
    """Make sure that names of a role stand for something, or that `package.module:attribute` can be imported.

    What is in the working folder can be imported, as if the command were a script there.

    Raises:
        ValueError: One does not, or cannot.
        TypeError: What one stands for cannot play the role.
    """
    from prunesearch.user_files import make_importable

    for name in [given] if isinstance(given, str) else given:
        if ":" in name:
            make_importable(Path.cwd())
        contract.names.check(name)
        if name not in contract.names.own:
            contract.found(name)


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


def check_weight_source(option: str, name: str) -> None:
    """Make sure that a source of weights is one, and that its file is there.

    Raises:
        ValueError: It is none, has a file where none belongs, or the file is missing.
    """
    from prunesearch.evaluators import WEIGHT_SOURCE

    kind, colon, file = name.partition(":")
    if not WEIGHT_SOURCE.names.has(kind):
        check_named(WEIGHT_SOURCE, option, name)
        return
    check_named(WEIGHT_SOURCE, option, kind)
    if kind in WEIGHT_SOURCE.names.own and kind != "generated" and colon:
        raise ValueError(f"The weight source {kind!r} has no file, got {file!r}.")
    if kind == "generated" and not file:
        raise ValueError(f'Expected {option} as "generated:FILE"; got no file.')
    if file and not Path(file).is_file():
        raise ValueError(f"There is no file {file}, which {option} names.")


def check_study_name(url: str, name: str) -> None:
    """Make sure that a database has a study.

    Raises:
        ValueError: It has none of this name; the message has those that there are.
        StudyUnreadable: The database cannot be read.
    """
    from contextlib import closing

    from prunesearch.study.store import Store
    from prunesearch.study.tables import check_name

    with closing(Store(url, create=False)) as store:
        check_name(store, name)


def check_study(url: str) -> None:
    """Make sure that a study may be kept there.

    Raises:
        ValueError: It is no URL of a database, and no file either.
        StudyUnreadable: It is damaged, of another program, of a newer release, or cannot be there.
    """
    from prunesearch.study.database import parse
    from prunesearch.study.store import look

    look(parse(url))


def budget_of(text: str, table: Path | None = None, *, has_table: bool = True) -> Budget:
    """The budget that options ask for.

    Args:
        text: What `--budget` says.
        table: What `--table` says.
        has_table: Whether the command has such an option.

    Raises:
        ValueError: It is none, or one of the two is there without the other.
    """
    from prunesearch.budget import Budget, parse_limits
    from prunesearch.resources import takes_table

    limits = parse_limits(text)
    predicted = next((name for name in limits if takes_table(name)), None)
    if predicted is not None and not has_table:
        raise ValueError(f"This command cannot limit {predicted}, got {text!r}. Limit macs or params.")
    if predicted is not None and table is None:
        maker = ", which prunesearch latency makes" if predicted == "latency_ms" else ""
        limit = f"{predicted}={limits[predicted]}"
        raise ValueError(f"{limit} is predicted from a table: give --table FILE{maker}.")
    if predicted is None and table is not None:
        raise ValueError(
            f"--table is for a limit that is predicted from one, such as --budget latency_ms=4; the budget is {text!r}."
        )
    return Budget.parse(text, table)


def check_training_files(out: Path, checkpoint: Path | None, log: Path | None, trackers: Sequence[str]) -> None:
    """Make sure that what a training leaves can be written.

    Raises:
        ValueError: The network or the state cannot, or there is a tracker without a log.
    """
    check_network_file(out)
    check_writable(state_of(out, checkpoint))
    if trackers and log is None:
        raise ValueError("--trackers says how the log is written; name its folder with --log.")


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


_READ = ("weights", "pruned", "table", "config", "study")
_NAMED = ("model", "data", "task", "searcher", "criterion", "evaluator", "verifiers", "weight_source", "build_with")
_WRITTEN = ("out", "checkpoint", "csv", "parquet", "optuna")
"""Options whose files are read, or go on being written; those that may name such a file, as `path/to/file.py:function`
and `generated:FILE` do; and those whose files are written."""

_OF_FOLDER = ("search.db", "finetune.safetensors", "pruned.safetensors")
"""What the whole job writes into its folder."""


def check_apart(given: Mapping[str, Any]) -> None:
    """Make sure that nothing is written over what the command reads, and no two things to one file.

    Args:
        given: What options were given, by their names with underscores; None: nothing.

    Raises:
        ValueError: Two options name the same file.
    """
    taken = [(name, file) for name in (*_READ, *_NAMED) for _, file in _files_of(name, given.get(name))]
    for name in (*_WRITTEN, "folder"):
        for value, file in _files_of(name, given.get(name)):
            twin = next((other for other, path in taken if same_file(path, file)), None)
            if twin is not None:
                what = "" if name != "folder" else f" writes {file}, which"
                raise ValueError(
                    f"{_dashed(name)} {value}{what} is the file of {_dashed(twin)}, and would replace it. Name another."
                )
            taken.append((name, file))


def _files_of(option: str, given: Any) -> Iterator[tuple[str, Path]]:
    """What was given to an option, with the files that it names."""
    for each in given if isinstance(given, (list, tuple)) else (given,):
        value = "" if each is None else str(each)
        if option == "folder" and value:
            yield from ((value, Path(value, name)) for name in _OF_FOLDER)
            continue
        file = _file_in(value) if option in _NAMED else value.removeprefix("sqlite:///")
        if file and "://" not in file:
            yield value, Path(file)


def _file_in(name: str) -> str:
    """The file in the name of a function or an object, or behind the kind of a source of weights; empty if none is."""
    from prunesearch.evaluators import WEIGHT_SOURCE

    place, _, _ = name.rpartition(":")
    kind, _, file = name.partition(":")
    return place if place.endswith(".py") else file if WEIGHT_SOURCE.names.has(kind) else ""


def _dashed(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def check_network_file(file: Path | None) -> None:
    """Find out before hours of work whether a network can be written after them.

    Raises:
        ValueError: It cannot, or the file's name ends like that of another format.
    """
    if file is not None:
        check_writable(safetensors_path(file))
