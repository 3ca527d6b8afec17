"""The nodes of a Ray cluster: which of them can take runs, of how many threads and GPUs, and what each says of itself."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from genbench.errors import GenbenchError
from genbench.sweep.cell import Wishes
from genbench.sweep.node import examine_apart
from genbench.sweep.preflight import Found, Ticket, probed
from genbench.sweep.waiting import words

PATIENCE = 1800.0
"""Seconds that the nodes may take to say what they have; data sets are prepared meanwhile."""


@dataclass(frozen=True)
class Node:
    """A machine that can take runs."""

    id: str
    name: str
    runs: int
    """That fit at once."""


class Cluster:
    """The machines that Ray has and that have what is wished for, and what each run on them gets."""

    def __init__(self, ray: ModuleType, wishes: Wishes) -> None:
        """Raises GenbenchError where no machine can take a run."""
        self._ray: Any = ray
        self._wishes = wishes
        self.gpus, self.threads = self._share()
        """Of a run."""
        self.nodes = self.able()
        """Those that can take runs, as they were when last asked."""
        if not self.nodes:
            gpu = [] if not self.gpus else ["a GPU"] if self.gpus == 1 else [f"{self.gpus} GPUs"]
            needs = " and ".join([f"{self.threads} CPUs", *gpu, *wishes.resources])
            there = "; ".join(_resources(node) for node in self._ray.nodes() if node["Alive"]) or "none"
            raise GenbenchError(
                f"no node of the Ray cluster has {needs} for a run; nodes: {there}. Where nodes are started on demand, keep one up"
            )

    @property
    def needs(self) -> dict[str, Any]:
        """What Ray is asked for, for a run."""
        return {"num_cpus": self.threads, "num_gpus": self.gpus, "resources": dict.fromkeys(self._wishes.resources, 0.001)}

    def able(self) -> list[Node]:
        """The nodes that can take runs now."""
        nodes = []
        for node in self._alive():
            fit = int(node["Resources"].get("CPU", 0)) // self.threads
            fit = min(fit, int(node["Resources"].get("GPU", 0)) // self.gpus) if self.gpus else fit
            if fit:
                nodes.append(Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})", fit))
        return nodes

    def ask(self, ticket: Ticket) -> dict[Node, Found]:
        """What every node says of itself; one that goes away meanwhile takes no runs. Raises GenbenchError where one can't say."""
        at = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        # a worker for this alone; it sees the GPUs without taking one from whoever computes there now
        task = self._ray.remote(max_retries=0, max_calls=1, num_cpus=0)(examine_apart)
        with probed(ticket):
            asked = {node: task.options(scheduling_strategy=at(node.id, soft=False)).remote(ticket) for node in self.nodes}
            found, deadline = {}, time.monotonic() + PATIENCE
            for node, ref in asked.items():
                try:
                    found[node] = self._ray.get(ref, timeout=max(0.0, deadline - time.monotonic()))
                except self._ray.exceptions.RayError as error:
                    if self._is_alive(node):
                        raise GenbenchError(f"node {node.name} can't say what it has: {words(error)}; does genbench run there?") from None
        if not found:
            raise GenbenchError("every node of the Ray cluster that could take runs went away; see that they stay up")
        self.nodes = list(found)
        return found

    def all_refused(self, refused: Collection[str]) -> bool:
        """Whether no node is left that can take runs but those with these ids. One that has gone away is no refusal."""
        able = self.able()
        return bool(able) and all(node.id in refused for node in able)

    def _is_alive(self, node: Node) -> bool:
        return any(other["NodeID"] == node.id and other["Alive"] for other in self._ray.nodes())

    def _alive(self) -> list[Mapping[str, Any]]:
        """What Ray says of the nodes that are there and have the resources asked for."""
        wanted = self._wishes.resources
        return [node for node in self._ray.nodes() if node["Alive"] and all(node["Resources"].get(name, 0) > 0 for name in wanted)]

    def _share(self) -> tuple[int, int]:
        """GPUs and CPU threads of a run: by default as many threads as the smallest node has for each of its runs."""
        device, devices = self._wishes.device, self._wishes.devices
        if device not in ("auto", "cpu", "cuda"):
            raise GenbenchError(f"device {device!r} is not one of: auto, cpu, cuda; which GPU a run gets is for Ray to say")
        alive = self._alive()
        gpus = devices * (device == "cuda" or (device == "auto" and any(node["Resources"].get("GPU", 0) >= 1 for node in alive)))
        # what `runs` a node could take, were threads no matter
        fit = {id(node): int(node["Resources"].get("GPU", 0)) // gpus if gpus else 1 for node in alive}
        shares = [int(node["Resources"].get("CPU", 0)) // fit[id(node)] for node in alive if fit[id(node)]]
        share = min((share for share in shares if share), default=1)
        return gpus, self._wishes.threads or share - share % devices or share


def _resources(node: Mapping[str, Any]) -> str:
    amounts = [f"{amount:g} {name}" for name, amount in sorted(node["Resources"].items()) if ":" not in name and "memory" not in name]
    return f"{node['NodeManagerHostname']}: {', '.join(amounts) or 'nothing'}"
