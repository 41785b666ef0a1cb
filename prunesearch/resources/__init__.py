"""Resources are what budgets limit: MACs, parameters, milliseconds, bytes, millijoules. One a file.

A resource makes a meter for one network, and the meter says what any of its structures costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prunesearch.contracts import Contract, kind_of
from prunesearch.registry import Registry, did_you_mean, parameters_of, resolve

if TYPE_CHECKING:
    from prunesearch.resources.resource import Metered, Resource, Subject

RESOURCES: Mapping[str, str] = {
    "macs": "prunesearch.resources.macs:MACs",
    "params": "prunesearch.resources.params:Parameters",
    "flops": "prunesearch.resources.flops:FLOPs",
    "latency_ms": "prunesearch.resources.latency:Latency",
    "peak_memory": "prunesearch.resources.peak_memory:PeakMemory",
    "energy_mj": "prunesearch.resources.energy:Energy",
}
RESOURCE = Contract(
    "Resource",
    Registry("resource", "prunesearch.resources", RESOURCES),
    methods=("meter(subject)",),
    attributes=("name", "unit", "is_count"),
    made_from="(), or (table=)",
)


def check_resource_name(name: str) -> None:
    """Make sure that a budget can limit something of this name; the package's own are not imported for that.

    Raises:
        ValueError: It cannot; the message has the list and the nearest name.
    """
    known = RESOURCE.names.names()
    if name in known or ":" in name:
        RESOURCE.names.check(name)
        return
    raise ValueError(f"A budget cannot limit {name!r}; it can limit {', '.join(known)}.{did_you_mean(name, known)}")


def takes_table(name: str) -> bool:
    """Whether a resource of this name is predicted from a table."""
    return "table" in parameters_of(RESOURCE.found(name))


def make_resource(name: str, given: Sequence[Any] = (), table: Any = None) -> Resource:
    """The resource that a budget calls by a name.

    Args:
        name: One of `RESOURCES`, or a name that an installed package adds (entry points, `prunesearch.resources`);
            `"package.module:attribute"`; or the name of one of the given objects.
        given: Objects, which come before names.
        table: What it is predicted from, for those that take one.

    Raises:
        ValueError: There is none of this name, and the message has the list; or it needs a table.
        ContractBroken: It has not all that a resource has.
    """
    for each in given:
        found: Resource = RESOURCE.make(each)
        if found.name == name:
            return found
    check_resource_name(name)
    maker = RESOURCE.found(name)
    takes = {"table": table} if "table" in parameters_of(maker) else {}
    made: Resource = RESOURCE.make(name, **takes)
    return made


def check_names(resources: Sequence[Resource]) -> None:
    """Make sure that each name means one resource, and the package's names mean the package's resources.

    Raises:
        ValueError: Two have one name, or one of somebody else's has a name of `RESOURCES`.
    """
    found: dict[str, Resource] = {}
    for each in resources:
        kind = resolve(RESOURCES, each.name, "resource") if each.name in RESOURCES else object
        if not isinstance(each, kind):
            raise ValueError(
                f"Expected {each.name} to be limited by the package's own resource of this name, got "
                f"{kind_of(each)}. Give that another name."
            )
        other = found.setdefault(each.name, each)
        if other is not each:
            raise ValueError(
                f"Expected resources of different names, got two of the name {each.name!r}: {kind_of(other)} and "
                f"{kind_of(each)}. Give one of them another name."
            )


def metered(resource: Resource, subject: Subject) -> Metered:
    """A resource with its meter, checked at the narrowest and at the full structure.

    Raises:
        ContractBroken: What it makes is no meter, or does not give one finite cost for each structure.
        ValueError: It needs more than was given, or the table that it is predicted from is too noisy.
    """
    from prunesearch.resources.resource import Metered, space_of

    meter: Any = resource.meter(subject)
    if not callable(getattr(meter, "costs", None)):
        raise RESOURCE.broken(
            resource, f"meter(subject) gave {kind_of(meter)}; expected a meter, with costs(structures)"
        )
    space = space_of(subject)
    found: Any = meter.costs(np.array([space.minimum, space.full]))
    costs = np.asarray(found)  # as `Metered.costs` has them
    wanted = np.integer if resource.is_count else np.number
    if costs.shape != (2,) or not np.issubdtype(costs.dtype, wanted) or not np.isfinite(costs).all() or costs[0] < 0:
        numbers = "whole numbers" if resource.is_count else "finite numbers"
        raise RESOURCE.broken(resource, f"costs(structures) gave {found!r} for 2 structures; expected {numbers} >= 0")
    if costs[0] > costs[1] and hasattr(resource, "table"):
        raise ValueError(
            f"The table of {resource.name} is too noisy: it predicts {costs[0]:.3g} {resource.unit} for the narrowest "
            f"structure, and {costs[1]:.3g} for the unpruned network. Measure again while the machine is idle."
        )
    if costs[0] > costs[1]:
        raise RESOURCE.broken(
            resource, f"the narrowest structure costs {costs[0]:,}, the unpruned {costs[1]:,}; expected no more"
        )
    return Metered(resource, meter)
