"""Commands on single runs: train, evaluate, look."""

import click

from distillbench.commands.base import command
from distillbench.commands.types import File, Folder, PlannedRun, RunName, argument, device, option, run

log = click.option(
    "--log", multiple=True, type=click.Choice(["tensorboard", "wandb"]), help="log each epoch there, too; repeatable"
)
driver = click.option(
    "--driver",
    type=click.Choice(["auto", "eager", "graph"]),
    default="auto",
    help="how steps run: one by one, or replayed from a CUDA graph; auto takes the graph on a GPU (default)",
)
deterministic = click.option(
    "--deterministic", is_flag=True, help="also on a GPU a resumed run is bit for bit the run uninterrupted; slower"
)

workers = click.option(
    "--workers",
    type=click.IntRange(0),
    help="processes that decode images, of a data set of files (default: the cores left free); changes no number",
)
table = click.option(
    "--table",
    type=click.Choice(["auto", "never"]),
    default="auto",
    help="look the teacher's logits up where there is a table of them, or never (default: auto)",
)


@command("train")
@option("--spec", File("specification file; `plan` writes them to results/specs/"), required=True)
@option("--out", Folder("directory of the finished run"), required=True)
@option("--work", Folder("directory of the state in flight (default: the run's in results/work, or OUT.work)"))
@device
@driver
@deterministic
@click.option("--save-seconds", type=float, default=30.0, help="save the state this often (default: 30)")
@log
@click.option("--again", is_flag=True, help="also where the run is finished; it stays until the new one is complete")
@table
@workers
def train(spec, out, work, **options):
    """Train one run, teacher or student, from its specification.

    Interrupted, the same command goes on where it stopped.
    """
    from distillbench import jobs
    from distillbench.store import Store

    jobs.train(Store(), spec, out, work, **options, report=_say)


@command("complete")
@argument("run", PlannedRun())
@device
@driver
@deterministic
@log
@table
@workers
def complete(run, **options):
    """Make a planned run whole (a rule of the workflow).

    It is trained, predicts, and has its metrics computed, as far as these are missing or stale.
    """
    from distillbench import jobs
    from distillbench.store import Store

    jobs.complete(Store(), run, **options, report=_say)


@command("table")
@run
@click.option(
    "--checkpoint", type=click.Choice(["last", "best"]), default="last", help="of its weights (default: last)"
)
@device
def make_table(run, checkpoint, device):
    """Make the table of a finished run's logits for all views of all training images (a rule of the workflow).

    Students that need no more of their teacher than its logits look them up there. Interrupted, the same command goes
    on where it stopped; a table that is there is verified, and made again if it is damaged or of other weights.
    """
    from distillbench import jobs
    from distillbench.store import Store

    jobs.make_table(Store(), run, checkpoint, device, report=_say)


def _say(line):
    print(line, flush=True)


@command("evaluate")
@run
@click.option(
    "--stage",
    type=click.Choice(["predictions", "metrics", "both"]),
    default="both",
    help="what to make (default: both)",
)
@device
@workers
def evaluate(run, stage, device, workers):
    """Write predictions and metrics of a finished run.

    predictions.npz and metrics.json, each for its last and its best epoch. Predictions that are here are kept unless
    they are stale or --stage predictions asks for them.
    """
    from distillbench import jobs
    from distillbench.store import Store
    from distillbench.store.claim import claim

    store = Store()
    with claim(store.work(run)):
        if stage != "metrics":
            jobs.predict(store, run, device, workers, anew=stage == "predictions")
        if stage != "predictions":
            jobs.measure(store, run)


@command("ls")
def ls():
    """List the runs in results/runs.

    Each with its last-epoch accuracy, or with what keeps it from having one.
    """
    from distillbench.store import LookingStore

    store = LookingStore()
    for found in store.ids():
        value, (state, detail) = store.headline(found, "last"), store.state(found)
        facts = [state] if value is None else [f"{value:.2f}"]
        if state in ("damaged", "in part", "stale"):
            facts = [*(facts if value is not None else ()), f"{state}: {detail}"]
        if older := store.older(found):
            facts.append(f"(older code: {older})")
        print("  ".join([found, *facts]))
    return store.told


@command("show")
@run
def show(run):
    """Show a run's specification, record and metrics, as far as they are here."""
    from distillbench.files import to_json
    from distillbench.store import LookingStore

    store = LookingStore()
    state, detail = store.state(run)
    if state == "in part":
        print(f"{state}: {detail}")
    if store.specified(run) and (specification := store.attempt(run, lambda: store.specification(run))):
        print(to_json(specification.as_file()), end="")
    if older := store.older(run):
        print(f"older code: {older}")
    if record := store.record(run):
        print(to_json({"record": record}), end="")
    for checkpoint in ("last", "best"):
        for entry in store.metrics(run, checkpoint) or ():
            print(f"{checkpoint:5} {entry['split']} {entry['metric']:13} {entry['value']:.4f}")
    return store.told


@command("diff")
@run
@argument("other", RunName())
def diff(run, other):
    """Show where two runs' specifications differ."""
    from distillbench.config.specification import flat
    from distillbench.store import Store

    store = Store()
    sides = [flat(store.specification(name).data) for name in (run, other)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        left, right = (side.get(key, "(absent)") for side in sides)
        if left != right:
            print(f"{key}: {left} -> {right}")


COMMANDS = (train, complete, make_table, evaluate, ls, show, diff)
