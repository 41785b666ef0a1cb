"""Score structures on several machines with Ray.

On the first machine `ray start --head`, on each other one `ray start --address=HEAD:6379`, with prunesearch installed
everywhere; then, on any of them:

    python docs/tutorials/several_machines_with_ray.py --address auto --workers 32

Only scoring goes to the workers. The study is written here, by one process, and its history does not depend on how many
workers there were. Without --address, a cluster on this machine alone is started and ended.
"""

from __future__ import annotations

import argparse

import prunesearch as ps
from prunesearch.training.digits import digits


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a running cluster: auto, or ray://HEAD:10001")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--study", default="sqlite:///ray.db", help="on a team's server: postgresql://...")
    parser.add_argument("--n-trials", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="few trials and epochs")
    return parser


def main(options: argparse.Namespace) -> None:
    if options.smoke:
        options.n_trials, options.epochs = 12, 1
    data = digits()
    images, _ = data.test_set()
    model = ps.make_model("resnet20", in_channels=1, image_size=8)
    model = ps.finetune(model, data, recipe=ps.Recipe(epochs=options.epochs, lr=0.1), checkpoint="ray.checkpoint")

    workers = ps.Workers(
        options.workers,
        "ray",
        address=options.address,
        time_limit=120,  # seconds that one structure may take; then its worker is replaced
        max_retries=2,  # a worker that dies costs only what it was scoring
    )
    result = ps.search(
        ps.trace(model, images[:2]),
        data,
        budget=ps.Budget(macs="40%"),
        n_trials=options.n_trials,
        study=options.study,  # killed, the same command goes on
        running=ps.Running(workers=workers),
    )
    print(result)
    print("scored by", sorted({trial.worker for trial in result.trials if trial.worker}))


if __name__ == "__main__":  # workers import this file: what follows must not run there
    main(arguments().parse_args())
