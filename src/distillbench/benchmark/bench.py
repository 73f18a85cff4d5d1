"""The benchmark: for each pair and method every rung is built, gated, and timed in rounds with all others."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from distillbench.benchmark import experiment, gate
from distillbench.benchmark.archive import Archive, generate
from distillbench.benchmark.experiment import Job, Size
from distillbench.benchmark.ladder import NOISE, Rung, ladder
from distillbench.benchmark.measuring import Measured, in_rounds
from distillbench.benchmark.obstacles import obstacles, threads_and_processes
from distillbench.benchmark.processes import Broken, Processes, Refused
from distillbench.engine.device import effective_precision
from distillbench.errors import one_line

PAIRS = {"cpu": "resnet56:resnet20", "cuda": "resnet32x4:resnet8x4,wrn_40_2:wrn_16_2"}
WORKERS = {"cpu": (0, 1, 2, 4), "cuda": (2, 4, 8)}  # of R0's loader, of which it takes the best
FULL = {"cpu": Size(resident=512), "cuda": Size()}
QUICK = {
    "cpu": Size(resident=64, gated=16, rounds=2, seconds=1.0),
    "cuda": Size(resident=5_000, rounds=2, seconds=2.0),
}


class TableCost(NamedTuple):
    """What making a table took: views of the resident images, in seconds."""

    views: int
    seconds: float


class Climbed(NamedTuple):
    """The ladder of a pair and a method. measured: [Measured]; not_run: [(rung, reason)]; table: `TableCost` or None;
    workers: of R0's loader; operations: of a step, {"observed", "plain"}, or None.
    """

    pair: tuple
    method: str
    measured: list
    not_run: list
    table: TableCost | None
    workers: int | None
    operations: dict | None


def bench(pairs, methods, device, size, upstream=None, data=None, report=print):
    """[Climbed]. pairs: [(teacher, student)]; methods: as of `experiment.keys_of`; device: torch's; size: `Size`;

    upstream: (folder, commit) of mdistiller; data: the folder of CIFAR-100, None for generated images; report: called
    with a line at every turn of the work.
    """
    with TemporaryDirectory(prefix="distillbench-") as folder:
        folder = Path(folder)
        archive = Archive(str(data)) if data else generate(folder / "data", size.images)
        experiment.write_resident(folder / experiment.RESIDENT, *archive.arrays(), size.resident)
        found = []
        for pair in pairs:
            experiment.write_teacher(pair[0], folder / experiment.TEACHER)
            (folder / experiment.TABLE).unlink(missing_ok=True)
            table = None
            for method in methods:
                job = Job(pair, method, None, str(device), archive, folder, size, upstream and upstream[0])
                say = _prefixed(report, f"{':'.join(pair)} {method}")
                found.append(_climb(job, device, upstream, table, say))
                table = found[-1].table or table
        return found


def _climb(job, device, upstream, table, report):
    precision = effective_precision("tf32", device)
    threads, processes = threads_and_processes(device)
    rungs = ladder(precision, threads, processes, obstacles(job._replace(rung=_probe(precision)).specification, device))
    if upstream:
        rungs.insert(0, _upstream(upstream[1], precision, threads, device))
    not_run = [(rung, rung.obstacle) for rung in rungs if rung.obstacle]
    rungs = [rung for rung in rungs if not rung.obstacle]
    if table is None and any(rung.table for rung in rungs):
        report("making the table")
        table = _table(job._replace(rung=Rung("table", "table", "", precision, {}, threads)))
    with ExitStack() as stack:
        started, failed = {}, {}
        ...
