"""Every way to call the command line wrong ends with one sentence, status 2, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from prunesearch.cli import app
from prunesearch.cli.commands import PANELS
from prunesearch.cli.running import say_where
from prunesearch.models import devices
from tests.cli.calls import BUDGET, LATENCY, NETWORK, SEARCH, Call

PRUNED = (*NETWORK, *BUDGET)
WRONG = {
    "infeasible budget": ((*SEARCH[:-1], "macs=0.1%"), "The space reaches from"),
    "count without its sign": ((*SEARCH[:-1], "macs=50"), 'min_channels or round_to. Did you mean "macs=50%"?'),
    "budget with a colon": ((*SEARCH[:-1], "macs:50%"), 'got \'macs:50%\'. Did you mean "macs=50%"?'),
    "module for a file": (("explain", "--model", "mine:model"), "got 'mine:model'. Did you mean mine.py:model?"),
    "path with a colon": (("explain", "--model", "C:/nets/mine.py:model"), "There is no file 'C:/nets/mine.py' to"),
    "unreadable budget": ((*SEARCH[:-1], "macs=lots"), "Expected macs as a count of at least 1 or a share such as"),
    "unknown searcher": ((*SEARCH, "--searcher", "magic"), "there are uniform, random, evolution"),
    "option that is none": ((*SEARCH, "--options", "population"), "Expected --options as NAME=VALUE"),
    "option of another searcher": ((*SEARCH, "--options", "sampler=tpe"), "sampler"),
    "unknown criterion": ((*SEARCH, "--criterion", "magic"), "there are l1, l2, bn_scale"),
    "unknown weight source": ((*SEARCH, "--weight-source", "magic"), "there are inherited, compensated"),
    "unknown metric": ((*SEARCH, "--metric", "magic"), "there are loss, accuracy, fidelity, agreement, metric"),
    "unknown data": ((*SEARCH[:5], "--data", "magic", *BUDGET), "Unknown data set 'magic'"),
    "unknown zoo network": (("explain", "--model", "zoo:resnet21"), "Did you mean 'resnet"),
    "unknown torchvision network": (("explain", "--model", "torchvision:resnt"), "torchvision has no network"),
    "unknown kind of model": (("explain", "--model", "resnet20"), "Expected a model as zoo:NAME"),
    "missing model file": (("explain", "--model", "no.py:model"), "There is no file 'no.py'"),
    "missing function": (("explain", "--model", "mine.py:no"), "mine.py has no function 'no'"),
    "function that gives no model": (("explain", "--model", "mine.py:number"), "got int"),
    "shape that is none": (("explain", "--model", "zoo:resnet8", "--input", "large"), "Expected an input shape"),
    "images it cannot take": (("explain", "--model", "mine.py:model"), "fails on example_inputs of shape"),
    "control flow on data": (("explain", "--model", "mine.py:branching", "--input", "1x1x8x8"),
                             "module '1' decides by the values of its data"),
    "missing weights": ((*SEARCH[:4], "no.pt", *SEARCH[5:]), "no.pt, which --weights names"),
    "foreign weights": ((*SEARCH[:4], "mine.py", *SEARCH[5:]), "mine.py is damaged, or holds more than tensors"),
    "weights of another network": (("explain", "--model", "zoo:resnet20", "--input", "1x1x8x8", "--weights",
                                    "w.safetensors"), "is not of ResNet: missing layer1.1.conv1.weight"),
    "foreign study": ((*SEARCH, "--study", "sqlite:///foreign.db"), "cannot be read as a study"),
    "missing study": (("status", "--study", "sqlite:///no.db"), "There is no study file no.db"),
    "url that is none": (("status", "--study", "studies"), 'Expected a study URL such as "sqlite:///search.db"'),
    "url of another server": ((*SEARCH, "--study", "mysql://x/y"), 'or "postgresql://USER@SERVER/NAME", or a file'),
    "study as a file": (("status", "--study", "no.db"), "There is no study file no.db"),
    "study that is not there": (("show", "--study", "sqlite:///no.db"), "There is no study file no.db"),
    "study of another name": (("delete", "--study", "sqlite:///known.db", "--study-name", "x", "--yes"), "'x'"),
    "export of nothing": (("export",), "Expected --model and --out to export a network"),
    "export to nowhere": (("export", "--study", "sqlite:///known.db"), "--optuna URL, --csv FILE or --parquet FILE"),
    "resource that is none": (
        (*SEARCH[:-1], "memory=50%"),
        "it can limit macs, params, flops, latency_ms, peak_memory, energy_mj.",
    ),
    "limit given twice": ((*SEARCH[:-1], "macs=50%,macs=40%"), "The budget limits macs twice, to 50% and to 40%."),
    "table without a limit": ((*SEARCH, "--table", "mine.py"), "for a limit that is predicted from one"),
    "latency without a table to give": (("paam", *PRUNED[:-1], "latency_ms=4", "--out", "t.st"), "cannot limit"),
    "folder of images as data": ((*SEARCH[:5], "--data", "photos", *BUDGET), "Did you mean imagefolder:photos?"),
    "name of a known network": (("explain", "--model", "resnet18"), "Did you mean torchvision:resnet18?"),
    "name of two networks": (("explain", "--model", "vgg11"), "Did you mean zoo:vgg11 or torchvision:vgg11?"),
    "no trials": ((*SEARCH, "--n-trials", "0"), "Expected --n-trials as a whole number >= 1, got '0'."),
    "trials that are no number": ((*SEARCH, "--n-trials", "ten"), "--n-trials as a whole number >= 1, got 'ten'."),
    "trials that are no whole number": ((*SEARCH, "--n-trials", "1e3"), "as a whole number >= 1, got '1e3'."),
    "time that is no number": ((*SEARCH, "--timeout", "1h"), "Expected --timeout as a number, got '1h'."),
    "time that is not any": ((*SEARCH, "--timeout", "nan"), "Expected --timeout as a number, got 'nan'."),
    "rate that is no number": (("finetune", *NETWORK, "--out", "t.st", "--lr", "big"), "--lr as a number, got 'big'."),
    "no images": ((*SEARCH, "--images", "0"), "Expected images >= 1, got 0."),
    "no time": ((*SEARCH, "--timeout", "0"), "a time above 0 s"),
    "no epochs": (("finetune", *NETWORK, "--out", "t.st", "--epochs", "0"), "Expected epochs >= 1, got 0."),
    "no images per step": (("paam", *PRUNED, "--out", "t.st", "--batch-size", "1"), "batch_size >= 2, got 1."),
    "share of validation": (("finetune", *NETWORK, "--out", "t.st", "--validation", "2"), "Expected --validation"),
    "unknown evaluator": ((*SEARCH, "--evaluator", "magic"), "there are accuracy, adaptive_bn, precise_bn"),
    "missing PruningNet": ((*SEARCH, "--weight-source", "generated:no.st"), "no.st, which --weight-source names"),
    "PruningNet of no file": ((*SEARCH, "--build-with", "generated"), 'Expected --build-with as "generated:FILE"'),
    "augmentation that is none": (("finetune", *NETWORK, "--out", "t.st", "--augmentation", "x"), "Expected an au"),
    "missing pruned network": (("finetune", *NETWORK, "--out", "t.st", "--pruned", "no.st"), "which --pruned"),
    "unknown form": (("pruningnet", *NETWORK, "--out", "t.st", "--form", "magic"), "there are published, compact"),
    "file without a function": (("explain", "--model", "mine.py"), "Expected path/to/file.py:function"),
    "no workers": ((*SEARCH, "--workers", "0"), "at least one worker"),
    "unknown executor": ((*SEARCH, "--executor", "magic"), "there are auto, inline, processes, ray"),
    "time limit without workers": ((*SEARCH, "--executor", "inline", "--time-limit", "3"), "Use the executor"),
    "address without a cluster": ((*SEARCH, "--address", "auto"), "settings of the executor 'ray'"),
    "server without a name": ((*SEARCH, "--study", "postgresql://me:secret@host"), "names no database"),
    "report without a study": (("report", "--study", "sqlite:///no.db"), "There is no study file"),
    "minimum that is no number": (("explain", "--model", "zoo:resnet8", "--min-channels", "few"), "got 'few'"),
    "multiple that is no number": (("explain", "--model", "zoo:resnet8", "--round-to", "stem=x"), "got 'stem=x'"),
    "glob of no layer": (("explain", "--model", "zoo:resnet8", "--round-to", "stem.*=8"), "matches 'stem.*'"),
    "multiple of nothing": (("explain", "--model", "zoo:resnet8", "--round-to", "0"), "a count >= 1, such as 8, alone"),
    "minimum between counts": (("explain", "--model", "zoo:resnet8", "--min-channels", "2.5"), "a fraction in (0, 1]"),
    "a single layer tied": (("explain", "--model", "zoo:resnet8", "--tied-layers", "conv1"), "two names or more, such"),
    "unknown timm network": (("explain", "--model", "timm:nope"), "timm"),
    "export to nowhere known": (("export", "--model", "zoo:resnet8", "--out", "e.pkl"), "NAME.onnx or NAME.pt2"),
    "latency without a table": ((*SEARCH[:-1], "latency_ms=4"), "give --table FILE"),
    "energy without a table": ((*SEARCH[:-1], "energy_mj=4"), "energy_mj=4 is predicted from a table: give --table"),
    "energy table that is none": ((*SEARCH[:-1], "energy_mj=4", "--table", "mine.py"), "is no energy table"),
    "latency table that is none": ((*SEARCH[:-1], "latency_ms=4", "--table", "mine.py"), "is not JSON"),
    "missing latency table": ((*SEARCH[:-1], "latency_ms=4", "--table", "no.json"), "no.json"),
    "unknown backend": ((*LATENCY, "--backend", "magic"), "there are eager, inductor, onnxruntime"),
    "too many threads": ((*LATENCY, "--threads", "4096"), "threads, as many as this process may use"),
    "files for nobody": ((*LATENCY, "--onnx", "o"), "name that with --remote"),
    "nothing to compare with": (("verify", "--model", "zoo:resnet8", "--table", "mine.py"), "with --pruned"),
    "option with a typo": ((*SEARCH, "--searcher", "evolution", "--options", "populatoin=3"), "Did you mean 'popul"),
    "option that wants a number": ((*SEARCH, "--searcher", "evolution", "--options", "parents=few"), "a number such"),
    "policy of a searcher without one": ((*SEARCH, "--policy-share", "0.8"), "surrogate learns none. Give --searcher"),
    "policy for more than all": ((*SEARCH, "--policy-share", "2"), "--policy-share as a share of the budget in (0, 1]"),
    "policy for less than anything": ((*SEARCH, "--searcher", "conditional", "--policy-share", "0.001"),
                                      "A share of 0.001 of the budget"),
    "folder that is a file": ((*SEARCH, "--tensorboard", "mine.py"), "Expected --tensorboard as a folder"),
    "output in no folder": ((*SEARCH, "--out", "no/small.st"), "The folder no of no/small.st does not exist"),
    "output that is a folder": (("finetune", *NETWORK, "--out", "."), ". is a folder; expected a file"),
    "search into another format": ((*SEARCH, "--out", "s.pt"), "ends in .safetensors, the format of the file"),
    "training into another format": (("finetune", *NETWORK, "--out", "t.pth"), "got t.pth, which other programs"),
    "generator into another format": (("pruningnet", *NETWORK, "--out", "g.bin"), "got g.bin, which other"),
    "images of no known shape": (("export", "--model", "zoo:resnet8", "--out", "e.onnx"), "Expected --input, the"),
    "export of no file": (("export", "--model", "zoo:resnet8", "--pruned", "no.st", "--out", "e.onnx"), "no.st"),
    "export of no weights": (("export", "--model", "zoo:resnet8", "--weights", "no.st", "--out", "e.onnx"),
                             "There is no file no.st, which --weights names"),
    "data without their folder": ((*SEARCH[:5], "--data", "cifar10", *BUDGET), "There is no cifar10 in data"),
    "data with a foreign option": ((*SEARCH, "--image-size", "32"), "it takes --calibration. Leave the option out."),
    "image folder without a folder": ((*SEARCH[:5], "--data", "imagefolder", *BUDGET), "imagefolder:FOLDER"),
    "image folder without classes": ((*SEARCH[:5], "--data", "imagefolder:.", *BUDGET), "Expected . to have the"),
    "code that fails": (("explain", "--model", "mine.py:fails"), "mine.py:fails failed, line 15: ZeroDivisionError"),
    "code that fails, from here": (("explain", "--model", "./mine.py:fails"), "failed, line 15: ZeroDivisionError"),
    "tracker of no log": (("finetune", *NETWORK, "--out", "t.st", "--trackers", "csv"), "its folder with --log"),
    "code that cannot be read": (("explain", "--model", "foreign.py:model"), "SyntaxError"),
    "function with a typo": (("explain", "--model", "mine.py:modle"), "Did you mean 'model'?"),
    "images that are no numbers": ((*SEARCH[:2], "mine.py:model", "--data", "mine.py:holes", *BUDGET), "hold NaN"),
    "no classes": (("explain", "--model", "zoo:resnet8", "--num-classes", "0"), "Expected --num-classes as a whole"),
    "device of another machine": ((*LATENCY, "--device", "tpu"), "Expected device as one that torch has here"),
    "searcher of no module": ((*SEARCH, "--searcher", "no_such:Walker"), "There is no module 'no_such' to take"),
    "searcher with a typo": ((*SEARCH, "--searcher", "roles:Wakler"), "roles has no 'Wakler' to take as the searche"),
    "searcher of no file": ((*SEARCH, "--searcher", "no.py:Walker"), "There is no file 'no.py' to take the searcher"),
    "searcher that cannot be told": ((*SEARCH, "--searcher", "roles:silent"), "contract Searcher: it has no tell"),
    "option that its class has not": ((*SEARCH, "--searcher", "roles:Walker", "--options", "x=3"), "no option 'x'"),
    "criterion that is a number": ((*SEARCH, "--criterion", "mine:number"), "cannot be made from (seed=)"),
    "weights of no module": ((*SEARCH, "--weight-source", "no_such:source"), "There is no module 'no_such'"),
    "winner's weights with a typo": ((*SEARCH, "--build-with", "roles:sourse"), "Did you mean 'source'?"),
    "evaluator that fails": ((*SEARCH, "--evaluator", "foreign:Judge"), "cannot be imported: SyntaxError"),
    "unknown verifier": ((*SEARCH, "--verifiers", "magic"), "there are latency"),
    "unknown optimizer": (("finetune", *NETWORK, "--out", "t.st", "--optimizer", "lion"), "sgd, adamw, got 'lion'"),
    "option of a criterion that is none": ((*SEARCH, "--criterion-options", "x"), "Expected --criterion-options"),
    "negative seed": ((*SEARCH, "--seed", "-1"), "--seed"),
    "no structures to verify": (("verify", "--model", "zoo:resnet8", "--n", "0"), "--n"),
    "teacher's precision": (("finetune", *NETWORK, "--out", "t.st", "--precision", "fp8"), "fp32, bf16, fp16, got"),
    "patience without validation": (("finetune", *NETWORK, "--out", "t.st", "--patience", "2"), "validation"),
    "too few epochs": (("paam", *PRUNED, "--out", "t.st", "--epochs", "2"), "at least 3 epochs with live scores"),
    "setting of no method": (("paam", *PRUNED, "--out", "t.st", "--shar", "1"), "--share"),
    "no sets of channels": (("layerwise", *PRUNED, "--out", "t.st", "--scored", "0"), "Expected scored >= 1"),
    "gates on parameters": (("manidp", *PRUNED[:-1], "params=50%", "--out", "t.st"), "Expected a budget of MACs only"),
    "comparison of nothing": (("compare",), "Expected --model with --pruned, or --study"),
    "comparison without a model": (("compare", "--pruned", "w.safetensors"), "need --model"),
    "comparison of an empty database": (("compare", "--study", "sqlite:///known.db"), "There are no studies in"),
    "report of no such study": (("report", "--study", "sqlite:///known.db", "--study-names", "x"), "no study 'x' in"),
    "watching as JSON": (("status", "--study", "sqlite:///known.db", "--watch", "1", "--json"), "one of the two"),
    "watching never again": (("status", "--study", "sqlite:///known.db", "--watch", "inf"), "in (0, 86400], got inf"),
    "watching without a break": (("status", "--study", "sqlite:///known.db", "--watch", "0"), "in (0, 86400], got 0"),
    "study as a network": (("export", "--study", "sqlite:///known.db", "--out", "n.onnx"), "--out is for a network"),
    "network as a study": (("export", "--model", "zoo:resnet8", "--csv", "t.csv"), "are for a study"),
    "table of another kind": (("export", "--study", "sqlite:///known.db", "--csv", "t.txt"), "--csv as NAME.csv"),
    "demo into a file": (("demo", "--out", "mine.py"), "Expected --out as a folder"),
    "no model": (("search", "--data", "digits", "--budget", "macs=50%"), "Missing option '--model'"),
    "missing config": ((*SEARCH, "--config", "no.toml"), "There is no config file no.toml"),
    "unknown option": (("explain", "--nonsense"), "No such option"),
    "word for the model": (("explain", "--network", "zoo:resnet8"), "such option: --network. Did you mean --model?"),
    "word for an option of another command": (("explain", "--macs", "50%"), "such option: --macs. See: prunesearch ex"),
    "unknown command": (("nonsense",), "No such command"),
    "option before the command": (("--model", "zoo:resnet8"), "Options follow a command, as in prunesearch expla"),
    "option without its value": (
        ("search", "--model"),
        "Expected a value after --model, as in --model NAME; got none. See: prunesearch search --help",
    ),
    "model without its option": (("explain", "zoo:resnet8"), "timm:NAME, or path/to/file.py:function. Did you mean"),
    "study without its option": (("show", "--json", "s.db"), "Did you mean --study s.db? See: prunesearch show --help"),
    "value of no option": ((*SEARCH, "extra"), "Expected each value after its option, got 'extra' without one. See: "),
    "data of a command that wants a shape": (
        ("explain", "--model", "zoo:resnet8", "--data", "digits"),
        "No such option: --data. Did you mean --input? See: prunesearch explain --help",
    ),
    "underscores": ((*SEARCH, "--round_to", "8"), "such option: --round_to. Did you mean --round-to? See"),
    "study of a command with a folder": (
        ("prune", *NETWORK, *BUDGET, "--study", "s.db"),
        "No such option: --study. Did you mean --folder? See: prunesearch prune --help",
    ),
    "capital letters": ((*SEARCH, "--criterion", "L1"), "package.module:attribute. Did you mean 'l1'?"),
    "report over the studies": (("report", "--study", "known.db", "--out", "known.db"),
                                "--out known.db is the file of --study, and would replace it. Name another."),
    "report over weights": (("report", "--study", "known.db", "--out", "w.safetensors"), "a name that ends in .html"),
    "training over its weights": (("finetune", *NETWORK, "--out", "w.safetensors"), "is the file of --weights"),
    "training over its data": (("finetune", *NETWORK[:5], "mine.py:data", "--out", "mine.py"), "got mine.py, which"),
    "training over its state": (("finetune", *NETWORK, "--out", "t.st", "--checkpoint", "t.st"), "the file of --out"),
    "search over generated weights": ((*SEARCH, "--weight-source", "generated:pn.st", "--out", "pn.st"),
                                      "--out pn.st is the file of --weight-source, and would replace it."),
    "search over what it builds with": ((*SEARCH, "--build-with", "generated:pn.st", "--out", "./pn.st"),
                                        "--out pn.st is the file of --build-with, and would replace it."),
    "job over its weights": (("prune", *NETWORK[:3], "pruned/pruned.safetensors", *NETWORK[4:], *BUDGET),
                             "--folder pruned writes pruned/pruned.safetensors, which is the file of --weights, and"),
    "export over its study": (("export", "--study", "sqlite:///known.db", "--optuna", "sqlite:///./known.db"),
                              "--optuna sqlite:///./known.db is the file of --study, and would replace it."),
    "table over its config": ((*LATENCY[:-1], "keys.toml", "--config", "keys.toml"), "is the file of --config"),
    "search over its study": ((*SEARCH, "--out", "search.db"), "got search.db, which other programs would read as"),
    "folder of weights": ((*SEARCH[:4], ".", *SEARCH[5:]), "Expected --weights as a file, got the folder ."),
    "dash of a word processor": (("explain", "\u2014model", "zoo:resnet8"), "Did you mean --model, with two hyphens?"),
    "dash of another": ((*SEARCH, "\u2013seed", "1"), "got '\u2013seed' without one. Did you mean --seed, with two"),
    "number for a function": (("explain", "--model", "mine.py:ten"), "'ten' in mine.py as a function, got int"),
    "function that gives no data": (("finetune", *NETWORK[:5], "mine.py:number", "--out", "t.st"),
                                    "got int. Write return prunesearch.Data(train=..., test=...) at its end."),
    "test images with labels from 1": (("finetune", *NETWORK[:5], "mine.py:from_one", "--out", "t.st"),
                                       "The test examples do not fit the network. Expected labels from 0 to 9"),
    "graphics card of another name": ((*SEARCH, "--device", "gpu"), "torch knows no such kind; a GPU is cuda."),
}  # fmt: skip
ON_A_DEVICE = {
    "search": SEARCH, "prune": ("prune", *SEARCH[1:7], *BUDGET), "finetune": ("finetune", *NETWORK, "--out", "t.st"),
    "pruningnet": ("pruningnet", *NETWORK, "--out", "g.st"), "paam": ("paam", *PRUNED, "--out", "t.st"),
    "manidp": ("manidp", *PRUNED, "--out", "t.st"), "layerwise": ("layerwise", *PRUNED, "--out", "t.st"),
    "compare": ("compare", *NETWORK, "--pruned", "w.safetensors"), "latency": LATENCY,
}  # fmt: skip
"""Every command that has a device."""
NO_GPU = "Expected device as one that torch has here, such as cpu; got 'cuda:99': there is "
WRONG |= {
    f"GPU that is not here, {name}": ((*call, "--device", "cuda:99"), NO_GPU) for name, call in ON_A_DEVICE.items()
}


WITH_TORCH = {
    "infeasible budget", "unknown torchvision network", "missing function", "function that gives no model",
    "images it cannot take", "control flow on data", "foreign weights", "weights of another network",
    "glob of no layer", "unknown timm network", "too many threads", "data with a foreign option",
    "image folder without classes", "data without their folder", "code that fails", "code that fails, from here",
    "code that cannot be read", "function with a typo", "images that are no numbers", "device of another machine",
    "patience without validation", "name of a known network", "name of two networks", "export to nowhere known",
    "comparison of an empty database", "policy for less than anything", "criterion that is a number",
    "searcher with a typo", "searcher that cannot be told", "option that its class has not",
    "winner's weights with a typo", "count without its sign", "graphics card of another name",
    "number for a function", "function that gives no data", "test images with labels from 1",
    *(f"GPU that is not here, {name}" for name in ON_A_DEVICE),
}  # fmt: skip
"""Calls that are seen to be wrong only once there is a network, data, a study, or a list of what torchvision has."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that SQLite keeps beside a database while somebody reads it."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_a_sentence_and_status_2_and_writes_nothing(
    call: Call, folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    before = contents(folder)
    run = call(*arguments)
    assert run.returncode == 2, run.stderr
    assert sentence in " ".join(run.stderr.split())
    assert run.stderr.startswith("error: ")
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert contents(folder) == before


def test_every_command_that_has_a_device_is_asked_for_one_that_is_not_here() -> None:
    group: Any = typer.main.get_command(app)
    having = {name for name in PANELS for option in group.commands[name].params if "--device" in option.opts}
    assert having == set(ON_A_DEVICE)


def test_a_gpu_that_is_used_is_named_in_the_first_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "devices_here", lambda: devices.Devices(("NVIDIA H200", "NVIDIA L4")))
    for asked in (None, "cuda:1", "cpu"):
        say_where(asked)
    assert capsys.readouterr().err.splitlines() == [
        "Running on cuda:0 (NVIDIA H200).",
        "Running on cuda:1 (NVIDIA L4).",
    ]


CHEAP = (
    (*SEARCH, "--wrong"),
    (*SEARCH, "--searcher", "magic"),
    (*SEARCH, "--criterion", "magic"),
    ("search", "--model", "resnet18", *SEARCH[3:]),
    (*SEARCH[:5], "--data", "photos", *BUDGET),
    (*SEARCH, "--n-trials", "0"),
)
"""Wrong calls of one command; a budget is not among them, as its numbers need numpy."""


def test_a_wrong_flag_imports_no_large_package_and_no_other_command(folder: Path) -> None:
    """A time would depend on the machine; what takes it is imports."""
    code = f"""
import sys
from prunesearch.cli import main
from prunesearch.cli.commands import COMMANDS
ended = []
for arguments in {CHEAP!r}:
    try:
        main(arguments)
    except SystemExit as error:
        ended.append(error.code)
heavy = {{"torch", "torchvision", "numpy", "scipy", "sqlalchemy", "optuna", "accelerate", "sklearn", "deap", "jinja2"}}
commands = {{place.partition(":")[0] for names in COMMANDS.values() for place in names.values()}}
print(ended, sorted(heavy & set(sys.modules)), sorted(commands & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder)
    assert done.stdout.split("\n")[0] == f"{[2] * len(CHEAP)} [] ['prunesearch.cli.studies']"


def test_what_flags_say_wrong_is_found_before_torch_is_imported(folder: Path) -> None:
    calls = {name: list(arguments) for name, (arguments, _) in WRONG.items() if name not in WITH_TORCH}
    code = """
import contextlib, io, json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from prunesearch.cli import main
ended = {}
for name, arguments in json.load(sys.stdin).items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        try:
            main(arguments)
        except ImportError as error:
            said.write(f"imported: {error}")
    ended[name] = " ".join(said.getvalue().split())
json.dump(ended, sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(calls), capture_output=True, text=True, check=True, cwd=folder
    )
    ended = json.loads(done.stdout)
    assert [name for name in calls if WRONG[name][1] not in ended[name]] == []
    assert len(calls) > 60
