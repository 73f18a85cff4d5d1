"""A task is one folder: nobody else knows its metrics, and what is asked for is what its protocol evaluates."""

import copy
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import stores
from standins import LOGITS, ROOT, TARGETS, TEACHER_LOGITS, with_ranks
from test_statistics import SCOPE, example

from distillbench import tasks
from distillbench.commands import main
from distillbench.config.specification import Specification
from distillbench.errors import UserError
from distillbench.evaluation.measure import compute, write_metrics
from distillbench.files import read_json, to_json
from distillbench.reporting.collect import COSTS, collect, read_index, scope
from distillbench.reporting.render import markdown
from distillbench.reporting.sheets.details import details_sheet
from distillbench.reporting.sheets.main import main_sheet, summary_sheet
from distillbench.reporting.tables import build_table
from distillbench.store import Store
from distillbench.store.index import index_path
from distillbench.store.layout import evaluations, parts
from distillbench.tasks.classification.metrics import METRICS, Metric
from distillbench.tasks.classification.predictions import RANKS, Predictions, parse

PACKAGE = ROOT / "src/distillbench"


@pytest.fixture
def store(tmp_path):
    store = stores.new_project(tmp_path)
    stores.finish_all(tmp_path)
    return store


def without_logits(path):
    """Leave what a large dataset would keep: the ranks."""
    with np.load(path) as archive:
        arrays = {name: array for name, array in archive.items() if name != "logits"}
    np.savez(path, **arrays)


# What is known where


def test_no_module_but_those_of_the_task_names_the_headline():
    names = {task: tasks.task(task).headline for task in tasks.names()}
    assert names == {"classification": "top1"}
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "tasks/classification"):
            assert not re.search(r"top-?[15]\b", path.read_text(), re.IGNORECASE), path


def test_asking_for_tasks_and_paths_imports_nothing_heavy():
    code = "import sys; from distillbench.store import Store, layout; from distillbench import tasks;"
    code += "tasks.task('classification'); print({'numpy', 'torch', 'pandas', 'tarfile'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_task_or_protocol_is_one_line_that_names_the_run(store):
    run = next(iter(store.ids()))
    for key, change, says in (
        ("task", {"task": "detection"}, "unknown task 'detection'; valid: classification"),
        (
            "dataset.protocol",
            {"dataset": {"protocol": "publishd"}},
            "unknown protocol 'publishd'; did you mean published",
        ),
        (
            "dataset.protocol",
            {"dataset": {"protocol": []}},
            "[] is not valid here, expected published or {holdout: 0.1}",
        ),
    ):
        data = copy.deepcopy(store.specification(run).data)
        for part, value in change.items():
            data[part] = data[part] | value if isinstance(value, dict) else value
        with pytest.raises(UserError, match=re.escape(f"{key}: {says}")) as error:
            evaluations(Specification(data))
        assert str(error.value).startswith(Specification(data).id)
    with pytest.raises(UserError, match="unknown task 'clasification'; did you mean classification"):
        tasks.task("clasification")


HELD, FLATTERED = "protocol: {holdout: 0.1}\n", "teachers: {protocol: published}\nallow_seen_teacher: true\n"
BEST_OF_TEST, BEST_OF_HELD = "best test epoch, which is optimistic", "each run's best on the images held out"


@pytest.mark.parametrize(
    ("sections", "terms", "best"),
    [
        ("", "published protocol: all training images", BEST_OF_TEST),
        (HELD, "hold-out protocol: 0.1 of the training images held out", BEST_OF_HELD),
        (
            HELD + FLATTERED,
            "0.1 of the training images held out; the teachers have seen the images held out",
            BEST_OF_HELD,
        ),
    ],
)
def test_tables_name_the_protocol_of_their_numbers(tmp_path, sections, terms, best):
    store = stores.new_project(tmp_path, sections + stores.SUITE)
    shown = scope(read_index(index_path("small", tmp_path)), store)
    (index, metrics), costs = example(), pd.DataFrame(columns=["run", *COSTS])
    table = build_table("small", index, metrics, shown)
    assert shown.split == "test" and shown.curves[0] == ("val_top1" if sections else "test_top1")
    for sheet in (main_sheet(table), summary_sheet(table), details_sheet(table, index, metrics, costs)):
        assert f"{terms})" in " ".join(sheet.legend.split())
    assert best in main_sheet(table).legend


# Paths


def test_the_folders_of_evaluations_are_what_they_were(store):
    specification = store.specification(next(iter(store.ids())))
    assert {c: e.folder for c, e in evaluations(specification).items()} == {
        "last": "eval/test-last-da49870b",
        "best": "eval/test-best-da49870b",
    }
    assert [part.name for part in parts(specification)] == ["training", "predictions", "metrics"]


# Predictions that lack something


def test_predictions_without_logits_say_what_they_lack_and_give_every_other_metric():
    whole = with_ranks(LOGITS)
    ranks = Predictions(TARGETS, {name: whole.stored[name] for name in RANKS})
    for name in ("logits", "log_probabilities"):
        with pytest.raises(tasks.Lacking, match="the predictions hold no logits of all classes; "):
            getattr(ranks, name)
    values, lacking = compute(METRICS, ranks, with_ranks(TEACHER_LOGITS))
    assert lacking.keys() == {"brier", "kl_to_teacher"} and values.keys() == METRICS.keys() - lacking.keys()
    expected, nothing = compute(METRICS, whole, with_ranks(TEACHER_LOGITS))
    assert not nothing and values == {name: expected[name] for name in values}
    assert compute(METRICS, whole)[0].keys() == {name for name, metric in METRICS.items() if not metric.teacher}


def test_predictions_without_logits_and_ranks_give_nothing():
    nothing = Predictions(TARGETS, {})
    for name in ("target_rank", "first_class", "confidence", "target_log_probability"):
        with pytest.raises(tasks.Lacking):
            getattr(nothing, name)


def test_a_metric_that_lacks_something_is_named_with_its_reason_and_is_a_dash_in_the_table(store):
    run = stores.runs(store.results.parent)["KD/s0"]
    before = read_json(store.evaluation(run, "last") / "metrics.json")
    assert "lacking" not in before
    without_logits(store.evaluation(run, "last") / "predictions.npz")
    content = write_metrics(store, run, "last")
    assert content == read_json(store.evaluation(run, "last") / "metrics.json")
    assert content["lacking"].keys() == {"brier", "kl_to_teacher"}
    assert all("no logits" in reason for reason in content["lacking"].values())
    same = [entry for entry in before["metrics"] if entry["metric"] not in content["lacking"]]
    assert content["metrics"] == same
    assert {entry["metric"] for entry in store.metrics(run, "last")} == METRICS.keys() - content["lacking"].keys()
    index = pd.DataFrame(
        [("KD", "distilled", "", "a-b", 0, run)], columns=["row", "role", "control", "pair", "seed", "run"]
    )
    metrics, costs = collect(index, store)
    table = build_table("small", index, metrics, scope(index, store))
    line = next(
        line for line in markdown.render(details_sheet(table, index, metrics, costs)).splitlines() if "KD" in line
    )
    cells = dict(zip(METRICS, [cell.strip() for cell in line.split("|")][4:], strict=False))
    assert {name for name, cell in cells.items() if cell == "-"} == content["lacking"].keys()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_rank": None, "logits": None}, "neither logits nor ranks"),
        ({"first_classes": None}, "first_classes"),
        ({"first_logit": np.zeros(99, np.float32)}, "different lengths"),
        ({"target_rank": np.zeros(100)}, "ranks that are none"),
        ({"target_rank": np.full(100, -1, np.int32), "logits": None}, "ranks that are none"),
        ({"logits": np.full((100, 10), "a")}, "logits that are none"),
    ],
    ids=str,
)
def test_predictions_of_another_form_are_one_line(store, change, says):
    path = store.evaluation(next(iter(store.ids())), "last") / "predictions.npz"
    with np.load(path) as archive:
        arrays = {**archive, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with open(path, "rb") as file, pytest.raises(UserError, match=f"{path}: not readable predictions .*{says}"):
        parse(file, path)


# One place for a metric, one for what is shown


def test_a_metric_is_a_column_of_the_details_with_heading_unit_form_and_legend(monkeypatch):
    index, metrics = example()
    added = metrics[metrics["metric"] == "top5"].assign(metric="zeros", value=0.25)
    metric = Metric(None, "none", unit="kg", form=".1f", legend="zeros: nothing at all")
    monkeypatch.setitem(METRICS, "zeros", metric)
    metrics = pd.concat([metrics, added])
    costs = pd.DataFrame(columns=["run", *COSTS])
    details = details_sheet(build_table("demo", index, metrics, SCOPE), index, metrics, costs)
    keys = [column.key for column in details.columns]
    assert keys[3:11] == [*METRICS] and keys[10] == "zeros"
    text = markdown.render(details)
    assert "| none (kg) |" in re.sub(" +", " ", text) and "0.2 ± 0.0" in text and "; zeros: nothing at all. " in text


def test_tables_say_which_split_and_metric_they_are_of():
    index, metrics = example()
    table = build_table("demo", index, metrics.assign(split="val"), SCOPE._replace(split="val"))
    assert table.banner == "" and "Top-1 accuracy in percent on the val split: " in main_sheet(table).legend
    assert details_sheet(table, index, metrics, pd.DataFrame(columns=["run", *COSTS])).legend.startswith("Val split")


def test_ls_shows_the_headline_of_the_evaluated_split_alone(store, monkeypatch, capsys):
    monkeypatch.chdir(store.results.parent)
    run = stores.runs(".")["KD/s0"]
    path = Store().evaluation(run, "last") / "metrics.json"
    content = read_json(path)
    (headline,) = (entry for entry in content["metrics"] if entry["metric"] == "top1")
    content["metrics"].insert(0, {**headline, "split": "val", "value": 7.0})
    path.write_text(to_json(content))
    assert main(["ls"]) == 0
    assert f"{run}  50.00\n" in capsys.readouterr().out
    content["metrics"] = [entry for entry in content["metrics"] if entry["split"] == "val"]
    path.write_text(to_json(content))
    assert main(["ls"]) == 0
    assert f"{run}  done\n" in capsys.readouterr().out


def test_collected_metrics_say_what_they_are_of_where_nothing_else_is_left_of_the_runs(store, tmp_path):
    index = pd.DataFrame([(run, "a row") for run in store.ids()], columns=["run", "row"])
    metrics, _ = collect(index, store)
    expected, elsewhere = scope(index, store), Store(tmp_path / "elsewhere")
    assert scope(index, elsewhere, metrics) == expected._replace(protocol=None)
    other = pd.concat([metrics, metrics.assign(split="val")])
    assert scope(index, store, other) == expected
    with pytest.raises(UserError, match="no such file; pull or restore it"):
        scope(index, elsewhere, other)
    with pytest.raises(UserError, match="has no runs"):
        scope(index[:0], store)
