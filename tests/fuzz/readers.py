"""Every reader of files: what it reads when all is well, and how that can be damaged."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import typer
from torch import nn

import prunesearch as ps
from prunesearch.cli import app
from prunesearch.cli.config import _flags, _values
from prunesearch.errors import PruneSearchError
from prunesearch.latency_table import LatencyTable
from prunesearch.models.checkpoint import load_weights
from prunesearch.models.hypernet import PruningNet
from prunesearch.models.hypernet_file import load_pruningnet, save_pruningnet
from prunesearch.models.saving import remembered_inputs
from prunesearch.models.tensor_file import checksum
from prunesearch.study.store import Store
from prunesearch.study.tables import write_table
from prunesearch.training.checkpoint import CheckpointFile, Snapshot
from tests.fuzz.mutations import changed, damaged, text_of
from tests.toys import chain_space, toy_table, trial


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        name: The file's.
        make: Writes a whole one.
        harm: Writes one that is not, from the bytes of a whole one.
        read: Reads it.
    """

    name: str
    make: Callable[[Path], object]
    harm: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path], object]


class Net(nn.Module):
    """Layers of several kinds, and a buffer that is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.c = nn.GroupNorm(2, 8)
        self.d = nn.Linear(8, 3)
        self.register_buffer("scale", torch.ones(8, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d((self.c(self.b(self.norm(self.a(x)).relu())).relu() * self.scale).mean((2, 3)))


def check(reader: Reader, folder: Path, seed: int, count: int) -> int:
    """Read so many damaged files: each is read, or is an error of ours that names it. Return how many were refused."""
    path = folder / reader.name
    for left in folder.glob(f"{reader.name}*"):  # what the last one of another seed was
        left.unlink()
    reader.make(path)
    whole = path.read_bytes()
    reader.read(path)
    refused = 0
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        path.unlink()
        for beside in folder.glob(f"{reader.name}-*"):
            beside.unlink()
        content = reader.harm(rng, whole)
        path.write_bytes(content)
        try:
            reader.read(path)
        except PruneSearchError as error:
            if path.name not in str(error):
                raise AssertionError(f"{reader.name}, seed {seed}, number {number}: {error!r}") from error
            refused += 1
        except Exception as error:
            raise AssertionError(f"{reader.name}, seed {seed}, number {number}: {error!r}") from error
    return refused


def _resealed(rng: random.Random, content: bytes) -> bytes:
    """A file of ours whose note or tensors were changed by somebody who made the checksum fit."""
    if rng.random() < 0.3:
        return damaged(rng, content)
    length = int.from_bytes(content[:8], "little")
    stored = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["prunesearch"])
    note = next(key for key in stored if key not in ("format", "sha256"))
    tensors = safetensors.torch.load(content)
    about = json.loads(stored[note])
    if rng.random() < 0.8:
        about = changed(rng, about)
        if isinstance(about, dict) and "buffers" in about and rng.random() < 0.1:
            bomb = zlib.compress(bytes(rng.choice((1_000, 30_000_000))), 9)
            about["buffers"] = base64.b64encode(bomb).decode()
    else:
        tensors = _with_other_tensors(rng, tensors)
    stored[note] = text_of(rng, about)
    stored["sha256"] = checksum(stored[note], tensors)
    if rng.random() < 0.1:
        stored = changed(rng, stored)
    return safetensors.torch.save(tensors, {"prunesearch": json.dumps(stored)})


def _with_other_tensors(rng: random.Random, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = dict(tensors)
    name = rng.choice(list(found))
    kind = rng.randrange(6)
    if kind == 0:
        del found[name]
    elif kind == 1:
        found[name + "x"] = found[name].clone()
    elif kind == 2:
        found[name] = found[name].to(rng.choice((torch.int64, torch.bool, torch.float16, torch.uint8, torch.complex64)))
    elif kind == 3:
        found[name] = torch.zeros([rng.choice((0, 1, 2, 7, 300)) for _ in range(rng.randrange(5))])
    elif kind == 4:
        other = rng.choice(list(found))
        found[name], found[other] = found[other], found[name]
    else:
        found[name] = torch.full_like(found[name].float(), rng.choice((float("nan"), float("inf"), 0.0)))
    return found


@cache
def _network() -> ps.Network:
    torch.manual_seed(0)
    return ps.trace(Net(), torch.zeros(2, 2, 6, 6))


def _slimmed(path: Path) -> None:
    network = _network()
    structure = tuple(group.widths[0] for group in network.space.groups)
    rankings = tuple(tuple(range(group.width // group.unit)) for group in network.space.groups)
    from prunesearch.models.ranking import NestedRanking
    from prunesearch.models.slim import slim

    ps.save(slim(network, structure, NestedRanking(rankings)), path, example_inputs=torch.zeros(2, 2, 6, 6))


def _read_network(path: Path) -> None:
    remembered_inputs(path)
    ps.load(path, Net())


def _pickled(path: Path) -> None:
    torch.save(Net().state_dict(), path)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code of a file was run",))


def _harmed_pickle(rng: random.Random, content: bytes) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        return damaged(rng, content)
    if kind < 0.65:
        return pickle.dumps({"a": _Harmful()})
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if rng.random() < 0.3:
                data = damaged(rng, data)
            if rng.random() < 0.1:
                data = bytes(rng.choice((1000, 5_000_000)))
            new.writestr(entry.filename, data, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return packed.getvalue()


def _strided(path: Path) -> None:
    """A file as small as its storages, of tensors that are larger."""
    state = Net().state_dict()
    state["d.weight"] = torch.zeros(1).expand(3, 8)
    torch.save(state, path)


def _read_weights(path: Path) -> None:
    net = Net()
    load_weights(net, path)


_QUESTION = {"network": "a", "seed": 0}


def _checkpoint(path: Path) -> None:
    tensors = {f"learner.{name}": tensor for name, tensor in Net().state_dict().items()}
    facts = {"epoch": 1, "step": 0, "reports": [{"epoch": 1, "loss": 0.5}], "scaler": None}
    with CheckpointFile(path, _QUESTION) as file:
        file.write(Snapshot(tensors, facts))


def _read_checkpoint(path: Path) -> None:
    with CheckpointFile(path, _QUESTION, writes=False) as file:
        file.read()


def _pruningnet(path: Path) -> None:
    save_pruningnet(PruningNet(_network(), hidden=4, rank=2), path, training={"step": 3})


def _study(path: Path) -> None:
    with closing(Store(f"sqlite:///{path}")) as store:
        store.create("a", {"seed": 0, "budget": "50%"}, asdict(chain_space()))
        for number in range(3):
            store.add("a", trial(number, chain_space().minimum, None if number == 1 else float(number)))
        store.add_to_summary("a", {"notes": ["x"]})


_VALUES = (
    *("NULL", "0", "-1", "1e999", "-1e999", "'x'", "''", "x'80'", "9223372036854775807", "0.5", "'[1]'", "'{}'"),
    *("'[[1]]'", "'[1e400]'", "'[Infinity]'", "'[true]'", "'['", "'[-1]'", "zeroblob(100)", "'{\"notes\": 3}'"),
    "replace(hex(zeroblob(50000)), '0', '[')",
)


def _edited(rng: random.Random, content: bytes) -> bytes:
    """Rows edited through SQLite, half of them with checksums that fit; or bytes of the file."""
    if rng.random() < 0.4:
        return damaged(rng, content)
    from prunesearch.study import schema

    database = sqlite3.connect(":memory:")
    database.deserialize(b"".join([content[:18], b"\x01\x01", content[20:]]))  # no write-ahead log in memory
    for _ in range(rng.choice((1, 1, 2, 4))):
        table = rng.choice(("trial", "trial", "trial", "study", "prunesearch_schema"))
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        try:
            database.execute(
                f"update {table} set {rng.choice(columns)} = {rng.choice(_VALUES)}"
                + (f" where number = {rng.randrange(3)}" if table == "trial" else "")
            )
        except sqlite3.Error:
            continue
    if rng.random() < 0.5:
        database.row_factory = sqlite3.Row
        for row in database.execute("select rowid, * from trial").fetchall():
            try:
                database.execute("update trial set checksum = ? where rowid = ?", (schema.checksum(dict(row)), row[0]))
            except (sqlite3.Error, KeyError, IndexError):
                continue
    database.commit()
    return bytes(database.serialize())


def _read_study(path: Path) -> None:
    from prunesearch.report.contents import read

    with closing(Store(f"sqlite:///{path}", create=False)) as store:
        for name in store.studies():
            store.progress(name)
            store.trials(name)
            store.question(name)
            store.summary(name)
            store.space(name)
            store.driver()
            write_table(store, name, path.with_name("table.csv"))
        read(store, None)


_CONFIG = """
study = "search.db"
seed = 3
json = true
[search]
model = "zoo:resnet8"
n-trials = 20
options = { population = 20, mutate = [1, 0.5] }
ignored-layers = ["a", "b*"]
[status]
watch = 1.5
"""
_PIECES = (
    *("[", "]", "[[a]]", "=", '"', "'''", "1e400", "inf", "nan", "true", "{}", "[[]]", "0x", "1979-05-27", "\x00"),
    *("\\u", "#", "a.b", "[" * 5000, "{a=" * 3000, "9" * 5000, "\n", "study", "[search]", '"\\ud800"'),
)


def _edited_config(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.3:
        return damaged(rng, content)
    lines = content.decode().splitlines()
    for _ in range(rng.choice((1, 2, 3))):
        place = rng.randrange(len(lines))
        column = rng.randrange(len(lines[place]) + 1)
        lines[place] = lines[place][:column] + rng.choice(_PIECES) + lines[place][column + rng.randrange(3) :]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@cache
def _commands() -> dict[str, dict[str, Any]]:
    return {name: _flags(command) for name, command in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]


def _table_text(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.2:
        return damaged(rng, content)
    table = json.loads(content)
    if rng.random() < 0.1:
        layer = rng.choice(table["layers"])
        layer["axes"] = [list(range(1, rng.choice((2, 3000)))) for _ in range(rng.choice((1, 2, 3, 8)))]
    return text_of(rng, changed(rng, table)).encode("utf-8", "surrogatepass")


def _read_table(path: Path) -> None:
    from prunesearch.latency_model import LatencyModel

    space = chain_space()
    table = LatencyTable.load(path)
    try:
        table.check(space)
    except ValueError:  # of another network, or not complete
        return
    predicted = LatencyModel(table, space).predict(np.array([space.full]))
    assert np.isfinite(predicted).all()


READERS = (
    Reader("table.json", lambda path: toy_table(chain_space()).save(path), _table_text, _read_table),
    Reader(
        "config.toml",
        lambda path: path.write_text(_CONFIG),
        _edited_config,
        lambda path: _values(path, "search", _commands()),
    ),
    Reader("net.safetensors", _slimmed, _resealed, _read_network),
    Reader(
        "weights.safetensors",
        lambda path: safetensors.torch.save_file(Net().state_dict(), path),
        damaged,
        _read_weights,
    ),
    Reader("weights.pt", _pickled, _harmed_pickle, _read_weights),
    Reader("run.checkpoint", _checkpoint, _resealed, _read_checkpoint),
    Reader("pruningnet.safetensors", _pruningnet, _resealed, lambda path: load_pruningnet(path, _network())),
    Reader("study.db", _study, _edited, _read_study),
)
