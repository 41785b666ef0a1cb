"""Prune a torchvision ResNet-18 that was trained on your images.

The images lie in folders by class, `DATA/train/cat/1.png` and so on, with a `DATA/test` beside if there is one. Without
--data, a tiny folder of made-up images shows the way.

    python docs/tutorials/resnet_on_your_images.py --data photos --weights trained.pt --macs 50%
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from torchvision import datasets, models
from torchvision.transforms import v2

import prunesearch as ps

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as the network was trained


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/CLASS/IMAGE, and test/CLASS/IMAGE if there is one")
    parser.add_argument("--weights", type=Path, help="state dict of a trained ResNet-18; without it, one is trained")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--macs", default="50%")
    parser.add_argument("--n-trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("resnet18"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, made-up images: seconds")
    return parser


def load(folder: Path, size: int) -> ps.Data:
    """Images as the network expects them: cropped and flipped at random to train, as they are to score."""
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    still = v2.Compose([v2.Resize(size), v2.CenterCrop(size), *finish])
    lively = v2.Compose([v2.RandomResizedCrop(size, scale=(0.5, 1.0)), v2.RandomHorizontalFlip(), *finish])
    test = folder / "test"
    return ps.Data(
        train=datasets.ImageFolder(folder / "train", lively),
        calibrate_on=datasets.ImageFolder(folder / "train", still),  # scores need the same images each time
        test=datasets.ImageFolder(test, still) if test.exists() else None,
    )


def make_up(folder: Path) -> Path:
    """Three classes of coloured noise, in place of photographs."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 24), ("test", 8)):
        for index, name in enumerate(("blue", "green", "red")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 128, (3, 40, 40), generator=generator, dtype=torch.uint8)
                pixels[2 - index] += 100
                v2.functional.to_pil_image(pixels).save(folder / part / name / f"{number}.png")
    return folder


def main(options: argparse.Namespace) -> None:
    if options.smoke:
        options.image_size, options.n_trials, options.epochs = 32, 4, 1
    with tempfile.TemporaryDirectory() as folder:
        data = load(options.data or make_up(Path(folder)), options.image_size)
        run(data, options)


def run(data: ps.Data, options: argparse.Namespace) -> None:
    images, labels = data.calibration_set()
    model = models.resnet18(num_classes=int(labels.max()) + 1)
    if options.weights is None:
        model = ps.finetune(model, data, recipe=ps.Recipe(epochs=options.epochs, batch_size=16, lr=0.02))
    else:
        ps.load_weights(model, options.weights)

    network = ps.trace(model, images[:2], round_to=8)  # convolutions of 8, 16, ... channels run fast
    print(network.explain())

    options.out.mkdir(parents=True, exist_ok=True)
    result = ps.search(
        network,
        data,
        budget=ps.Budget(macs=options.macs),
        n_trials=options.n_trials,
        study=f"sqlite:///{options.out / 'search.db'}",  # run again to continue
    )
    print(result)
    for note in result.notes:  # why scores may mean nothing
        print("note:", note)

    small = ps.finetune(
        result.best.build(),
        data,
        teacher=model,
        recipe=ps.Recipe(epochs=options.epochs, batch_size=16, lr=0.01),
        checkpoint=options.out / "small.checkpoint",
    )
    ps.save(small, options.out / "small.safetensors", example_inputs=images)
    again = ps.load(options.out / "small.safetensors", copy.deepcopy(model))  # any network of the same class will do
    print("MACs and parameters:", ps.count(model, images[:1]), "->", ps.count(again, images[:1]))
    if data.test is not None:
        pictures, classes = data.test_set()
        print(f"test accuracy: {ps.top1(model, pictures, classes):.1%} -> {ps.top1(again, pictures, classes):.1%}")


if __name__ == "__main__":
    main(arguments().parse_args())
