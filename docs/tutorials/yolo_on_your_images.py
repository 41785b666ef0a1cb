"""Prune a YOLO of ultralytics until it takes so many milliseconds on this machine's CPU, train it on, and export it.

A yaml in the place of trained weights is an architecture: it is trained on your images first.

    python docs/tutorials/yolo_on_your_images.py --weights best.pt --data my.yaml --imgsz 320 --latency 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

import prunesearch as ps


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="what ultralytics trained, best.pt; or yolov8n.yaml")
    parser.add_argument("--data", required=True, help="images and boxes, as ultralytics describes them in a yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--latency", default="4", help="milliseconds for one image, or a share such as 60%%")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("yolo"))
    parser.add_argument("--smoke", action="store_true", help="few widths, trials and epochs: a minute")
    return parser


def main(options: argparse.Namespace) -> None:
    from ultralytics import YOLO  # pip install 'prunesearch[ultralytics]'

    where = {"data": options.data, "imgsz": options.imgsz, "project": str(options.out.resolve())}
    training = {**where, "epochs": 1 if options.smoke else options.epochs, "plots": not options.smoke}
    yolo = YOLO(options.weights)
    if options.weights.endswith(".yaml"):
        yolo.train(**training)
        yolo = YOLO(yolo.trainer.best)

    task = ps.tasks.ultralytics(yolo, options.data, imgsz=options.imgsz)
    network = ps.trace(task.model, task.example_inputs[:1], round_to=8)
    options.out.mkdir(parents=True, exist_ok=True)
    points = 2 if options.smoke else None  # widths of each layer that are timed
    table = ps.LatencyTable.measure(network, threads=1, points=points, file=options.out / "latency.json")

    limit = options.latency if options.latency.endswith("%") else float(options.latency)
    result = ps.search(
        network,
        task.data,
        budget=ps.Budget(latency_ms=limit, table=table),
        n_trials=3 if options.smoke else 200,
        build_with="reconstructed",
        study=f"sqlite:///{options.out / 'search.db'}",  # run again to continue
    )
    print(result)
    print(result.latency)  # predicted, and measured
    task.save(result.best.build(), options.out / "small.pt")

    small = YOLO(options.out / "small.pt")  # from here on all is ultralytics' own
    small.train(trainer=task.trainer, **training)
    print("mAP50-95:", small.val(plots=False, **where).results_dict["metrics/mAP50-95(B)"])
    print("exported:", small.export(format="onnx", imgsz=options.imgsz, simplify=False))


if __name__ == "__main__":
    main(arguments().parse_args())
