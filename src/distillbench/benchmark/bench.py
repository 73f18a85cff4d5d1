"""The benchmark: for each pair and method every rung is built, gated, and timed in rounds with all others."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from distillbench.benchmark import experiment, gate
from distillbench.benchmark.archive import Archive, generate
from distillbench.benchmark.experiment import Job, Size
from distillbench.benchmark.ladder import ladder
from distillbench.benchmark.measuring import Measured, in_rounds
from distillbench.benchmark.obstacles import obstacles, threads_and_processes
from distillbench.benchmark.processes import Broken, Processes, Refused
from distillbench.engine.device import effective_precision, prepare_device
from distillbench.errors import RunFailed

WORKERS = {"cpu": (0, 1, 2, 4), "cuda": (2, 4, 8)}  # of R0's loader, of which it takes the best
FULL = {"cpu": Size(resident=512), "cuda": Size(seconds=2.0)}
QUICK = {  # two minutes on two cores
    "cpu": Size(resident=64, gated=16, rounds=2, seconds=1.0),
    "cuda": Size(resident=5_000, rounds=2, seconds=1.0),
}


class Table(NamedTuple):
    """What making the table of the resident images took. images: how many; views: of all of them together."""

    images: int
    views: int
    seconds: float


class Climbed(NamedTuple):
    """The ladder of a pair and a method.

    device: its type; precision: of R0; measured: [`Measured`]; not_run: {name of a rung: reason}; table: `Table` or
    None; workers: of R0's loader; operations: of a step of the engine, {"observed", "not observed"}.
    """

    pair: tuple
    method: str
    device: str
    precision: str
    measured: list
    not_run: dict
    table: Table | None
    workers: int
    operations: dict


def device_of(name):
    """torch's device of a name, as of `prepare_device`, which also raises."""
    return prepare_device(experiment.specification(("resnet56", "resnet20"), "KD", "fp32", 1), name)


def bench(pairs, methods, device, size, upstream=None, data=None, report=print):
    """Yield the `Climbed` of each pair and method.

    pairs: [(teacher, student)]; methods: as of `experiment.keys_of`; device: torch's; size: `Size`; upstream: folder
    and name of a checkout of mdistiller; data: the folder of CIFAR-100, None for generated images; report: called with
    a line at every turn of the work.
    Raises UserError for a pair or method that there is none of, before any work; RunFailed if R0 cannot be run.
    """
    for pair in pairs:
        for method in methods:
            experiment.specification(pair, method, "fp32", 1)
    with TemporaryDirectory(prefix="distillbench-") as folder:
        folder = Path(folder)
        archive = Archive(str(data)) if data else generate(folder / "data", size.images)
        experiment.write_resident(folder / experiment.RESIDENT, *archive.arrays(), size.resident)
        for pair in pairs:
            experiment.write_teacher(pair[0], folder / experiment.TEACHER)
            (folder / experiment.TABLE).unlink(missing_ok=True)
            table = None
            for method in methods:
                job = Job(pair, method, None, str(device), archive, folder, size, upstream and upstream[0])
                climb = Climb(job, device, upstream and upstream[1], report)
                table = climb.prepare(table)
                yield climb.result()


class Climb:
    """The ladder of a job, whose rung is filled in."""

    def __init__(self, job, device, upstream, report):
        self.job, self.device, self.report = job, device, report
        self.precision, (threads, processes) = effective_precision("tf32", device), threads_and_processes(device)
        specification = experiment.specification(job.pair, job.method, self.precision, threads or 1)
        rungs = ladder(self.precision, threads, processes, obstacles(specification, device), upstream)
        self.rungs = [rung for rung in rungs if not rung.obstacle]
        self.not_run, self.failed = {rung.name: rung.obstacle for rung in rungs if rung.obstacle}, {}
        self.table = self.reference = self.workers = self.operations = None

    def say(self, line):
        self.report(f"{':'.join(self.job.pair)} {self.job.method}: {line}")

    def processes(self, rung):
        return Processes(self.job._replace(rung=rung))

    def prepare(self, table):
        """Make the logit table, unless it is here (its `Table`) or no rung uses one; the `Table`."""
        if table is None and any(rung.table for rung in self.rungs):
            self.say(f"the logit table of {self.job.size.resident} images")
            try:
                with self.processes(self.rungs[0]._replace(name="table", kind="table")) as maker:
                    maker.ready()
                    table = Table(self.job.size.resident, *maker.ask("write")[0])
            except (Refused, Broken) as problem:
                raise RunFailed(f"the logit table: {problem}") from None
        self.table = table
        return table

    def result(self):
        """Gate all rungs and time those that pass. Raises RunFailed if R0 is not among them."""
        with ExitStack() as stack:
            running = {}
            for number, rung in enumerate(self.rungs, 1):
                self.say(f"gate {number} of {len(self.rungs)}: {rung.name}")
                try:
                    processes = stack.enter_context(self.processes(rung))
                    reason = self.gated(rung, processes)
                except Refused as refusal:
                    self.not_run[rung.name] = str(refusal)
                    continue
                except Broken as problem:
                    reason = str(problem)
                if reason:
                    self.fail(rung.name, reason)
                else:
                    running[rung.name] = processes
            rates = self.timed(running)
        measured = [
            Measured(rung, tuple(rates.get(rung.name, ())), self.failed.get(rung.name, ""))
            for rung in self.rungs
            if rung.name not in self.not_run
        ]
        facts = (self.not_run, self.table, self.workers, self.operations)
        return Climbed(self.job.pair, self.job.method, self.device.type, self.precision, measured, *facts)

    def gated(self, rung, processes):
        """Why a rung fails, or "". Raises Refused or Broken."""
        processes.ready()
        traces = processes.ask("trace", gate.STEPS, self.job.size.gated)
        self.reference = self.reference or traces[0]
        if rung.loads:
            candidates = WORKERS[self.device.type] if self.workers is None else (self.workers,)
            self.workers = processes.ask("choose_workers", candidates)[0]
        if rung.name == "engine":
            (self.operations,) = processes.ask("operations")
        passed = all(gate.passes(trace, self.reference, rung.precision) for trace in traces)
        return "" if passed else "other losses than R0's on the same batches"

    def fail(self, name, reason):
        """Note that a rung has no number. Raises RunFailed if that is R0."""
        if name == "R0":
            raise RunFailed(f"R0: {reason}; there is nothing to compare with")
        self.failed[name] = reason

    def timed(self, running):
        """{name: [images per second, one a round]}; a rung that breaks moves to the failed ones."""
        size, rates = self.job.size, {name: [] for name in running}
        for number, names in enumerate(in_rounds([*running], 1 + size.rounds)):  # in the first they get up to speed
            self.say(f"round {number} of {size.rounds}" if number else "warm-up")
            for name in names:
                try:
                    rate = sum(running[name].ask("images_per_second", size.seconds)) if name in rates else 0
                except (Refused, Broken) as problem:
                    self.fail(name, str(problem))
                    del rates[name]
                else:
                    rates.get(name, []).extend([rate] if number else [])
        return rates
