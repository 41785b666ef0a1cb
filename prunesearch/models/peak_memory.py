"""Memory of a network's forward: what its tensors take at the most at once, predicted and measured."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunesearch.models.copying import without_data
from prunesearch.models.following import Way, inputs_of, recorded, that_has_run
from prunesearch.models.isolation import isolated
from prunesearch.models.recorded import Recording
from prunesearch.models.replay import Replay


def predicted_peak_bytes(model: nn.Module, inputs: Any) -> int:
    """Bytes of weights, inputs and results alive at once, by the order of operators and their shapes alone.

    Each result is given up after the operator that uses it last. A forward in Python may hold on to them longer, so
    this is a lower bound. What kernels take for themselves is not in it.

    Args:
        model: A copy of one's own, in eval mode, on any device.
        inputs: What it takes: a batch, positional inputs, or inputs by name.
    """
    parameters, buffers, alive = bytes_over_time(that_has_run(model, inputs_of(inputs), Way()), inputs)
    return parameters + buffers + max(alive, default=0)


def bytes_over_time(model: nn.Module, inputs: Any) -> tuple[int, int, list[int]]:
    """Bytes of parameters, of buffers, and of inputs and results alive after each operator: `predicted_peak_bytes`."""
    given = inputs_of(inputs)
    meta = given.without_data()
    light = without_data(model)
    live = _Live(recorded(light, meta, {}, way=Way()))
    with isolated(()):
        live.run(*meta.tensors)
    return _bytes(model.parameters()), _bytes(model.buffers()), live.alive


def measured_peak_bytes(model: nn.Module, inputs: Any) -> int:
    """The same, watched while the model runs: every storage that an operator returns, until it is freed.

    Args:
        model: In eval mode.
        inputs: What it takes: a batch, positional inputs, or inputs by name.
    """
    given = inputs_of(inputs)
    with isolated(given.tensors) as copies, _Watch() as watch:
        watch.add(copies)
        ours = given.with_tensors(copies)
        model(*ours.args, **ours.kwargs)
    return _bytes(model.parameters()) + _bytes(model.buffers()) + watch.most


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class _Live(Replay):
    """Runs a recorded forward and adds up what is alive."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self.alive: list[int] = []
        model = recording.model
        self._weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        storages: dict[int, int] = {}

        def add(item: Any) -> Any:
            if isinstance(item, Tensor) and item.untyped_storage()._cdata not in self._weights:
                storages[item.untyped_storage()._cdata] = item.untyped_storage().nbytes()
            return item

        fx.node.map_aggregate((result, *self.env.values()), add)
        self.alive.append(sum(storages.values()))
        return result


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Adds up the storages that operators return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known: set[int] = set()

    def add(self, results: Any) -> None:
        def each(item: Any) -> Any:
            if isinstance(item, Tensor):
                storage = item.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._known:
                    self._known.add(key)
                    self._now += size
                    weakref.finalize(storage, self._freed, key, size)
            return item

        fx.node.map_aggregate(results if isinstance(results, (tuple, list)) else (results,), each)
        self.most = max(self.most, self._now)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(result)
        return result
