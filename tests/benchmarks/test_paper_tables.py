"""Every protocol runs, on noise and small networks."""

from __future__ import annotations

import paper_tables
import pytest
from protocols import PROTOCOLS, Protocol

METHODS = {protocol.method: protocol for protocol in PROTOCOLS}


def test_no_two_protocols_share_a_cell() -> None:
    assert len({protocol.name for protocol in PROTOCOLS}) == len(PROTOCOLS)


def test_a_published_figure_has_a_source() -> None:
    for protocol in PROTOCOLS:
        assert protocol.published.text == "not found" or protocol.published.source.startswith("["), protocol.name


@pytest.mark.slow
@pytest.mark.parametrize("protocol", METHODS.values(), ids=METHODS)
def test_a_protocol_of_every_method_runs_and_meets_its_budget(protocol: Protocol) -> None:
    bench = paper_tables.smoke_bench()
    cell = paper_tables.KINDS[protocol.kind](bench, protocol)
    assert 0 <= cell["accuracy"] <= 1
    assert cell["macs"] <= 0.5 * cell["full macs"]
