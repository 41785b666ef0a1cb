"""Packages as pip installs them, without pip: a module and what says that its distribution adds names."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, distribution: str, code: str, adds: Mapping[str, Mapping[str, str]]) -> None:
    """Put a module and the metadata of its distribution into a folder.

    Args:
        folder: To be on `sys.path`.
        distribution: Its name; that of the module has underscores.
        code: Of the module.
        adds: Per group of entry points, names and what stands for them in the module.
    """
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = []
    for group, names in adds.items():
        lines += [f"[{group}]", *(f"{name} = {module}:{attribute}" for name, attribute in names.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
