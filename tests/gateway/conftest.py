import pytest
import trio.testing


@pytest.fixture
def patient_clock():
    """Virtual time for tests with real sockets: it waits for the kernel before it jumps."""
    return trio.testing.MockClock(autojump_threshold=0.05)
