"""What a benchmark found, as JSON and as text."""

from distillbench.benchmark.ladder import NOISE
from distillbench.benchmark.measuring import noise, ratio
from distillbench.config.schema import SOLVER

IMAGES, EPOCHS = 50_000, 240  # of a run, to which a table's cost is charged
ROWS, SEEDS = 8, 5  # of a suite: so many runs share a table
SUITE = ROWS * SEEDS


class Result:
    """The numbers of a `bench.Climbed`."""

    def __init__(self, climbed):
        self.climbed = climbed
        self.measured = {measured.rung.name: measured for measured in climbed.measured}
        self.reference = self.measured["R0"].rate
        again = self.measured.get(NOISE)
        self.noise = noise(self.measured["R0"].rates, again.rates) if again and again.rates else 0.0

    @property
    def recommended(self):
        """What the default precision of a run is on this device."""
        default = SOLVER["PRECISION"].default
        return self.climbed.precision if default == "tf32" else default  # as which R0 computes, see `bench.Climb`

    @property
    def failed(self):
        """{name of a rung: why it failed}"""
        return {measured.rung.name: measured.reason for measured in self.climbed.measured if measured.reason}

    def ratio(self, measured):
        return ratio(measured.rate, self.reference)

    def step(self, measured):
        """The ratio to the rung that this one changes, None where that has no number."""
        before = self.measured.get(measured.rung.before)
        return before and ratio(measured.rate, before.rate)

    @property
    def table_seconds(self):
        """What the table of all images of a run would take at the rate at which the measured one was made."""
        return self.climbed.table.seconds * IMAGES / self.climbed.table.images

    def charged(self, measured, runs):
        """The ratio to R0 of whole runs, `runs` of which share the cost of a rung's table."""
        if measured.rate is None or not measured.rung.table:
            return self.ratio(measured)
        seconds = IMAGES * EPOCHS / measured.rate + self.table_seconds / runs
        return ratio(IMAGES * EPOCHS / seconds, self.reference)

    def best(self, precision, table):
        """The fastest rung of the engine in a precision, with a table or without; None if there is none."""
        found = [m for m in self.climbed.measured if m.rate and m.rung.kind == "engine"]
        found = [m for m in found if (m.rung.precision, m.rung.table) == (precision, table)]
        return max(found, key=lambda measured: self.charged(measured, SUITE), default=None)


def as_json(results, environment):
    """The content of the JSON file. environment: of `record.provenance`."""
    rungs, charged, not_run, ladders = [], [], [], []
    for result in results:
        found = result.climbed
        what = {"pair": ":".join(found.pair), "method": found.method}
        for measured in found.measured:
            row = {**what, "rung": measured.rung.name}
            rungs.append({**row, "device": found.device, **_numbers(measured, result.ratio(measured))})
            if measured.rung.table and measured.rate:
                shares = {"one_run": result.charged(measured, 1), "suite_run": result.charged(measured, SUITE)}
                charged.append({**row, "precision": measured.rung.precision, **shares})
        not_run += [{**what, "rung": rung, "reason": reason} for rung, reason in found.not_run.items()]
        table = found.table and {**found.table._asdict(), "seconds_of_all_images": result.table_seconds}
        facts = {"precision": found.precision, "noise": result.noise, "workers": found.workers}
        ladders.append({**what, **facts, "table": table, "operations": found.operations, "failed": result.failed})
    assumed = {"images": IMAGES, "epochs": EPOCHS, "runs_of_a_suite": SUITE}
    content = {"schema": 1, "environment": environment, "rungs": rungs, "not_run": not_run}
    return {**content, "charged": charged, "charged_to": assumed, "ladders": ladders}


def as_text(result):
    """The ladder of a pair and a method for a terminal."""
    found = result.climbed
    lines = [f"{':'.join(found.pair)}  {found.method}  on {found.device}, R0 in {found.precision}", ""]
    head = ("", "precision", "img/s", "[min, max]", "x R0", "x before", "one run", "suite", "gate")
    rows = [head, *(_row(result, measured) for measured in found.measured)]
    lines += _in_columns(rows)
    lines += ["", f"=: within the noise, {100 * result.noise:.1f} %, by which R0 differs from itself in a round."]
    lines += [f"R0's loader: {found.workers} workers, the best of those tried."]
    lines += _about_table(result) if found.table else []
    lines += _about_best(result)
    if found.operations:
        counts = ", ".join(f"{count} {kind}" for kind, count in found.operations.items())
        lines.append(f"Operations of an engine's step that compute, no views and no allocations: {counts}.")
    lines += [f"{rung}: FAIL: {reason}" for rung, reason in result.failed.items()]
    lines += [f"{rung}: not run: {reason}" for rung, reason in found.not_run.items()]
    return "\n".join(lines)


def _row(result, measured):
    rung = measured.rung
    if measured.reason:
        return (rung.name, rung.precision, "FAIL", *[""] * 5, "fail")
    ratios = [_times(result.noise, value) for value in (result.ratio(measured), result.step(measured))]
    shares = [_times(result.noise, result.charged(measured, runs)) if rung.table else "" for runs in (1, SUITE)]
    return (rung.name, rung.precision, *_rates(measured), *ratios, *shares, "pass")


def _rates(measured):
    """The median, and the least and the largest."""
    return f"{measured.rate:.0f}", f"[{min(measured.rates):.0f}, {max(measured.rates):.0f}]"


def _times(noise, value):
    """A ratio, or "=" where it is no more than noise."""
    if value is None:
        return ""
    return "=" if abs(value - 1) <= noise else f"{value:.2f}"


def _numbers(measured, ratio):
    rates = measured.rates
    spread = {"img_s_min": min(rates, default=None), "img_s_max": max(rates, default=None)}
    return {"img_s": measured.rate, **spread, "ratio": ratio, "gate": measured.gate}


def _in_columns(rows):
    """Lines of rows of texts: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _about_table(result):
    table, seconds = result.climbed.table, result.table_seconds
    views = table.views // table.images
    return [
        f"The table: {views} views of {table.images} images in {table.seconds:.1f} s, so {seconds:.0f} s for {IMAGES}.",
        f"one run: all of it charged to a run of {EPOCHS} epochs; suite: a share of 1 / {SUITE}, of {ROWS} rows and"
        f" {SEEDS} seeds.",
    ]


def _about_best(result):
    """The ratios at R0's precision and in bf16, with a table and for methods that cannot use one."""
    equal, lines = result.climbed.precision, []
    for precision in (equal, "bf16"):
        names = [f"equal precision, {equal}"] if precision == equal else [precision]
        if precision == result.recommended:
            names.append("the recommended one")
        for table, words in ((True, "with a table"), (False, "without a table")):
            if best := result.best(precision, table):
                shares = f" ({result.charged(best, 1):.2f} one run, {result.charged(best, SUITE):.2f} suite)" * table
                ratio = f"{result.ratio(best):.2f} x R0{shares}"
                lines.append(f"{', '.join(names)}, {words}: {ratio}: {best.rung.name}")
    return lines


# Of loading


def loading_as_json(loaded, environment):
    """The content of the JSON file of a `loading.Loaded`. environment: of `record.provenance`."""
    reference, noise = _reference(loaded)
    rows = [{"way": m.rung, **_numbers(m, ratio(m.rate, reference.rate))} for m in loaded.measured]
    return {"schema": 1, "environment": environment, "files": loaded.files, "noise": noise, "ways": rows}


def loading_as_text(loaded):
    """The ways from files to batches for a terminal."""
    (reference, noise), files = _reference(loaded), loaded.files
    lines = [f"{files['count']} files, {files['width']}x{files['height']} and {files['kB']} kB: {files['from']}", ""]
    rows = [("", "img/s", "[min, max]", "x Pillow", "gate")]
    for m in loaded.measured:
        numbers = (*_rates(m), _times(noise, ratio(m.rate, reference.rate))) if m.rates else ("FAIL", "", "")
        rows.append((m.rung, *numbers, m.gate))
    lines += [*_in_columns(rows), "", "Images a second of one core, by the time of the processor in one thread."]
    lines.append(f"=: within the noise, {100 * noise:.1f} %, by which the first way differs from itself in a round.")
    return "\n".join(lines + [f"{m.rung}: FAIL: {m.reason}" for m in loaded.measured if m.reason])


def _reference(loaded):
    """(the published loader's `Measured`, the noise)"""
    reference, again = loaded.measured[:2]
    return reference, noise(reference.rates, again.rates)
