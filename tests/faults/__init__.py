"""Real faults: slow, so only on request (`make test-faults`)."""
