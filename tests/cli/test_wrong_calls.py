"""Every way to call the command line wrong ends with one sentence, status 2, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.calls import LATENCY, SEARCH, Call

WRONG = {
    "infeasible budget": ((*SEARCH[:-1], "macs=0.1%"), "The space reaches from"),
    "unreadable budget": ((*SEARCH[:-1], "macs=lots"), "Expected macs as a count of at least 1 or a share such as"),
    "unknown searcher": ((*SEARCH, "--searcher", "magic"), "there are uniform, random, evolution"),
    "option that is none": ((*SEARCH, "--option", "population"), "Expected --option as NAME=VALUE"),
    "option of another searcher": ((*SEARCH, "--option", "sampler=tpe"), "sampler"),
    "unknown criterion": ((*SEARCH, "--criterion", "magic"), "there are l1, l2, bn_scale"),
    "unknown weight source": ((*SEARCH, "--weight-source", "magic"), "there are inherited, compensated"),
    "unknown metric": ((*SEARCH, "--metric", "magic"), "there are loss, accuracy, agreement"),
    "unknown data": ((*SEARCH[:5], "--data", "magic", *SEARCH[-2:]), "Unknown data set 'magic'"),
    "unknown zoo network": (("explain", "--model", "zoo:resnet21"), "Did you mean 'resnet"),
    "unknown torchvision network": (("explain", "--model", "torchvision:resnt"), "torchvision has no network"),
    "unknown kind of model": (("explain", "--model", "resnet20"), "Expected a model as zoo:NAME"),
    "missing model file": (("explain", "--model", "no.py:model"), "There is no file 'no.py'"),
    "missing function": (("explain", "--model", "mine.py:no"), "mine.py has no function 'no'"),
    "function that gives no model": (("explain", "--model", "mine.py:number"), "got int"),
    "shape that is none": (("explain", "--model", "zoo:resnet8", "--input", "large"), "Expected an input shape"),
    "images it cannot take": (("explain", "--model", "mine.py:model"), "fails on example_inputs of shape"),
    "control flow on data": (("explain", "--model", "mine.py:branching", "--input", "1x1x8x8"), "1 (Branching)"),
    "missing weights": ((*SEARCH[:4], "no.pt", *SEARCH[5:]), "There is no weights file no.pt"),
    "foreign weights": ((*SEARCH[:4], "mine.py", *SEARCH[5:]), "mine.py is damaged, or holds more than tensors"),
    "weights of another network": (("explain", "--model", "zoo:resnet20", "--input", "1x1x8x8", "--weights",
                                    "w.safetensors"), "is not of ResNet: missing layer1.1.conv1.weight"),
    "foreign study": ((*SEARCH, "--study", "sqlite:///foreign.db"), "cannot be read as a study"),
    "missing study": (("status", "--study", "sqlite:///no.db"), "There is no study file no.db"),
    "url that is none": (("status", "--study", "s.db"), 'Expected a study URL such as "sqlite:///search.db"'),
    "study that is not there": (("show", "--study", "sqlite:///no.db"), "There is no study file no.db"),
    "study of another name": (("delete", "--study", "sqlite:///known.db", "--study-name", "x", "--yes"), "'x'"),
    "export of nothing": (("export",), "Expected --model and --out to export a network"),
    "export to nowhere": (("export", "--study", "sqlite:///known.db"), "--optuna URL, --csv FILE or --parquet FILE"),
    "no workers": ((*SEARCH, "--workers", "0"), "at least one worker"),
    "unknown executor": ((*SEARCH, "--executor", "magic"), "there are auto, inline, processes, ray"),
    "time limit without workers": ((*SEARCH, "--executor", "inline", "--time-limit", "3"), "Use the executor"),
    "address without a cluster": ((*SEARCH, "--address", "auto"), "settings of the executor 'ray'"),
    "server without a name": ((*SEARCH, "--study", "postgresql://me:secret@host"), "names no database"),
    "report without a study": (("report", "--study", "sqlite:///no.db"), "There is no study file"),
    "minimum that is no number": (("explain", "--model", "zoo:resnet8", "--min-channels", "few"), "got 'few'"),
    "multiple that is no number": (("explain", "--model", "zoo:resnet8", "--round-to", "stem=x"), "got 'stem=x'"),
    "glob of no layer": (("explain", "--model", "zoo:resnet8", "--round-to", "stem.*=8"), "matches 'stem.*'"),
    "unknown timm network": (("explain", "--model", "timm:nope"), "timm"),
    "export to nowhere known": (("export", "--model", "zoo:resnet8", "--out", "e.pkl"), "NAME.onnx or NAME.pt2"),
    "latency without a table": ((*SEARCH[:-1], "latency_ms=4"), "Expected latency_ms and table together"),
    "latency table that is none": ((*SEARCH[:-1], "latency_ms=4", "--latency-table", "mine.py"), "is not JSON"),
    "missing latency table": ((*SEARCH[:-1], "latency_ms=4", "--latency-table", "no.json"), "no.json"),
    "unknown backend": ((*LATENCY, "--backend", "magic"), "there are eager, inductor, onnxruntime"),
    "too many threads": ((*LATENCY, "--threads", "4096"), "threads, as many as this process may use"),
    "files for nobody": ((*LATENCY, "--onnx", "o"), "name that with --elsewhere"),
    "nothing to compare with": (("verify", "--model", "zoo:resnet8", "--latency-table", "t.json"), "with --pruned"),
    "option with a typo": ((*SEARCH, "--searcher", "evolution", "--option", "populatoin=3"), "Did you mean 'popul"),
    "option that wants a number": ((*SEARCH, "--searcher", "evolution", "--option", "parents=few"), "a number such as"),
    "share beyond one": ((*SEARCH, "--screen", "2"), "Expected screen as a share in (0, 1]"),
    "folder that is a file": ((*SEARCH, "--tensorboard", "mine.py"), "Expected --tensorboard as a folder"),
    "output in no folder": ((*SEARCH, "--out", "no/small.st"), "The folder no of no/small.st does not exist"),
    "output that is a folder": (("finetune", *SEARCH[1:7], "--out", "."), ". is a folder; expected a file"),
    "data without their folder": ((*SEARCH[:5], "--data", "cifar10", *SEARCH[-2:]), "There is no cifar10 in data"),
    "data with a foreign option": ((*SEARCH, "--image-size", "32"), "digits has no use for --image-size"),
    "image folder without a folder": ((*SEARCH[:5], "--data", "imagefolder", *SEARCH[-2:]), "imagefolder:FOLDER"),
    "image folder without classes": ((*SEARCH[:5], "--data", "imagefolder:.", *SEARCH[-2:]), "Expected . to have the"),
    "code that fails": (("explain", "--model", "mine.py:fails"), "mine.py:fails failed, line 15: ZeroDivisionError"),
    "code that fails, from here": (("explain", "--model", "./mine.py:fails"), "failed, line 15: ZeroDivisionError"),
    "tracker of no log": (("finetune", *SEARCH[1:7], "--out", "t.st", "--tracker", "csv"), "its folder with --log"),
    "code that cannot be read": (("explain", "--model", "foreign.py:model"), "SyntaxError"),
    "function with a typo": (("explain", "--model", "mine.py:modle"), "Did you mean model"),
    "images that are no numbers": ((*SEARCH[:2], "mine.py:model", "--data", "mine.py:holes", *SEARCH[-2:]), "hold NaN"),
    "no classes": (("explain", "--model", "zoo:resnet8", "--num-classes", "0"), "Expected at least 1 class"),
    "device of another machine": ((*LATENCY, "--device", "tpu"), "Expected --device as one that torch has here"),
    "negative seed": ((*SEARCH, "--seed", "-1"), "--seed"),
    "no structures to verify": (("verify", "--model", "zoo:resnet8", "--n", "0"), "--n"),
    "teacher's precision": (("finetune", *SEARCH[1:7], "--out", "t.st", "--precision", "fp8"), "fp32, bf16, fp16, got"),
    "patience without validation": (("finetune", *SEARCH[1:7], "--out", "t.st", "--patience", "2"), "validation"),
    "too few epochs": (("paam", *SEARCH[1:], "--out", "t.st", "--epochs", "2"), "at least 3 epochs with live scores"),
    "setting of no method": (("paam", *SEARCH[1:], "--out", "t.st", "--option", "shar=1"), "Did you mean 'share'?"),
    "gates on parameters": (("manidp", *SEARCH[1:-1], "params=50%", "--out", "t.st"), "Expected a budget of MACs only"),
    "comparison of nothing": (("compare",), "Expected --model with --pruned, or --study"),
    "comparison without a model": (("compare", "--pruned", "w.safetensors"), "need --model"),
    "comparison of an empty database": (("compare", "--study", "sqlite:///known.db"), "There are no studies in"),
    "report of no such study": (("report", "--study", "sqlite:///known.db", "--study-name", "x"), "no study 'x' in"),
    "watching as JSON": (("status", "--study", "sqlite:///known.db", "--watch", "1", "--json"), "one of the two"),
    "study as a network": (("export", "--study", "sqlite:///known.db", "--out", "n.onnx"), "--out is for a network"),
    "network as a study": (("export", "--model", "zoo:resnet8", "--csv", "t.csv"), "are for a study"),
    "table of another kind": (("export", "--study", "sqlite:///known.db", "--csv", "t.txt"), "--csv as NAME.csv"),
    "demo into a file": (("demo", "--out", "mine.py"), "Expected --out as a folder"),
    "no model": (("search", "--data", "digits", "--budget", "macs=50%"), "Missing option '--model'"),
    "missing config": ((*SEARCH, "--config", "no.toml"), "There is no config file no.toml"),
    "unknown option": (("explain", "--nonsense"), "No such option"),
    "unknown command": (("nonsense",), "No such command"),
}  # fmt: skip


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
