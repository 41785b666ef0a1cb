"""Data in, trained networks out."""

from __future__ import annotations

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "digits": "prunesearch.training.digits:digits",
}
"""Data sets the command line knows by name."""
