"""What a job does with one run: train it, predict with it, compute its metrics, or whatever of these is missing."""

import os
from contextlib import suppress
from pathlib import Path

from distillbench.config import own_files
from distillbench.config.implemented import require_file
from distillbench.config.specification import read_specification
from distillbench.errors import RunFailed, UserError
from distillbench.files import read_json
from distillbench.group import is_alone, joined
from distillbench.loggers import open_loggers, require
from distillbench.store.claim import claim
from distillbench.store.layout import CHECKPOINTS
from distillbench.store.place import require_own, require_work
from distillbench.store.tables import Key, table_path


def complete(store, run, *, device="auto", workers=None, report=print, **options):
    """Make a run whole: train it where its training is missing, predict, and compute the metrics, which come last.

    store: `Store`; run: id of a run that is planned or here; the rest: as for `train`.
    Raises UserError or RunFailed as the stages do, and UserError in one of several processes, of which one would wait
    for the claim and the other for the group; what an earlier stage made stays.
    """
    if not is_alone():
        raise UserError("complete: is for one process; start `train` with torchrun, and complete the run afterwards")
    with claim(store.work(run), report=report):
        report(run)
        missing, teacher = store.missing(run), store.specification(run)["teacher"]
        if "training" in missing:
            how = {"device": device, "workers": workers, "report": report, **options}
            train(store, store.planned(run), store.run(run), store.work(run), **how)
        if "predictions" in missing:
            predict(store, run, device, workers)
        if teacher and not store.predicted(teacher["id"], teacher["checkpoint"]):
            predict(store, teacher["id"], device, workers)
        measure(store, run, report)


def train(store, spec, out, work, *, log=(), report=print, **options):
    """Train a run from the file of its specification.

    spec, out, work: paths of the specification, of the directory that becomes complete, and of the state in flight,
    which is the store's where `out` is, else by default beside it;
    log: packages of loggers.py; options: of `engine.run.train`. Where torchrun started several processes, each calls
    this.
    """
    group = joined()
    if group.rank:
        return _assist(group, store, spec, out, work, options)
    specification, source = read_specification(spec), read_json(spec).get("source")
    require_file(spec)
    ours, work = _work(store, specification, out, work)
    if not ours:
        require_own(out, specification, work)
    require_work(work)
    with claim(work, report=report):  # now: whatever fails from here on leaves its reason
        report(f"{specification.id} -> {out}")
        from distillbench.engine.run import train as train_run

        source = _with_own_files(source)
        require(log)
        train_run(
            specification,
            _images(specification, source, report=report),
            out,
            work=work,
            runs=store.runs,
            source=source,
            report=report,
            logger=lambda: open_loggers(log, specification, store.results / "logs"),
            group=group,
            **options,
        )


def _work(store, specification, out, work):
    """(whether a run is trained to its place in the store, its work directory)"""
    ours = os.path.abspath(out) == os.path.abspath(store.run(specification.id))
    return ours, work or (store.work(specification.id) if ours else f"{str(out).rstrip('/')}.work")


def _assist(group, store, spec, out, work, options):
    """Train with the first process of a group, once that is ready: silently where it has the same to say."""
    try:
        if not group.tell():
            return
        from distillbench.engine.run import train as train_run

        specification = read_specification(spec)
        source = _with_own_files(read_json(spec).get("source"))
        _, work = _work(store, specification, out, work)
        how = {"runs": store.runs, "report": lambda line: None, "group": group, **options}
        train_run(specification, _images(specification, source, report=how["report"]), out, work, **how)
    except RunFailed:
        raise SystemExit(1) from None


def predict(store, run, device="auto", workers=None, anew=False):
    """Write the predictions of a finished run that are missing or stale, or, with `anew`, all.

    workers: see `engine.run.train`.
    """
    with claim(store.work(run)):
        stale = store.stale(run)
        missing = [c for c in CHECKPOINTS if anew or not store.predicted(run, c) or ("predictions", c) in stale]
        if not missing:
            return
        from distillbench.evaluation.predictions import predict as predict_run

        _use_own_files(store, run)
        planned = read_json(store.planned(run)) if store.planned(run).exists() else {}
        images = _images(store.specification(run), planned.get("source"), ("test",))
        for checkpoint in missing:
            predict_run(store.run(run), checkpoint, images, device, workers)


def make_table(store, run, checkpoint, device="auto", report=print):
    """Make the table of a finished run's logits, see `evaluation.tabulate`."""
    with claim(store.work(run), report=report):
        from distillbench.evaluation.tabulate import tabulate

        _use_own_files(store, run)
        path = table_path(store.results, Key(run, checkpoint))
        tabulate(store.run(run), checkpoint, _images(store.specification(run)), path, device, report)


def _with_own_files(source):
    """The source of a run, for its record, with the text of its own method and networks, which are in use from now."""
    methods, networks = _own_files(source)
    if methods or networks:
        own_files.use(methods, networks)
    for file in methods:
        source = {**source, "method_source": _text(file)}
    return {**source, "network_sources": {file: _text(file) for file in networks}} if networks else source


def _own_files(source):
    """([file of the method], [files of networks]) that a run's source names."""
    source = source or {}
    return list(filter(None, [source.get("method_file")])), source.get("network_files", [])


def _text(file):
    return Path(file).read_text(encoding="utf-8")


def _use_own_files(store, run):
    """Make the user's own method and networks of a run known, as far as their files are still there."""
    methods, networks = _own_files((store.record(run) or {}).get("source"))
    try:
        own_files.use(methods, networks)
    except UserError:
        with suppress(UserError):  # most runs leave a network that needs no method
            own_files.use(networks=networks)


def measure(store, run, report=print):
    """Write the metrics of a run from its predictions and those of its teacher."""
    from distillbench.evaluation.measure import write_metrics

    with claim(store.work(run)):
        for checkpoint in CHECKPOINTS:
            values = write_metrics(store, run, checkpoint)["metrics"]
            report(f"{run} {checkpoint}: " + ", ".join(f"{v['metric']} {v['value']:.4g}" for v in values))


def _images(specification, source=None, splits=("training", "test"), report=print):
    """The images of a run, in files those of `splits` on this machine's own disk where its source names one."""
    from distillbench import data
    from distillbench.data.stage import staged

    name, folder = specification["dataset"]["name"], (source or {}).get("stage")
    images = data.load(name, data.data_path(name))
    return staged(images, name, splits, folder, report) if folder and isinstance(images, data.Files) else images
