"""Every run of a suite, with where it stands and what it took."""

from math import nan

from distillbench.reporting.sheet import Cell, Column, Count, Line, Number, Sheet, Text

LEGEND = "A run that stands in several cells is listed once. `distillbench show RUN` prints all that is known of it."


def runs_sheet(suite, runs, scope):
    """The `sheet.Sheet` of the runs of `evidence.gather`."""
    columns = (
        Column("row", "row"),
        Column("pair", "pair"),
        Column("seed", "seed", align="right"),
        Column("run", "run"),
        Column("last", f"{scope.compared.heading} last", align="right"),
        Column("best", f"{scope.compared.heading} best", align="right"),
        Column("epochs", "epochs", align="right"),
        Column("time", "time"),
        Column("images_per_second", "images/s", align="right", form=".0f"),
        Column("device", "device"),
    )
    lines = (Line(tuple(map(Cell, _values(run))), run.role) for run in runs)
    return Sheet("runs", suite, f"All {len(runs)} runs", columns, tuple(lines), LEGEND)


def _values(run):
    record, accuracy = run.record, run.accuracy
    best = Number(accuracy.get("best", nan))
    epochs = Count(run.specification["schedule"]["EPOCHS"])
    seconds = duration(record["seconds"]) if record else "-"
    speed, device = record.get("images_per_second") or nan, record.get("device", "no record")
    places = (Text(", ".join(run.rows)), Text(", ".join(run.pairs)), Count(run.seed), Text(run.id))
    return (*places, _last(run), best, epochs, Text(seconds), Number(speed), Text(device))


def _last(run):
    """The accuracy, or why there is none."""
    state, detail = run.state
    if not run.record and not run.accuracy:
        return Text(f"{state}: {detail}" if detail else state)
    if state != "damaged":
        return Number(run.accuracy.get("last", nan))
    value = f"{run.accuracy['last']:.2f}" if "last" in run.accuracy else "-"
    return Text(f"{value} ({state}: {detail})")


def duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
