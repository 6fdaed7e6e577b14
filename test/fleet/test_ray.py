"""A Ray cluster of two nodes on this machine, whose actors and nodes are killed."""

from __future__ import annotations

import os
import signal
import threading

import psutil
import pytest

from panoptic_ros.fleet.command import label_bags
from test.fleet.bags import camera_bag
from test.fleet.test_local import check_output, parts, wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'panoptic_ros[fleet]'")
pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def cluster(monkeypatch):
    """A head without processors and two nodes of one each; returns it and the second node."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    size = {"object_store_memory": 100 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, **size}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **size) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


def actors_of(node):
    """Return the processes below a node's raylet that hold our model."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [p for p in raylet.children(recursive=True) if "MapBatches" in " ".join(p.cmdline())]


def test_a_killed_actor_and_a_lost_node_lose_and_repeat_nothing(
    cluster, streets, tiny_model, tmp_path
):
    cluster, nodes = cluster
    bags = [camera_bag(tmp_path / name, streets * 5) for name in ("one", "two")]
    output, reports = tmp_path / "out", []
    options = {"model": str(tiny_model), "device": "cpu", "engine": "eager", "span": 2}

    def run():
        reports.append(label_bags(bags, output, **options, ray=cluster.address))

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: parts(output) or not thread.is_alive())
    victims = [process for node in nodes for process in actors_of(node)]
    assert victims
    os.kill(victims[0].pid, signal.SIGKILL)
    done = len(parts(output))
    wait_for(lambda: len(parts(output)) > done or not thread.is_alive())
    cluster.remove_node(nodes[1], allow_graceful=False)
    assert thread.is_alive(), "the node was lost after the end"
    thread.join()
    assert reports[0]["frames"]["labelled"] == 120
    check_output(output, streets, tiny_model)
