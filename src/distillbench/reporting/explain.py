"""From a cell of a table to what stands behind it: runs, files, commands, provenance, and its control."""

from distillbench.command_lines import command, workflow
from distillbench.config.specification import flat
from distillbench.errors import UserError, one_of
from distillbench.planning import plan_where_possible
from distillbench.reporting.render.text import footnote, text
from distillbench.reporting.results import read_results
from distillbench.store.layout import parts
from distillbench.store.record import processor_text


def explain(suite_name, name):
    """(text on a cell, lines on what is damaged). name: ROW/PAIR[/sSEED], or ROW with one pair.

    Raises UserError for a row, pair or seed that the suite has not.
    """
    (suite, _), results = plan_where_possible(suite_name), read_results(suite_name, partial=True)
    table, store = results.table, results.store
    cells = _find(suite, name)
    row, pair = cells[0].row, cells[0].pair
    entry = table.entries[row, pair]
    notes = dict.fromkeys(note for cell in cells for note in cell.notes)
    source = "; ".join([f"{suite.source}, row {row}", *notes])
    part = cells[0].name if name.count("/") == 2 else f"{row}/{pair}"
    lines = [
        f"{row}, {pair}, suite {suite_name}: {_cell_text(results.main, row, pair)}",
        *_aligned([("source", source), ("workflow", workflow(suite_name, part))]),
    ]
    for cell in cells:
        lines += ["", *_run(cell, entry, store)]
    lines += ["", *_control(suite, table, entry, cells)]
    return "\n".join(lines) + "\n", results.problems


def _find(suite, name):
    """The cells that a name means, at least one."""
    parts, cells = name.strip().split("/"), suite.cells
    if len(parts) > 3:
        raise UserError(f"{name}: a cell is ROW/PAIR or ROW/PAIR/sSEED")
    for wanted, what, value in zip(parts, ("row", "pair", "seed"), (_row, _pair, _seed), strict=False):
        found = [cell for cell in cells if value(cell) == wanted]
        if not found:
            raise UserError(f"{name}: {one_of(wanted, set(map(value, cells)), what)}")
        cells = found
    pairs = list(dict.fromkeys(map(_pair, cells)))
    if len(pairs) > 1:
        raise UserError(f"{name}: is in {len(pairs)} pairs; write one of {', '.join(f'{name}/{p}' for p in pairs)}")
    return cells


def _row(cell):
    return cell.row


def _pair(cell):
    return cell.pair


def _seed(cell):
    return f"s{cell.seed}"


def _cell_text(sheet, row, pair):
    """The cell as the main table has it, with the columns that belong to it."""
    texts = [text(sheet, *sheet.cell(row, key, pair)) for key in ("last", "best", "difference")]
    note = sheet.cell(row, "last", pair)[1].note
    return ", ".join(filter(None, [texts[0], f"best {texts[1]}", texts[2], note and footnote(sheet, note)]))


def _run(cell, entry, store):
    """What there is to say of one run."""
    run, teacher = cell.specification.id, cell.specification.teacher_id
    state, detail = store.state(run)
    values = [
        f"{c} {side[cell.seed]:.2f}" for c, side in (("last", entry.last), ("best", entry.best)) if cell.seed in side
    ]
    spec, out, work = store.planned(run), store.run(run), store.work(run)
    record = store.record(run)
    device = "cuda" if record and not record["device"].endswith("CPU") else "cpu"  # as the run was made, or the demo is
    train = command("train", options=["--spec", spec, "--out", out, "--work", work, "--device", device])
    files = [("run", out), ("spec", spec), ("log", store.results / "logs/run" / f"{run}.log")]
    files += [("predictions", out / name) for name in parts(cell.specification).predictions.files]
    facts = [("teacher", f"{teacher} ({cell.specification['teacher']['checkpoint']})")] if teacher else []
    facts += [(what, f"{path}{'' if path.exists() else '  (not here)'}") for what, path in files]
    facts += [("train", train), *_provenance(record)]
    if older := store.older(run):
        facts.append(("older code", older))
    if warning := store.other_realisation(run) if state in ("done", "stale", "trained") else None:
        facts.append(("warning", warning))
    head = f"s{cell.seed}  {state}{f' ({detail})' if detail else ''}  {'  '.join([run, *values])}"
    return [head, *_aligned(facts)]


def _provenance(record):
    if not record:
        return []
    source, modified = record.get("source"), record["modified"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    commit = ", modified: ".join([record["commit"] or "outside git", *([", ".join(modified)] if modified else [])])
    lines = [("made", f"{record['finished']} on {record['device']}"), ("processor", processor_text(record))]
    lines += [("commit", commit), ("versions", versions)]
    if source:
        lines.append(("origin", "; ".join([f"{source['file']}, row {source['row']}", *source["notes"]])))
    return lines


def _control(suite, table, entry, cells):
    """The control: where its specification differs, and the difference as the table computes it."""
    if not entry.control:
        return ["no control"]
    runs = {
        cell.seed: cell.specification for cell in suite.cells if (cell.row, cell.pair) == (entry.control, entry.pair)
    }
    control = table.entries.get((entry.control, entry.pair))
    if control is None:
        return [f"control {entry.control}: no such row in this suite"]
    lines, differences = [f"control {entry.control}"], {}
    for cell in cells:
        if cell.seed in runs:
            differences.setdefault(tuple(_differences(runs[cell.seed], cell.specification)), []).append(f"s{cell.seed}")
    for keys, seeds in differences.items():
        lines += [f"  specification, {', '.join(seeds)}:", *(f"  {line}" for line in _aligned(keys))]
    facts = []
    for cell in cells:
        treated, other = entry.last.get(cell.seed), control.last.get(cell.seed)
        name = runs[cell.seed].id if cell.seed in runs else "no run"
        if treated is None or other is None:
            missing = " and ".join(
                row for row, value in ((entry.row, treated), (entry.control, other)) if value is None
            )
            facts.append((f"s{cell.seed}", f"no value of {missing}  ({name})"))
        else:
            facts.append((f"s{cell.seed}", f"{treated - other:+.2f} = {treated:.2f} - {other:.2f}  ({name})"))
    mean = entry.difference
    if mean.n:
        interval = f" [{mean.low:+.2f}, {mean.high:+.2f}], 95 % t-interval" if mean.n > 1 else ""
        compared = (cell for cell in suite.cells if cell.pair == entry.pair and cell.row in (entry.row, entry.control))
        taught = len({cell.specification.teacher_id for cell in compared} - {None})
        teachers = f", {taught} teacher{'s' * (taught > 1)}" if taught else ""
        facts.append(("mean", f"{mean.mean:+.2f}{interval} of {mean.n} paired seeds{teachers}"))
    return [
        *lines,
        f"  {table.scope.compared.heading} after the last epoch:",
        *(f"  {line}" for line in _aligned(facts)),
    ]


def _differences(control, specification):
    """[(key, "control's -> own")], without the versions and kinds of what is another anyway."""
    sides = [flat(s.data) for s in (control, specification)]
    other = {key for key in sides[0].keys() | sides[1].keys() if sides[0].get(key) != sides[1].get(key)}
    for key in sorted(other):
        parent, _, name = key.rpartition(".")
        node_is_new = any(k.startswith(f"{key}.") for k in other)
        follows = name in ("version", "kind", "source_sha256") and any(
            k.startswith(f"{parent}.") for k in other - {key}
        )
        if not node_is_new and not follows:
            yield key, " -> ".join(str(side.get(key, "(absent)")) for side in sides)


def _aligned(pairs):
    """Lines of (name, text), the texts below each other."""
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"  {name:{width}}  {text}" for name, text in pairs]
