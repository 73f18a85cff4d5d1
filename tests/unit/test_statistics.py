"""Intervals that keep their promise, and a table that says what was run."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from distillbench.reporting.collect import COSTS, METRICS, Scope
from distillbench.reporting.render import csv as csv_file
from distillbench.reporting.render import json as json_file
from distillbench.reporting.render import latex, markdown
from distillbench.reporting.render.latex import tex
from distillbench.reporting.sheets.details import details_sheet
from distillbench.reporting.sheets.main import main_sheet, summary_sheet
from distillbench.reporting.statistics import (
    paired_difference,
    pooled_difference,
    standard_deviation,
    t_interval,
)
from distillbench.reporting.tables import POOLED, build_table

REPETITIONS = 10_000
SCOPE = Scope("classification", "test")


def to_csv(table):
    return csv_file.render(main_sheet(table))


def to_json(table):
    return json_file.render(main_sheet(table))


def to_latex(table):
    return latex.render(main_sheet(table))


def to_markdown(table):
    return markdown.render(main_sheet(table))


def to_summary(table):
    return markdown.render(summary_sheet(table))


def draw(rng, seeds, pairs, truth, shared_control):
    """[(treated, control)] by seed: an effect of the seed on all runs, one on all differences, and noise."""
    seed_effect, difference_effect = rng.normal(0, 2, seeds), rng.normal(0, 0.5, seeds)
    control = seed_effect + rng.normal(0, 1, seeds)
    drawn = []
    for _ in range(pairs):
        if not shared_control:
            control = seed_effect + rng.normal(0, 1, seeds)
        treated = truth + seed_effect + difference_effect + rng.normal(0, 1, seeds)
        drawn.append((dict(enumerate(treated)), dict(enumerate(control))))
    return drawn


def covered(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


# Simulation


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("shared_control", [True, False])
def test_intervals_cover_the_truth_in_95_percent(seeds, shared_control):
    rng, truth = np.random.default_rng(seeds), 0.7
    drawn = [draw(rng, seeds, 3, truth, shared_control) for _ in range(REPETITIONS)]
    assert covered([paired_difference(*pairs[0]) for pairs in drawn], truth) == pytest.approx(0.95, abs=0.01)
    assert covered([pooled_difference(pairs) for pairs in drawn], truth) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5])
def test_two_copies_of_a_method_are_rarely_told_apart(seeds):
    rng = np.random.default_rng(10 + seeds)
    drawn = [draw(rng, seeds, 2, 0.0, True) for _ in range(REPETITIONS)]
    assert 1 - covered([paired_difference(*pairs[0]) for pairs in drawn], 0) <= 0.06
    assert 1 - covered([pooled_difference(pairs) for pairs in drawn], 0) <= 0.06


def test_pooling_independent_pairs_narrows_the_interval():
    rng = np.random.default_rng(20)
    single, pooled = [], []
    for _ in range(500):
        noise = rng.normal(0, 1, (4, 2, 5))
        pairs = [(dict(enumerate(treated)), dict(enumerate(control))) for treated, control in noise]
        single += [i.high - i.low for i in (paired_difference(*pair) for pair in pairs)]
        interval = pooled_difference(pairs)
        pooled.append(interval.high - interval.low)
    assert np.mean(pooled) < 0.6 * np.mean(single)  # 1 / sqrt(4 pairs), and some Monte-Carlo error


# Exact values


def test_interval_is_students():
    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert t_interval(values) == pytest.approx((3, np.mean(values), low, high))


def test_shared_seed_effects_cancel():
    assert paired_difference({0: 10.0, 1: 20.0, 2: 30.0}, {0: 9.0, 1: 19.0, 2: 29.0}) == (3, 1.0, 1.0, 1.0)


def test_unbalanced_seeds_are_compared_where_both_have_one():
    interval = paired_difference({0: 2.0, 1: 4.0, 7: 99.0}, {1: 1.0, 0: 1.0, 5: 0.0})
    assert (interval.n, interval.mean) == (2, 2.0)
    pooled = pooled_difference([({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0}), ({0: 5.0}, {0: 2.0, 1: 0.0})])
    assert (pooled.n, pooled.mean) == (1, 2.0)


@pytest.mark.parametrize("interval", [t_interval([1.5]), paired_difference({3: 2.5}, {3: 1.0})])
def test_one_seed_gives_a_mean_and_no_interval(interval):
    assert (interval.n, interval.mean) == (1, 1.5)
    assert np.isnan(interval.low) and np.isnan(interval.high)
    assert np.isnan(standard_deviation([1.5]))


@pytest.mark.parametrize("interval", [t_interval([]), paired_difference({0: 1.0}, {1: 1.0}), pooled_difference([])])
def test_no_common_seed_gives_nothing(interval):
    assert interval.n == 0 and np.isnan(interval.mean)


# Tables

PAIRS = ("resnet20-resnet8", "wrn_16_2-resnet8")
ROWS = [("KD_2019", "distilled", "NONE"), ("NONE", "student", ""), ("Teacher", "teacher", "")]


def example(seeds=(0, 1, 2), matched=()):
    """index and metrics of a complete suite, as in its CSV files; the distilled row stands first.

    matched: the pairs with a teacher a seed.
    """
    rng, cells, metrics = np.random.default_rng(1), [], []
    for row, role, control in ROWS:
        for pair in PAIRS:
            for seed in ([1000 + s for s in seeds] if pair in matched else [0]) if role == "teacher" else seeds:
                cells.append((row, role, control, pair, *pair.split("-"), seed, f"digits/{pair}/{row}/s{seed}"))
                for checkpoint in ("last", "best"):
                    evaluated = cells[-1][-1], "classification", "test", checkpoint
                    metrics.append((*evaluated, "top1", 80 + rng.normal()))
                    metrics.append((*evaluated, "top5", 99.0))
    index = pd.DataFrame(cells, columns=["row", "role", "control", "pair", "teacher", "student", "seed", "run"])
    return index, pd.DataFrame(metrics, columns=METRICS)


def without(metrics, *runs):
    return metrics[~metrics["run"].isin(runs)]


def test_teacher_and_student_stand_first():
    assert build_table("demo", *example(), SCOPE).rows == ["Teacher", "NONE", "KD_2019"]


def test_complete_table_has_no_banner():
    table = build_table("demo", *example(), SCOPE)
    assert (table.banner, table.runs, table.finished) == ("", 14, 14)
    assert "PARTIAL" not in to_markdown(table) + to_latex(table)


BOTH, ALONE = "seeds and teachers (one a seed)", "seeds alone"
COVERAGES = [  # pairs with matched teachers, roles without rows, seeds: the sentence
    ((), (), 3, f"{ALONE}, as each pair has one teacher."),
    (PAIRS, (), 3, f"{BOTH}; {ALONE} in rows without a teacher (NONE)."),
    (PAIRS, ("student",), 3, f"{BOTH}."),
    (
        PAIRS[:1],
        (),
        3,
        f"{BOTH} in {PAIRS[0]}; {ALONE} in {PAIRS[1]}, which has one teacher; {ALONE} in rows without",
    ),
    (PAIRS, ("distilled",), 3, "seeds."),
    ((), ("distilled",), 3, "seeds."),
    (PAIRS, (), 1, f"{ALONE}, as each pair has one teacher."),
]


@pytest.mark.parametrize("matched, without_roles, seeds, sentence", COVERAGES)
def test_the_legend_says_which_variation_an_interval_covers(matched, without_roles, seeds, sentence):
    index, metrics = example(range(seeds), matched)
    index = index[~index["role"].isin(without_roles)].assign(control="")
    table = build_table("demo", index, metrics, SCOPE)
    expected = f"Deviations and intervals cover {sentence}"
    assert table.coverage.startswith(expected)
    costs = pd.DataFrame(columns=["run", *COSTS])
    details = details_sheet(table, index, metrics, costs)
    for text in (to_markdown(table), markdown.render(details)):
        assert table.coverage in text
    for text in (to_latex(table), latex.render(details)):
        assert tex(table.coverage) in text


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[:1]])
def test_the_summary_has_the_tables_accuracies_and_last_difference_within_100_columns(pairs):
    index, metrics = example(matched=PAIRS)
    index = index[index["pair"].isin(pairs)]
    run = index["run"].iloc[0]
    table = build_table("demo", index, without(metrics, run), SCOPE, {run: "a reason"})
    whole, short = to_markdown(table).splitlines(), to_summary(table).splitlines()
    assert max(map(len, short)) <= 100

    def cells(lines):
        return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]

    for line, summary in zip(cells(whole), cells(short), strict=True):
        assert summary == [line[0], *line[1 : 1 + 3 * len(pairs) : 3], *line[1 + 3 * len(pairs) - (len(pairs) == 1) :]]
    assert table.coverage in " ".join(short) and table.banner in " ".join(short)
    assert short[-1] == whole[-1] and short[-1].startswith("[1] failed: ")


def test_missing_runs_are_announced():
    index, metrics = example()
    table = build_table("demo", index, without(metrics, "digits/resnet20-resnet8/KD_2019/s1"), SCOPE)
    assert table.banner == "PARTIAL: 13 of 14 runs"
    assert table.banner in to_markdown(table) and table.banner in to_latex(table)
    entry = table.entries["KD_2019", PAIRS[0]]
    assert (entry.planned, entry.attempted, len(entry.last), entry.difference.n) == (3, 2, 2, 2)
    assert table.pooled["KD_2019"].n == 2
    assert [line.count("(2/2)") for line in to_markdown(table).splitlines() if "KD_2019" in line] == [1]
    assert "(2/3)" not in to_markdown(table) + to_latex(table), "what was not tried did not fail"


def test_failed_runs_count_as_attempted_and_are_explained():
    index, metrics = example()
    run, reason = "digits/wrn_16_2-resnet8/KD_2019/s2", "loss is not finite in epoch 3"
    table = build_table("demo", index, without(metrics, run), SCOPE, {run: reason})
    entry = table.entries["KD_2019", PAIRS[1]]
    assert (entry.attempted, len(entry.last), entry.failures) == (3, 2, (f"s2: {reason}",))
    assert "(2/3) [1]" in to_markdown(table) and f"[1] failed: KD_2019, {PAIRS[1]}, s2: {reason}" in to_markdown(table)
    assert reason in to_latex(table) and reason in to_csv(table)


def test_row_that_failed_everywhere_is_shown():
    index, metrics = example(seeds=(0,))
    runs = [run for run in index["run"] if "KD_2019" in run]
    text = to_markdown(build_table("demo", index, without(metrics, *runs), SCOPE, dict.fromkeys(runs, "reason")))
    assert text.count("failed (0/1)") == 2


def test_suite_without_any_result_has_a_table():
    index, metrics = example()
    table = build_table("demo", index, metrics.iloc[:0], SCOPE)
    assert table.banner == "PARTIAL: 0 of 14 runs"
    for text in (to_markdown(table), to_latex(table), to_csv(table)):
        assert "nan" not in text


def test_row_without_control_prints_no_difference():
    table = build_table("demo", *example(), SCOPE)
    for row in ("Teacher", "NONE"):
        assert row not in table.pooled and table.entries[row, PAIRS[0]].difference is None
        (line,) = [line for line in to_markdown(table).splitlines() if line.startswith(f"| {row} ")]
        assert "[" not in line and " vs " not in line


def test_one_seed_prints_neither_spread_nor_interval():
    (line,) = [
        line
        for line in to_markdown(build_table("demo", *example(seeds=(0,)), SCOPE)).splitlines()
        if line.startswith("| KD_2019")
    ]
    assert "±" not in line and "[" not in line and "nan" not in line and "vs NONE" in line


def test_every_number_of_a_table_follows_from_the_metrics():
    """By hand: means and deviations of a cell, differences to the control, and those pooled over pairs."""
    index, metrics = example()
    lost = "digits/wrn_16_2-resnet8/KD_2019/s1"
    metrics = without(metrics, lost)
    value = {(m.run, m.checkpoint): m.value for m in metrics.itertuples() if m.metric == "top1"}
    records = {
        (r["row"], r["pair"]): r
        for r in csv.DictReader(io.StringIO(to_csv(build_table("demo", index, metrics, SCOPE))))
    }
    shared = {}
    for row, role, control in ROWS:
        for pair in PAIRS:
            seeds = (0,) if role == "teacher" else [s for s in (0, 1, 2) if f"digits/{pair}/{row}/s{s}" != lost]
            record = records[row, pair]
            assert (record["n"], record["planned"]) == (str(len(seeds)), "1" if role == "teacher" else "3")
            for checkpoint in ("last", "best"):
                mine = [value[f"digits/{pair}/{row}/s{seed}", checkpoint] for seed in seeds]
                assert float(record[f"{checkpoint}_mean"]) == pytest.approx(sum(mine) / len(mine))
                if len(mine) > 1:
                    assert float(record[f"{checkpoint}_sd"]) == pytest.approx(deviation(mine))
            if control:
                runs = ((f"digits/{pair}/{name}/s" for name in (row, control)) for _ in seeds)
                paired = [value[f"{a}{s}", "last"] - value[f"{b}{s}", "last"] for s, (a, b) in zip(seeds, runs)]
                shared[pair] = dict(zip(seeds, paired, strict=True))
                same_interval(record, paired)
    pooled = [sum(shared[pair][seed] for pair in PAIRS) / 2 for seed in (0, 2)]
    same_interval(records["KD_2019", POOLED], pooled)


def deviation(values):
    return (sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def same_interval(record, values):
    n, mean = len(values), sum(values) / len(values)
    half = {2: 12.7062047, 3: 4.3026527}[n] * deviation(values) / n**0.5  # Student's t, from a printed table
    found = [float(record[f"difference_{name}"]) for name in ("n", "mean", "low", "high")]
    assert found == pytest.approx([n, mean, mean - half, mean + half])


def test_every_number_of_the_details_follows_from_metrics_and_records():
    index, metrics = example()
    runs = list(dict.fromkeys(index["run"]))
    costs = pd.DataFrame(
        {"run": runs, **{name: [i + 10.0 * k for i in range(len(runs))] for k, name in enumerate(COSTS)}}
    )
    value = {(m.run, m.metric): m.value for m in metrics.itertuples() if m.checkpoint == "last"}
    value |= {(line["run"], name): line[name] for line in costs.to_dict("records") for name in COSTS}
    details = details_sheet(build_table("demo", index, metrics, SCOPE), index, metrics, costs)
    assert [line.name for line in details.lines] == ["Teacher"] * 2 + ["NONE"] * 2 + ["KD_2019"] * 2
    for record in csv.DictReader(io.StringIO(csv_file.render(details))):
        line = {k: v if k in ("row", "pair") else int(v) if k == "n" else float(v or "nan") for k, v in record.items()}
        mine = [run for run in runs if run.startswith(f"digits/{line['pair']}/{line['row']}/")]
        assert line["n"] == len(mine)
        for name in ("top1", "top5", *COSTS):
            values = [value[run, name] for run in mine]
            assert line[name] == pytest.approx(sum(values) / len(values))
            assert (
                np.isnan(line[f"{name}_sd"])
                if len(mine) == 1
                else line[f"{name}_sd"] == pytest.approx(deviation(values))
            )
        assert np.isnan(line["nll"])


def test_all_formats_hold_the_same_numbers():
    table = build_table("demo", *example(), SCOPE)
    numbers = re.compile(r"[+-]?\d+\.\d\d")
    markdown = [line for line in to_markdown(table).splitlines() if line.startswith(("| Teacher", "| NONE", "| KD"))]
    latex = to_latex(table).split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [numbers.findall(line) for line in markdown] == [numbers.findall(line) for line in latex]
    records = list(csv.DictReader(io.StringIO(to_csv(table))))

    def texts(record):
        signed = ("difference_mean", "difference_low", "difference_high")
        found = [f"{float(record[key]):.2f}" for key in ("last_mean", "last_sd", "best_mean") if record[key]]
        return found + [f"{float(record[key]):+.2f}" for key in signed if record[key]]

    for row, line in zip(table.rows, markdown, strict=True):
        ordered = [r for pair in (*PAIRS, POOLED) for r in records if (r["row"], r["pair"]) == (row, pair)]
        assert [text for record in ordered for text in texts(record)] == numbers.findall(line)


def test_json_holds_the_numbers_in_full_and_null_where_there_is_none():
    index, metrics = example()
    table = build_table("demo", index, without(metrics, *(run for run in index["run"] if "KD_2019" in run)), SCOPE)
    rows = json.loads(to_json(table))
    last = list(table.entries["NONE", PAIRS[0]].last.values())
    assert rows["NONE"][PAIRS[0]] == {"top1": sum(last) / len(last), "sd": standard_deviation(last), "n": 3}
    assert rows["Teacher"][PAIRS[1]]["sd"] is None and rows["Teacher"][PAIRS[1]]["n"] == 1
    assert rows["KD_2019"][PAIRS[0]] == {"top1": None, "sd": None, "n": 0}


def test_suite_without_controls_has_the_same_columns():
    index, metrics = example()
    with_control, without_control = (
        to_csv(build_table("demo", part, metrics, SCOPE)).splitlines()[0] for part in (index, index.assign(control=""))
    )
    assert with_control == without_control


def test_latex_escapes_what_it_must():
    body = to_latex(build_table("demo_2", *example(), SCOPE))
    assert r"KD\_2019" in body and r"wrn\_16\_2-resnet8" in body and r"demo\_2" in body
    assert not re.search(r"(?<!\\)_", body) and "±" not in body and not re.search(r"(?<!\\)%(?! needs)", body)
