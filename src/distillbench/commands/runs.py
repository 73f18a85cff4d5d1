"""Commands on single runs: train, evaluate, look."""

import os
from pathlib import Path

import click

from distillbench.commands.base import command
from distillbench.commands.types import File, Folder, RunName, argument, device, option, run


@command("train")
@option("--spec", File("specification file; `plan` writes them to results/specs/"), required=True)
@option("--out", Folder("directory of the finished run"), required=True)
@option("--work", Folder("directory of the state in flight (default: OUT.work)"))
@device
@click.option("--save-seconds", type=float, default=30.0, help="save the state this often (default: 30)")
@click.option(
    "--log", multiple=True, type=click.Choice(["tensorboard", "wandb"]), help="log each epoch there, too; repeatable"
)
@click.option("--again", is_flag=True, help="also where the run is finished; it stays until the new one is complete")
def train(spec, out, work, device, save_seconds, log, again):
    """Train one run, teacher or student, from its specification.

    Interrupted, the same command goes on where it stopped.
    """
    from distillbench.claim import claim
    from distillbench.config import method_files
    from distillbench.config.implemented import require_file
    from distillbench.config.specification import read_specification
    from distillbench.files import read_json
    from distillbench.loggers import open_loggers, require
    from distillbench.store import Store, require_own, require_work

    specification, source = read_specification(spec), read_json(spec).get("source")
    require_file(spec)
    work, store, name = work or f"{out.rstrip('/')}.work", Store(), specification["dataset"]["name"]
    if os.path.abspath(out) != os.path.abspath(store.run(specification.id)):
        require_own(out, specification, work)
    require_work(work)
    with claim(work, report=_say):  # now: whatever fails from here on leaves its reason
        print(f"{specification.id} -> {out}", flush=True)
        from distillbench import data as datasets
        from distillbench.engine.run import train as train_run

        if source and source.get("method_file"):
            method_files.use([source["method_file"]])
            source = {**source, "method_source": Path(source["method_file"]).read_text(encoding="utf-8")}
        require(log)
        train_run(
            specification,
            datasets.load(name, datasets.data_path(name)),
            out,
            work=work,
            runs=store.runs,
            device=device,
            save_seconds=save_seconds,
            source=source,
            report=_say,
            logger=lambda: open_loggers(log, specification, store.results / "logs"),
            again=again,
        )


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
def evaluate(run, stage, device):
    """Write predictions and metrics of a finished run.

    predictions.npz and metrics.json, each for its last and its best epoch. Predictions that are here are kept unless
    they are stale or --stage predictions asks for them.
    """
    from distillbench import data as datasets
    from distillbench.claim import claim
    from distillbench.evaluation import CHECKPOINTS
    from distillbench.store import Store

    store = Store()
    with claim(store.work(run)):
        if stage == "predictions":
            missing = CHECKPOINTS
        else:
            stale = store.stale(run)
            missing = [c for c in CHECKPOINTS if not store.predicted(run, c) or ("predictions.npz", c) in stale]
        if missing and stage != "metrics":
            from distillbench.evaluation.predictions import predict

            name = store.specification(run)["dataset"]["name"]
            images = datasets.load(name, datasets.data_path(name))
            for checkpoint in missing:
                predict(store.run(run), checkpoint, images, device)
        if stage != "predictions":
            from distillbench.evaluation.metrics import write_metrics

            for checkpoint in CHECKPOINTS:
                values = write_metrics(store, run, checkpoint)["metrics"]
                print(f"{run} {checkpoint}: " + ", ".join(f"{v['metric']} {v['value']:.4g}" for v in values))


@command("ls")
def ls():
    """List the runs in results/runs.

    Each with its last-epoch accuracy, or with what keeps it from having one.
    """
    from distillbench.store import LookingStore

    store = LookingStore()
    for found in store.ids():
        entries = {entry["metric"]: entry["value"] for entry in store.metrics(found, "last") or ()}
        state, detail = store.state(found)
        facts = [f"{entries['top1']:.2f}"] if "top1" in entries else [state]
        if state in ("damaged", "in part", "stale"):
            facts = [*(facts if "top1" in entries else ()), f"{state}: {detail}"]
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
    elif specification := store.attempt(run, lambda: store.specification(run)):
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


COMMANDS = (train, evaluate, ls, show, diff)
