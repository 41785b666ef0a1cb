"""What of a model, and of the process, must be as it was."""

from __future__ import annotations

from prunesearch.testing.state import generators as generators
from prunesearch.testing.state import state_of as state_of
