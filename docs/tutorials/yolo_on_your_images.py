"""Prune a YOLO of ultralytics until it takes so many milliseconds on this machine's CPU, then train it on.

python docs/tutorials/yolo_on_your_images.py --weights best.pt --data my.yaml --imgsz 320 --latency 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

import prunesearch as ps


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="what ultralytics trained, best.pt")
    parser.add_argument("--data", type=Path, required=True, help="what it was trained on, a yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--latency", default="4", help="milliseconds for one image, or a share such as 60%%")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("yolo"))
    parser.add_argument("--smoke", action="store_true", help="few widths, trials and epochs: a minute")
    return parser


def main(options: argparse.Namespace) -> None:
    from ultralytics import YOLO  # pip install 'prunesearch[ultralytics]'

    if options.smoke:
        options.n_trials, options.epochs, options.latency = 3, 1, "90%"
    task = ps.tasks.ultralytics(YOLO(options.weights), options.data, imgsz=options.imgsz)
    network = ps.trace(task.model, task.example_inputs[:1], round_to=8)

    options.out.mkdir(parents=True, exist_ok=True)
    points = 2 if options.smoke else None
    table = ps.LatencyTable.measure(network, threads=1, points=points, file=options.out / "latency.json")
    limit = options.latency if options.latency.endswith("%") else float(options.latency)
    result = ps.search(
        network,
        task.data,
        budget=ps.Budget(latency_ms=limit, table=table),
        n_trials=options.n_trials,
        build_with="reconstructed",
        study=f"sqlite:///{options.out / 'search.db'}",
    )
    print(result)
    print(result.latency)
    task.save(result.best.build(), options.out / "small.pt")

    small = YOLO(options.out / "small.pt")
    where = {"data": str(options.data), "imgsz": options.imgsz, "project": str(options.out.resolve())}
    small.train(trainer=task.trainer, epochs=options.epochs, amp=not options.smoke, plots=not options.smoke, **where)
    print(small.export(format="onnx", imgsz=options.imgsz, simplify=not options.smoke))


if __name__ == "__main__":
    main(arguments().parse_args())
