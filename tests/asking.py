"""Arguments of a search from one flat table of settings, so that a test's table of cases has a line per case."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import prunesearch as ps


def asking(**settings: Any) -> dict[str, Any]:
    """The arguments of `ps.search`: what `Scoring` and `Running` have goes there, everything else stays."""
    for name, kind in (("scoring", ps.Scoring), ("running", ps.Running)):
        own = {field.name for field in fields(kind)} & settings.keys()
        if own:
            settings[name] = kind(**{field: settings.pop(field) for field in sorted(own)})
    return settings
