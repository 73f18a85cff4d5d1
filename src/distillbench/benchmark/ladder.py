"""The ladder: which rungs there are for a device and a method, each with what it changes."""

from typing import NamedTuple

NOISE = "R0 again"  # whose difference from R0 is the noise floor
PLAIN = {
    "resident data": {"resident": True},
    "no read-back": {"read_back": False},
    "channels_last": {"channels_last": True},
    "fused SGD": {"fused": True},
}


class Rung(NamedTuple):
    """kind: "plain", "engine" or "upstream"; before: the rung that it changes; options: of its kind.

    precision: of convolutions; threads: of each process, None for what torch takes; obstacle: why it is not run, "" if
    nothing is in the way.
    """

    name: str
    kind: str
    before: str
    precision: str
    options: dict = {}
    threads: int | None = None
    processes: int = 1
    obstacle: str = ""

    @property
    def table(self):
        return self.options.get("table", False)

    @property
    def loads(self):
        """Whether its images come from a loader with worker processes."""
        return self.kind == "upstream" or (self.kind == "plain" and not self.options.get("resident"))


class Obstacles(NamedTuple):
    """Why graphs, a table, bf16 or several processes cannot be had; "" where they can."""

    graph: str = ""
    table: str = ""
    bf16: str = ""
    processes: str = ""


def ladder(precision, threads, processes, obstacles, upstream=""):
    """The rungs in their order; precision, threads: of R0; processes: of the rungs with several; upstream: the name of
    the rung of a checkout, "" without one.
    """
    rungs = [Rung(name, "plain", before, precision, {}, threads) for name, before in (("R0", ""), (NOISE, "R0"))]
    if upstream:
        rungs.append(Rung(upstream, "upstream", "R0", precision, {}, threads))
    options, before = {}, "R0"
    for name, change in PLAIN.items():
        options = options | change
        rungs.append(Rung(name, "plain", before, precision, options, threads))
        before = name
    rungs.append(Rung("engine", "engine", before, precision, {"driver": "eager"}, threads))
    graph = {"driver": "graph"}
    rungs.append(Rung("CUDA graph", "engine", "engine", precision, graph, threads, obstacle=obstacles.graph))
    live = rungs[-2 if obstacles.graph else -1]
    table = live._replace(name="logit table", before=live.name, options={**live.options, "table": True})
    table = table._replace(obstacle=obstacles.table)
    rungs += _faster(live, threads, processes, obstacles)
    return [*rungs, table, *_faster(table, threads, processes, obstacles)]


def _faster(rung, threads, processes, obstacles):
    """The rungs on an engine's one: bf16, several processes, both."""
    bf16 = rung._replace(name=f"{rung.name}, bf16", before=rung.name, precision="bf16")
    bf16 = bf16._replace(obstacle=rung.obstacle or obstacles.bf16)
    for one in (rung, bf16):
        if one is bf16:
            yield bf16
        yield one._replace(
            name=f"{one.name}, {processes} processes",
            before=one.name,
            threads=threads and 1,  # the cores of a CPU are shared out
            processes=processes,
            obstacle=one.obstacle or obstacles.processes,
        )
