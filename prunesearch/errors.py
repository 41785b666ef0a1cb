"""What can go wrong, one class per reaction a caller might have.

Every message says what was expected, what came, and what to do. A mistake at the public door that nobody would
catch is a plain `ValueError` or `TypeError`.
"""

from __future__ import annotations

from typing import Any


class PruneSearchError(Exception):
    """Base of every error that prunesearch raises on purpose."""


def expect(is_met: bool, what: str, got: object) -> None:
    """Make sure of one thing about an argument.

    Args:
        is_met: Whether it is so.
        what: What was expected, such as `"epochs >= 1"`.
        got: What came.

    Raises:
        ValueError: It is not so.
    """
    if not is_met:
        raise ValueError(f"Expected {what}, got {got!r}.")


class InvalidInput(PruneSearchError, ValueError):
    """A latency table, a TOML file or the address of a database is not what it should be; the message names it."""


class ContractBroken(PruneSearchError, TypeError):
    """An object or a name of the caller's, such as a searcher, does not do what its contract says.

    The message names the contract, which is a protocol of the reference, and has what came. The suites of
    `prunesearch.testing` test all of a contract.
    """


class TraceError(PruneSearchError):
    """The network could not be traced; the message names the module and the operator."""


class InfeasibleBudget(PruneSearchError, ValueError):
    """No structure of the space meets the budget.

    Attributes:
        limit: What was asked for, in `unit`.
        reachable: The smallest cost any structure has, and the cost of the unpruned network, in `unit`.
        unit: Name of the resource that is limited, such as `"macs"` or `"latency_ms"`.
    """

    def __init__(self, message: str, *, limit: float, reachable: tuple[float, float], unit: str) -> None:
        super().__init__(message)
        self.limit = limit
        self.reachable = reachable
        self.unit = unit


class StudyMismatch(PruneSearchError):
    """The stored study is of another question.

    Attributes:
        field: The first part of the question that differs, for example `"budget"`.
        stored: Its stored value or fingerprint.
        asked: The one that came.
    """

    def __init__(self, message: str, *, field: str, stored: object, asked: object) -> None:
        super().__init__(message)
        self.field = field
        self.stored = stored
        self.asked = asked


class StudyLocked(PruneSearchError):
    """Another process drives this study, or has driven it since this one lost its lock."""


class StudyUnreadable(PruneSearchError):
    """The file is not a study of ours, is damaged, or comes from a newer release."""


class StudyUnwritable(PruneSearchError):
    """A trial could not be recorded (full disk, read-only folder, missing file); everything recorded before is kept."""


class CheckpointError(PruneSearchError):
    """A weights file is damaged, hostile, or belongs to another network."""


class CheckpointLocked(CheckpointError):
    """Another process trains with this checkpoint."""


class EvaluationFailed(PruneSearchError):
    """Too many structures in a row could not be scored, none at all could, or what scores cannot be started.

    The message says why; of what the code of the evaluator raised, with the traceback where there is one.
    """


class TrainingDiverged(PruneSearchError):
    """The training loss became NaN or infinite.

    Attributes:
        step: The optimiser step at which it happened, from 0.
        last_good: The network (an `nn.Module`) as it was after the last epoch before; None in the first.
    """

    def __init__(self, message: str, *, step: int, last_good: Any = None) -> None:
        super().__init__(message)
        self.step = step
        self.last_good = last_good


class NotEnoughMemory(PruneSearchError, MemoryError):
    """Something would not fit into memory; nothing of it was allocated.

    Attributes:
        needed: Bytes it takes.
        free: Bytes there are.
    """

    def __init__(self, message: str, *, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free
