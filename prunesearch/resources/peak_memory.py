"""Peak memory of a forward: bytes of weights and of the tensors that are alive at once, a lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from prunesearch.registry import resolve
from prunesearch.resources.resource import Meter, Subject
from prunesearch.structure import Space


@dataclass(frozen=True)
class PeakMemory:
    """Bytes that weights and tensors take at the most at once, for as many images as the network was traced with.

    Each result is given up after the operator that uses it last. A forward in Python may hold on to them longer, so
    this is a lower bound (`models.peak_memory`).
    """

    name = "peak_memory"
    unit = "bytes"
    is_count = True

    def meter(self, subject: Subject) -> Meter:
        """Follows the network's forward at a few widths; see `Resource`.

        Raises:
            ValueError: A space alone was given, or the network's tensors do not grow evenly with its widths.
        """
        if isinstance(subject, Space):
            raise ValueError(
                "The peak memory of a structure follows from the network, not from its space alone. Give the traced "
                "network: budget.check(network)."
            )
        makers = {"meter": "prunesearch.models.memory_model:MemoryModel"}
        made: Meter = resolve(makers, "meter", "meter")(subject)
        return made
