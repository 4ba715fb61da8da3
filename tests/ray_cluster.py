"""A Ray cluster of several nodes on this machine, in a process of its own: lines in, lines out.

`add JSON` starts a node (arguments of `ray.cluster_utils.Cluster.add_node`) and prints its number, `kill N` ends one
without a word, as a machine that loses its power.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# Untyped in parts.
Cluster: Any = importlib.import_module("ray.cluster_utils").Cluster

SMALL = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, **SMALL})
    nodes = []
    try:
        print(cluster.address, flush=True)
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            if command == "add":
                nodes.append(cluster.add_node(**SMALL, **json.loads(rest)))
                print(len(nodes) - 1, flush=True)
            elif command == "kill":
                cluster.remove_node(nodes[int(rest)], allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
