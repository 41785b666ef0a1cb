"""The program of a local worker: make the scorers, then score what is sent until the driver is gone."""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from multiprocessing.connection import Connection

from prunesearch.study.packing import unpack
from prunesearch.study.scoring import score_all


def work(connection: int, payload: int) -> None:
    """Serve.

    Args:
        connection: Descriptor of the socket to the driver; messages are JSON.
        payload: Descriptor of a file with what `packing.pack` made; the driver's own, it has no name.
    """
    for descriptor in (connection, payload):
        os.set_inheritable(descriptor, False)
    line = Connection(connection)
    try:
        with mmap(payload, 0, access=ACCESS_READ) as packed:
            factory = unpack(packed)
        scorers = factory()
    except Exception:
        line.send_bytes(json.dumps({"failure": traceback.format_exc()}).encode())
        return
    line.send_bytes(json.dumps({"ready": True}).encode())
    while True:
        try:
            order = json.loads(line.recv_bytes())
        except EOFError:
            return
        outcomes = score_all(scorers[order["part"]], [tuple(structure) for structure in order["structures"]])
        line.send_bytes(json.dumps({"outcomes": [asdict(outcome) for outcome in outcomes]}).encode())
