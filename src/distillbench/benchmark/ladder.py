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


class Obstacles(NamedTuple):
    """Why graphs, a table, bf16 or several processes cannot be had; "" where they can."""

    graph: str = ""
    table: str = ""
    bf16: str = ""
    processes: str = ""


def ladder(precision, threads, processes, obstacles):
    """The rungs in their order; precision, threads: of R0; processes: of the rungs with several."""
    rungs, options, before = [Rung(name, "plain", "R0", precision, {}, threads) for name in ("R0", NOISE)], {}, "R0"
    for name, change in PLAIN.items():
        options = options | change
        rungs.append(Rung(name, "plain", before, precision, options, threads))
        before = name
    several = 1 if threads else None  # on a CPU its cores are shared out
    live = "CUDA graph" if not obstacles.graph else "engine"
    found = [("engine", before, {"driver": "eager"}, ""), ("CUDA graph", "engine", {"driver": "graph"}, obstacles.graph)]
    driver = {"driver": "auto"}
    found.append(("logit table", live, {**driver, "table": True}, obstacles.table))
    for name, before, options, obstacle in found:
        rungs.append(Rung(name, "engine", before, precision, options, threads, obstacle=obstacle))
    for name, options, obstacle in ((live, driver, ""), ("logit table", {**driver, "table": True}, obstacles.table)):
        bf16, parallel = f"{name}, bf16", f"{name}, {processes} processes"
        rungs += [
            Rung(bf16, "engine", name, "bf16", options, threads, obstacle=obstacle or obstacles.bf16),
            Rung(parallel, "engine", name, precision, options, several, processes, obstacle or obstacles.processes),
            Rung(
                f"{bf16}, {processes} processes",
                "engine",
                bf16,
                "bf16",
                options,
                several,
                processes,
                obstacle or obstacles.bf16 or obstacles.processes,
            ),
        ]
    return rungs
