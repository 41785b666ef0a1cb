"""A copy of a study for Optuna, its dashboard and its plots. Optuna's own storage is too slow to search with."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from prunesearch.errors import StudyUnreadable, StudyUnwritable
from prunesearch.study.store import Store
from prunesearch.study.tables import check_name
from prunesearch.trial import Trial
from prunesearch.urls import described

_DRAFT = "(being exported)"


def export_to_optuna(store: Store, name: str, target: str) -> int:
    """Copy a study: kept widths become parameters, cost and seconds user attributes, the score the value to maximise.

    Failed trials are failed there.

    Args:
        store: The database to read.
        name: A study in it.
        target: URL of Optuna's database, such as `sqlite:///optuna.db`; it must hold no study of this name.

    Returns:
        How many trials.

    Raises:
        ValueError: There is no such study, or the target has one of this name.
        StudyUnreadable: What is stored of the space does not fit the trials.
        StudyUnwritable: The target cannot be written.
    """
    check_name(store, name)
    distributions = _distributions(store, name)
    progress = store.progress(name)
    assert progress is not None
    trials, moment = [], datetime.datetime.fromisoformat(progress.created).replace(tzinfo=None)
    for trial in store.trials(name):
        end = moment + datetime.timedelta(seconds=trial.seconds)
        trials.append(_frozen(trial, distributions, moment, end))
        moment = end
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = described(target)
    try:
        _write(RDBStorage(target), name, progress.question, trials)
    except optuna.exceptions.DuplicatedStudyError:
        raise ValueError(
            f"The Optuna database {shown} has a study {name!r} already. Give another database, or delete that study."
        ) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError, RuntimeError) as error:
        raise StudyUnwritable(
            f"The Optuna database, {shown}, cannot be written: {type(error).__name__}. Expected a URL such as "
            '"sqlite:///optuna.db", a server that can be reached, and space on the disk.'
        ) from None
    finally:
        optuna.logging.set_verbosity(verbosity)
    return len(trials)


def _write(storage: RDBStorage, name: str, facts: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> None:
    """Write under another name first, so that the study appears whole or not at all; Optuna adds trial after trial."""
    try:
        if name in {study.study_name for study in storage.get_all_studies()}:
            raise optuna.exceptions.DuplicatedStudyError
        draft = optuna.create_study(storage=storage, study_name=f"{name} {_DRAFT} {uuid4().hex}", direction="maximize")
        for field, value in facts.items():
            draft.set_user_attr(field, value)
        draft.add_trials(trials)
        studies = sa.table("studies", sa.column("study_name"))
        renaming = sa.update(studies).where(studies.c.study_name == draft.study_name).values(study_name=name)
        with storage.engine.begin() as connection:
            connection.execute(renaming)
        _remove_drafts(storage, name)
    except sa.exc.IntegrityError:  # another export was first
        _remove_drafts(storage, name)
        raise optuna.exceptions.DuplicatedStudyError from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _remove_drafts(storage: RDBStorage, name: str) -> None:
    """What kills in the middle of exports left."""
    for study in storage.get_all_studies():
        if study.study_name.startswith(f"{name} {_DRAFT} "):
            storage.delete_study(study._study_id)


def _frozen(
    trial: Trial,
    distributions: Mapping[str, BaseDistribution],
    start: datetime.datetime,
    end: datetime.datetime,
) -> FrozenTrial:
    """A trial as Optuna keeps it. Only durations are recorded, so times are as if one had followed the other."""
    attributes: dict[str, Any] = {
        "macs": trial.cost.macs,
        "params": trial.cost.params,
        "seconds": trial.seconds,
        "searcher": trial.searcher,
        "evaluator": trial.evaluator,
        "worker": trial.worker,
    }
    if trial.failure is not None:
        attributes["failure"] = trial.failure
    if trial.images is not None:
        attributes |= {"images": trial.images, "error": trial.error}
    frozen = create_trial(
        state=TrialState.COMPLETE if trial.failure is None else TrialState.FAIL,
        value=trial.score,
        params=dict(zip(distributions, trial.structure, strict=True)),
        distributions=dict(distributions),
        user_attrs=attributes,
    )
    frozen.datetime_start, frozen.datetime_complete = start, end
    return frozen


def _distributions(store: Store, name: str) -> dict[str, BaseDistribution]:
    try:
        return {str(group["name"]): _distribution(group["widths"]) for group in store.space(name)["groups"]}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StudyUnreadable(
            f"{store.url}: the space of study {name!r} cannot be read ({type(error).__name__})."
        ) from None


def _distribution(widths: list[int]) -> BaseDistribution:
    """Evenly spaced widths are a range, others a choice."""
    steps = {after - before for before, after in pairwise(widths)}
    if len(steps) > 1:
        return CategoricalDistribution(widths)
    return IntDistribution(widths[0], widths[-1], step=steps.pop() if steps else 1)
