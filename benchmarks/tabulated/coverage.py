"""The tables of coverage.py: what can be traced and pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(result: Mapping[str, Any]) -> str:
    """What can be traced and pruned, by package and by network, with Torch-Pruning on the same ones beside."""
    rows = {name: row for name, row in result["rows"].items() if row.get("prune", {"made": False}).get("made", True)}
    facts = result["facts"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", *_packages(rows)) if name in facts)
    note = (
        f"{len(rows)} networks, random weights; {versions}. Seconds are those of one processor. "
        f"{_measured_with(facts['commits'])} "
        "*Traced*: of those that were tried within 240 s of a processor. "
        "*Verified*: differences below 1e-4 of the largest output in eval mode and below 1e-3 in training mode, and "
        "costs as torch counts them. *Removable*: the share of the MACs that the narrowest structure does without. The "
        "other columns count networks of those that were tried; what the unpruned network cannot do either is left out."
    )
    return "\n\n".join([note, _by_package(rows), _by_network(rows)])


def _measured_with(commits: Mapping[str, Mapping[str, int]]) -> str:
    """Of which state of the code each check says something."""
    checks = [
        f"{check.replace('_', '-')} with " + ", ".join(f"`{commit}` ({count})" for commit, count in found.items())
        for check, found in commits.items()
        if found
    ]
    return f"Commits that the checks ran with, and numbers of networks: {'; '.join(checks)}."


def _packages(rows: Mapping[str, Row]) -> list[str]:
    return list(dict.fromkeys(name.partition(":")[0].replace("_", "-") for name in rows))


def _by_package(rows: Mapping[str, Row]) -> str:
    if not rows:
        return "Not measured yet."
    lines = [
        "| package | networks | traced | verified | more than 85% removable | median seconds | trains | saved "
        "| `torch.export` | ONNX | Torch-Pruning runs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    packages = list(dict.fromkeys(name.partition(":")[0] for name in rows))
    for package in (*packages, ""):
        some = [row for name, row in rows.items() if name.startswith(f"{package}:" if package else "")]
        traced = [row["prune"] for row in some if row["prune"].get("traced")]
        seconds = sorted(found["seconds"] for found in traced)
        cells = [
            f"{len(some)}",
            f"{len(traced)}",
            f"{sum(map(verified, traced))}",
            f"{sum(found['removable'] > 0.85 for found in traced)}",
            f"{seconds[len(seconds) // 2]:.1f}" if seconds else "",
            *(_counted(some, check, key) for check, key in _OTHERS),
        ]
        lines.append(f"| {package or 'all'} | {' | '.join(cells)} |")
    return "\n".join(lines)


_OTHERS = (("use", "trains"), ("use", "saved"), ("export", "program"), ("export", "onnx"), ("torch_pruning", "runs"))


def _counted(rows: Sequence[Row], check: str, key: str) -> str:
    found = [row[check].get(key, False) for row in rows if check in row]
    known = [value for value in found if value is not None]
    return f"{sum(known)} of {len(known)}" if known else "not run"


def verified(found: Row) -> bool:
    """Whether a pruned network is what it should be, and costs what it should."""
    in_training = found["training_difference"]
    differs = found["difference"] > 1e-4 or (in_training is not None and in_training > 1e-3)
    return not differs and found["exact"] and found["counted"]


def _by_network(rows: Mapping[str, Row]) -> str:
    lines = [
        "| network | groups | removable MACs | traced in | eval mode | training mode | what stays, and why |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in rows.items():
        found = row["prune"]
        if not found.get("traced"):
            lines.append(f"| {name} | | refused | | | | {_short(found['reason'])} |")
            continue
        in_training = found["training_difference"]
        lines.append(
            f"| {name} | {found['groups']} | {found['removable']:.1%} | {found['seconds']:.1f} s "
            f"| {found['difference']:.0e} | {'' if in_training is None else format(in_training, '.0e')} "
            f"| {_why(found)} |"
        )
    return "\n".join(lines)


def _why(found: Row) -> str:
    """The reasons that cost something: those besides being an output, where much stays."""
    if found["removable"] > 0.85:
        return ""
    reasons = [why for why in found["frozen"].values() if not why.startswith("is an output")]
    leaves = [f"{name} is kept whole" for name in found["leaves"]]
    return _short("; ".join(dict.fromkeys([*leaves[:1], *reasons[:1]])) or "outputs of the network")


def _short(reason: str) -> str:
    return reason.split(". ")[0].replace("|", "/").replace("\n", " ")[:160]


def speed(result: Mapping[str, Any]) -> str:
    """How long tracing takes, beside earlier versions."""
    versions, facts = result["versions"], result["facts"]
    *before, now = versions
    names = [f"`{version['commit'].partition(' ')[0]}`" for version in before]
    subjects = [f"{name}: {version['commit'].partition(' ')[2]}." for name, version in zip(names, before, strict=True)]
    lines = [
        f"Seconds of one processor, the fewest of {facts['rounds']} rounds in turn; torch {facts['torch']}. "
        + " ".join(subjects),
        "",
        f"| network | {' | '.join(names)} | now | {' | '.join(f'now / {name}' for name in names)} |",
        "|---|" + "---:|" * (2 * len(before) + 1),
    ]
    ratios: list[list[float]] = [[] for _ in before]
    for name in now["seconds"]:
        seconds = [version["seconds"][name] for version in versions]
        shares = [seconds[-1] / some for some in seconds[:-1]]
        for ratio, share in zip(ratios, shares, strict=True):
            ratio.append(share)
        cells = [*(f"{some:.2f}" for some in seconds), *(f"{share:.1f}" for share in shares)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    middle = [sorted(ratio)[len(ratio) // 2] for ratio in ratios]
    lines.append(f"| median |{' |' * len(versions)} {' | '.join(f'{share:.1f}' for share in middle)} |")
    return "\n".join(lines)
