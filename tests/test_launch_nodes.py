"""A Ray cluster of two nodes loses one: its episodes are handed out again, and the run ends as if nothing had been.

Both nodes are on this machine (Ray's own in-process cluster); everything else is real, the model is scripted.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.chaos import Arena, digest_of
from bench.scripted import Call, Reply, wander
from launch.books import Purpose
from launch.ledger import Ledger
from policy.leash import is_alive

ROOT = Path(__file__).parents[1]
DEADLINE_S = 420
GONE_DEADLINE_S = 60
NUM_PROPOSED = 4
"""Of a round's six tasks (bench/chaos.py); the others are audits, worded otherwise. Two actors have all under way at
once, three on the node that goes."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    yield cluster
    cluster.shutdown()


class NodeLoss:
    """The script of the model, which takes a node away while all episodes at proposed tasks wait for an answer."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster, self.node = cluster, node
        self.num_waiting, self.is_lost = 0, asyncio.Event()

    async def __call__(self, call: Call) -> Reply:
        if call.role == "policy" and "Find thing number" in call.text and not self.is_lost.is_set():
            self.num_waiting += 1
            if self.num_waiting == NUM_PROPOSED:
                try:
                    await asyncio.to_thread(self.lose)
                finally:
                    self.is_lost.set()
            await self.is_lost.wait()
        return wander(call)

    def lose(self) -> None:
        """Kill the node, and wait until its workers have noticed."""
        workers = psutil.Process(self.node.all_processes["raylet"][0].process.pid).children(recursive=True)
        assert any(worker.name().startswith("ray::RolloutActor") for worker in workers), "each node has its actor"
        self.cluster.remove_node(self.node, False)
        deadline = time.monotonic() + GONE_DEADLINE_S
        while any(map(is_alive, workers)):
            assert time.monotonic() < deadline, "its workers outlive the node"
            time.sleep(0.05)


def test_losing_a_worker_node_only_hands_its_episodes_out_again(
    cluster: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    with Arena(tmp_path, seed=3) as arena:
        arena.model.otherwise = NodeLoss(cluster, node)
        run_dir = arena.run_dir("two-nodes")
        command = arena.command("two-nodes", ["run.rounds=1", "rollout.num_actors=2"])
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        assert subprocess.run(command, cwd=ROOT, env=environment, timeout=DEADLINE_S).returncode == 0
    with Ledger.open_readonly(run_dir) as books:
        assert any(event.kind == "retry" and "died" in event.text for event in books.events())
        for purpose in (Purpose.TRAIN, Purpose.EVAL):
            assert sum(books.outcomes(1, (purpose,)).values()) == books.num_episodes(1, purpose) > 0
        assert all(row.outcome.is_agents for row in books.trajectories())
    assert digest_of(run_dir) == undisturbed
