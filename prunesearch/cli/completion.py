"""What a shell completes as the value of an option. Nothing here may import torch: it is asked at every TAB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import closing

import typer

Complete = Callable[[str], list[str]]

METRICS = ("loss", "accuracy", "fidelity", "agreement", "metric")
FORMS = ("published", "compact", "supernet")
STARTS = ("trained", "scratch")
BACKENDS = ("eager", "inductor", "onnxruntime")
DEVICES = ("cpu", "cuda")
_FOR_SHELLS = re.compile(r"[\w ,.:()+%=@/-]+")  # no name from a file is a command once it stands on a command line


def one_of(names: Iterable[str]) -> Complete:
    """Completes to one of some names."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def weight_sources(incomplete: str) -> list[str]:
    """Names for `--weight-source`; that of a PruningNet goes on with a file."""
    from prunesearch.evaluators import WEIGHT_SOURCE

    names = WEIGHT_SOURCE.names.names()
    return one_of(f"{name}:" if name == "generated" else name for name in names)(incomplete)


def data_sets(incomplete: str) -> list[str]:
    """Names for `--data`."""
    from prunesearch.training import DATASETS

    return one_of(f"{name}:" if name == "imagefolder" else name for name in DATASETS)(incomplete)


def models(incomplete: str) -> list[str]:
    """Names for `--model`: the zoo's, and how others begin."""
    from prunesearch.models.zoo import ZOO

    kinds = ("zoo:", "torchvision:", "timm:")
    return one_of([f"zoo:{name}" for name in ZOO] if incomplete.startswith("zoo:") else kinds)(incomplete)


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the studies of the database that `--study` names."""
    from prunesearch.errors import PruneSearchError
    from prunesearch.study.store import Store

    try:
        with closing(Store(context.params.get("study") or "", create=False)) as store:
            return one_of(name for name in store.studies() if _FOR_SHELLS.fullmatch(name))(incomplete)
    except (PruneSearchError, ValueError):  # a shell that completes has no place for sentences
        return []
