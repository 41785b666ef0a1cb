"""A limit on how long something may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from prunesearch.errors import TraceError


@dataclass(frozen=True)
class Deadline:
    """Seconds from now; asked from time to time."""

    seconds: float
    start: float = field(default_factory=time.monotonic)

    def check(self, doing: str) -> None:
        """Raise if it has passed.

        Raises:
            TraceError: It has; the message says what was being done.
        """
        if time.monotonic() - self.start > self.seconds:
            raise TraceError(
                f"Tracing took longer than time_limit={self.seconds:g} s; it was at {doing}. Use smaller "
                "example_inputs, or a higher limit."
            )
