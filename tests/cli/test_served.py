"""What a server says when it ends."""

from atomr_trio.actor import ActorStopped
from atomr_trio.cli._served import tell_served
from atomr_trio.core import TokenUsage
from atomr_trio.runtime import DeploymentMetrics
from tests.gateway.harness import capturing_log


class Counting:
    """As much of a cluster as is asked."""

    def __init__(self, counted):
        self.counted = counted

    async def metrics(self):
        if isinstance(self.counted, Exception):
            raise self.counted
        return self.counted


async def test_each_deployment_has_a_line():
    log, entries = capturing_log()
    one = DeploymentMetrics(3, 2, 1, {"timeout": 2}, TokenUsage(10, 20), 0.0, TokenUsage(0, 5), 2)
    await tell_served(Counting({"one": one, "two": DeploymentMetrics()}), log)
    assert [entry["deployment"] for entry in entries] == ["one", "two"]
    counted = {"succeeded": 3, "failed": 2, "left": 1, "tokens_in": 10, "tokens_out": 20}
    late = {"tokens_left": 5, "tokens_late": 2}
    assert entries[0] == {"event": "served", "log_level": "info", "deployment": "one", **counted, **late}


async def test_a_server_that_cannot_count_any_more_says_nothing():
    log, entries = capturing_log()
    await tell_served(Counting(ActorStopped("metrics")), log)
    assert entries == []
