"""How long do two hundred structures of a detector take to be scored?

    pip install 'prunesearch[ultralytics]'
    python benchmarks/detector_speed.py --data-root DATA

A YOLOv8n with its head for blood cells (BCCD) at 320 pixels, at half of its multiply-accumulates. Structures are scored
as in every search, without training; the weights are random, which changes no time. The aim, written down before: 200
structures on 64 images each in at most 15 minutes, on two cores. Rows go to `results/detector_speed.json`; run again,
the program measures those that are missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import realdata
import tasks
from cells import conditions
from places import NETWORKS, written_bccd

import prunesearch as ps

OUT = Path(__file__).parent / "results" / "detector_speed.json"
PIXELS, STRUCTURES, IMAGES = 320, 200, 64
WAYS: Mapping[str, tuple[str, ps.Scoring]] = {
    "random, loss": ("random", ps.Scoring(images=IMAGES, race=False)),
    "random, fidelity": ("random", ps.Scoring(metric="fidelity", images=IMAGES, race=False)),
    "surrogate, loss": ("surrogate", ps.Scoring(images=IMAGES, race=False)),
    "surrogate in a race, loss": ("surrogate", ps.Scoring()),
}
"""The searcher, and what scores."""


def measured(network: ps.Network, data: ps.Data, way: str) -> dict[str, Any]:
    """One search."""
    searcher, scoring = WAYS[way]
    wall, cpu = time.perf_counter(), time.process_time()
    result = ps.search(network, data, budget="macs=50%", searcher=searcher, scoring=scoring, n_trials=STRUCTURES)
    return {
        "structures": len(result.trials),
        "images": sum(trial.images or 0 for trial in result.trials),
        "wall": round(time.perf_counter() - wall, 1),
        "cpu": round(time.process_time() - cpu, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    realdata.add_arguments(parser)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    package, (kind, effort) = importlib.import_module("ultralytics"), NETWORKS["yolo"]
    yolo = package.YOLO("yolov8n.yaml")
    yolo.model = kind(arguments.data_root, arguments.cache, effort, 0).narrower(1.0)
    task = ps.tasks.ultralytics(yolo, written_bccd(arguments.data_root, arguments.cache), imgsz=PIXELS)
    network = ps.trace(task.model, task.example_inputs)
    result = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    result["facts"] = {"pixels": PIXELS, **conditions(ultralytics=package.__version__)}
    for way in arguments.ways:
        if way not in result["rows"]:
            row = result["rows"][way] = measured(network, task.data, way)
            tasks.save(result, OUT)
            print(f"{way}: {row}", flush=True)


if __name__ == "__main__":
    main()
