"""The figures show the numbers that they are drawn from."""

import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_statistics import PAIRS, example

from distillbench.config.suite import load_suite
from distillbench.reporting.figures import CAPTIONS, FIGURES, save
from distillbench.reporting.index import figure_names
from distillbench.reporting.results import Results
from distillbench.reporting.statistics import t_interval
from distillbench.store import Store

SCALED = ["KD", "distilled", "NONE"], ["KD+GKD", "distilled", "KD"]


def history(run, scaled):
    draws, epochs = np.random.default_rng(zlib.crc32(run.encode())), 6
    columns = {"lr": [0.1] * 3 + [0.01] * 3, "test_top1": draws.uniform(50, 90, epochs)}
    columns["test_loss_ce"] = draws.uniform(0.1, 2, epochs)
    columns |= {f"train_kd_gradient_{i}": draws.normal(size=epochs) for i in range(6)}
    columns |= {f"train_kd_gradient_abs_{i}": draws.uniform(0.1, 1, epochs) for i in range(6)}
    shares = np.zeros((20, epochs))
    shares[2:6] = draws.dirichlet(np.ones(4), epochs).T
    columns |= {f"train_confidence_{i}": shares[i] for i in range(20)}
    if scaled:
        columns |= {f"train_factor_{i}": shares[i] * (0.8 + 0.1 * i) for i in range(20)}
    return pd.DataFrame(columns, index=pd.Index(range(1, epochs + 1), name="epoch"))


@pytest.fixture
def results():
    """Of a suite with teacher, NONE, KD and KD+GKD, whose histories are random."""
    index, metrics = example()
    kd = index[index["row"] == "KD_2019"]
    rows, draws = [index[index["row"] != "KD_2019"]], np.random.default_rng(2)
    for name, role, control in SCALED:
        run = kd["run"].str.replace("KD_2019", name)
        rows.append(kd.assign(row=name, role=role, control=control, run=run))
        for one, checkpoint in ((r, c) for r in run for c in ("last", "best")):
            metrics.loc[len(metrics)] = [one, checkpoint, "top1", 80 + draws.normal()]
    index = pd.concat(rows, ignore_index=True)
    histories = {cell.run: history(cell.run, cell.row == "KD+GKD") for cell in index.itertuples()}
    drawn = Results("demo", None, index, metrics, pd.DataFrame(), {})
    drawn.__dict__["histories"] = histories  # in place of files
    yield drawn
    plt.close("all")


def lines(axis):
    return [np.column_stack(line.get_data()) for line in axis.get_lines()]


def shown(axis, points):
    return any(line.shape == np.shape(points) and np.allclose(line, points) for line in lines(axis))


def runs(results, row, pair):
    return results.index.query("row == @row and pair == @pair")["run"]


def test_every_figure_has_a_caption_and_every_suite_only_known_ones(tmp_path):
    assert FIGURES.keys() == CAPTIONS.keys()
    names = figure_names(load_suite("demo"))
    assert set(names) == set(FIGURES) and len(names) == len(FIGURES)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/plain.yaml").write_text(
        "dataset: digits\nseeds: [0]\npairs: [{teacher: resnet8, student: resnet8}]\n"
        "methods: {NONE: {DISTILLER.TYPE: NONE}}\n"
    )
    assert figure_names(load_suite("plain", tmp_path)) == ["accuracy", "curves"]


def test_accuracy_shows_every_run(results):
    for axis, pair in zip(FIGURES["accuracy"](results).axes, PAIRS, strict=True):
        heights = np.concatenate([line[:, 1] for line in lines(axis)])
        for row in ("NONE", "KD", "KD+GKD"):
            for value in results.table.entries[row, pair].last.values():
                assert np.isclose(heights, value).any()


def test_differences_show_the_tables_intervals(results):
    (axis,) = FIGURES["differences"](results).axes
    drawn = [line[:, 0] for line in lines(axis)]
    for row in ("KD", "KD+GKD"):
        intervals = [results.table.entries[row, pair].difference for pair in PAIRS] + [results.table.pooled[row]]
        for interval in intervals:
            assert any(len(x) == 2 and np.allclose(x, [interval.low, interval.high]) for x in drawn)
            assert any(len(x) == 1 and np.isclose(x[0], interval.mean) for x in drawn)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["KD − NONE", "KD+GKD − KD"]


def test_curves_show_means_over_seeds_and_decays(results):
    axes = FIGURES["curves"](results).axes
    for column, pair in enumerate(PAIRS):
        for row in ("NONE", "KD", "KD+GKD"):
            frames = [results.histories[run] for run in runs(results, row, pair)]
            error = 100 - np.mean([frame["test_top1"] for frame in frames], axis=0)
            loss = np.mean([frame["test_loss_ce"] for frame in frames], axis=0)
            assert shown(axes[column], np.column_stack([range(1, 7), error]))
            assert shown(axes[2 + column], np.column_stack([range(1, 7), loss]))
        assert any((line[:, 0] == 3.5).all() for line in lines(axes[column]))


def test_scale_shows_factors_where_there_are_samples(results):
    figure = FIGURES["scale"](results)
    for axis in figure.axes[: len(PAIRS)]:
        assert shown(axis, [[(i + 0.5) / 20, 0.8 + 0.1 * i] for i in range(2, 6)])


def test_gradients_show_a_scaled_row_and_its_control(results):
    figure = FIGURES["gradients"](results)
    for line, pair in enumerate(PAIRS):
        for axis, kind in ((figure.axes[2 * line], "kd_gradient"), (figure.axes[2 * line + 1], "kd_gradient_abs")):
            for row in ("KD", "KD+GKD"):
                for i in range(6):
                    frames = [results.histories[run][f"train_{kind}_{i}"] for run in runs(results, row, pair)]
                    assert shown(axis, np.column_stack([range(1, 7), np.mean(frames, axis=0)]))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_without_histories_and_without_runs(results, name, tmp_path):
    results.histories.clear()
    save(FIGURES[name](results), tmp_path / "a.png")
    nothing = Results("demo", None, results.index, results.metrics.iloc[:0], pd.DataFrame(), {})
    nothing.__dict__["histories"] = {}
    save(FIGURES[name](nothing), tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size


@pytest.mark.parametrize("name", ["curves", "scale", "gradients"])
def test_a_figure_says_that_histories_are_not_here(results, name):
    assert "history.csv" not in FIGURES[name](results).get_suptitle()
    results.histories.popitem()
    assert "(history.csv of 19 of 20 runs)" in FIGURES[name](results).get_suptitle()


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_the_same_results_make_the_same_bytes(results, ending, tmp_path):
    for name in ("a", "b"):
        save(FIGURES["gradients"](results), tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_an_epoch_in_which_nothing_was_observed_is_left_out(results):
    """history.csv has empty fields there: a method may switch its loss on later."""
    for frame in results.histories.values():
        frame.loc[1, [column for column in frame if column.startswith("train_")]] = np.nan
    for draw in FIGURES.values():
        draw(results)
    (axis, *_) = FIGURES["gradients"](results).axes
    pair = results.table.pairs[0]
    mean = sum(results.histories[run]["train_kd_gradient_0"] for run in runs(results, "KD+GKD", pair)) / 3
    drawn = lines(axis)[0]
    assert drawn[0, 0] == 1 and np.isnan(drawn[0, 1]) and np.allclose(drawn[1:, 1], mean[1:])


def test_histories_are_read_by_epoch(tmp_path):
    store = Store(tmp_path)
    index = pd.DataFrame({"run": ["a/b/c/s0-000000000000", "a/b/c/s1-000000000000"]})
    path = store.run(index["run"][1]) / "history.csv"
    path.parent.mkdir(parents=True)
    path.write_text("epoch,lr,test_top1,test_loss_ce\n1,0.1,50,0.5\n2,0.01,60,0.4\n")
    (frame,) = Results("demo", store, index, None, None, {}).histories.values()
    assert frame.to_dict("index") == {
        1: {"lr": 0.1, "test_top1": 50, "test_loss_ce": 0.5},
        2: {"lr": 0.01, "test_top1": 60, "test_loss_ce": 0.4},
    }
    assert list(frame.index) == [1, 2]


def test_accuracy_shows_means_their_intervals_and_the_teacher(results):
    for axis, pair in zip(FIGURES["accuracy"](results).axes, PAIRS, strict=True):
        bars = [segment for collection in axis.collections for segment in collection.get_segments()]
        for x, row in enumerate(("NONE", "KD", "KD+GKD")):
            interval = t_interval(list(results.table.entries[row, pair].last.values()))
            assert any(np.allclose(bar, [[x, interval.low], [x, interval.high]]) for bar in bars)
            assert shown(axis, [[x, interval.mean]])
        (level,) = results.table.entries["Teacher", pair].last.values()
        assert any((line[:, 1] == level).all() and len(line) == 2 for line in lines(axis))
