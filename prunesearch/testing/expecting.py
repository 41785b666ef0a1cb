"""What the suites say expectations with. They are no `assert`s, which `python -O` leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def expect_that(is_met: bool, promise: str) -> None:
    """Make sure that a promise is kept.

    Args:
        is_met: Whether it is.
        promise: What was promised, and what came.

    Raises:
        AssertionError: It is not.
    """
    if not is_met:
        raise AssertionError(promise)


@contextmanager
def expect_error(kind: type[Exception], promise: str, naming: str = "") -> Iterator[None]:
    """Make sure that what is done inside is refused.

    Args:
        kind: Of the error.
        promise: What was promised.
        naming: What its message must have.

    Raises:
        AssertionError: It is not refused, or by an error of another kind, or with another message.
    """
    try:
        yield
    except kind as error:
        expect_that(naming in str(error), f"{promise}, in a message with {naming!r}; it says: {error}")
    except Exception as error:
        raise AssertionError(f"{promise} by {kind.__name__}; got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{promise} by {kind.__name__}; nothing was raised")


def promises(suite: object) -> list[Callable[[], None]]:
    """The tests of a suite, for whoever runs them without pytest.

    Args:
        suite: An object of a class such as `SearcherContract`, with its `make`.

    Example:
        >>> class Suite:
        ...     def test_nothing(self): ...
        >>> [promise.__name__ for promise in promises(Suite())]
        ['test_nothing']
    """
    found = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    return [promise for promise in found if callable(promise)]  # None leaves one out
