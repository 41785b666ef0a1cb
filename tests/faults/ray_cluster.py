"""A Ray cluster of three nodes in a process group of its own: python -m tests.faults.ray_cluster PORT.

Says its address, then obeys a word per line: `kill` a node, `add` one.
"""

from __future__ import annotations

import sys


def main() -> None:
    from ray.cluster_utils import Cluster  # an extra, and this file is collected for its examples

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "gcs_server_port": int(sys.argv[1]), "include_dashboard": False},
    )
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    sys.stdout.write(cluster.address + "\n")
    sys.stdout.flush()
    for word in sys.stdin:
        if word.strip() == "kill":
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
        if word.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=2))
            cluster.wait_for_nodes()
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
