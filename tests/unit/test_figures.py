"""The figures show the numbers that they are drawn from."""

import os
import subprocess
import sys
import zlib
from contextlib import chdir

import matplotlib
import numpy as np
import pandas as pd
import pytest
import stores
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from test_statistics import PAIRS, SCOPE, example

from distillbench.commands import main
from distillbench.config.suite import load_suite
from distillbench.reporting.figure_names import figure_names
from distillbench.reporting.figures import CAPTIONS, FIGURES
from distillbench.reporting.figures.style import save
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
            metrics.loc[len(metrics)] = [one, "classification", "test", checkpoint, "top1", 80 + draws.normal()]
    index = pd.concat(rows, ignore_index=True)
    histories = {cell.run: history(cell.run, cell.row == "KD+GKD") for cell in index.itertuples()}
    drawn = Results("demo", None, index, metrics, pd.DataFrame(), {}, SCOPE)
    drawn.__dict__["histories"] = histories  # in place of files
    return drawn


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


def diamonds(axis):
    return [(*line.get_data(), line.get_color()) for line in axis.get_lines() if line.get_marker() == "D"]


def test_differences_show_the_tables_intervals(results):
    (axis,) = FIGURES["differences"](results).axes
    drawn = [line[:, 0] for line in lines(axis)]
    pooled = [x for x, _, colour in diamonds(axis) if colour == "black"]
    assert np.allclose(pooled, [[results.table.pooled[row].mean] for row in ("KD", "KD+GKD")])
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
            assert band(axes[column], 100 - np.array([frame["test_top1"] for frame in frames]))
            assert band(axes[2 + column], np.array([frame["test_loss_ce"] for frame in frames]))
        assert any((line[:, 0] == 3.5).all() for line in lines(axes[column]))


def band(axis, runs):
    """Whether one reaches from the lowest to the highest of the runs' curves."""
    corners = {(x, y) for curve in (runs.min(axis=0), runs.max(axis=0)) for x, y in enumerate(curve.round(9), 1)}
    drawn = [path.vertices.round(9) for collection in axis.collections for path in collection.get_paths()]
    return any({tuple(corner) for corner in vertices} == corners for vertices in drawn)


def test_scale_shows_factors_where_there_are_samples(results):
    figure = FIGURES["scale"](results)
    for axis in figure.axes[: len(PAIRS)]:
        assert shown(axis, [[(i + 0.5) / 20, 0.8 + 0.1 * i] for i in range(2, 6)])


def test_scale_is_the_mean_over_epochs_and_leaves_out_a_bin_of_few_samples(results):
    shares = {5: [0.8, 0.6, 0.4, 0.2, 0.1, 0.05], 8: [0.006] * 6, 10: [0.004] * 6}
    factors = np.linspace(0.5, 1.5, 6)
    for run in runs(results, "KD+GKD", PAIRS[0]):
        for i in range(20):
            share = np.array(shares.get(i, [0.0] * 6))
            results.histories[run][f"train_confidence_{i}"] = share
            results.histories[run][f"train_factor_{i}"] = share * factors
    mean = (np.array(shares[5]) * factors).sum() / sum(shares[5])  # of samples, not of epochs
    assert shown(FIGURES["scale"](results).axes[0], [[5.5 / 20, mean], [8.5 / 20, factors.mean()]])


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
    nothing = Results("demo", None, results.index, results.metrics.iloc[:0], pd.DataFrame(), {}, SCOPE)
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


# A person's own settings


PERSON = {"font.size": 20, "savefig.dpi": 50, "savefig.bbox": "tight", "axes.facecolor": "red", "text.usetex": True}
RC_FILE = "font.size: 20\nfont.family: serif\nsavefig.dpi: 50\ntext.usetex: True\naxes.facecolor: red\nbackend: TkAgg\n"


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_settings_of_the_process_change_no_byte_and_stay(results, ending, tmp_path):
    save(FIGURES["accuracy"](results), tmp_path / f"plain.{ending}")
    with matplotlib.rc_context(PERSON):
        figure = FIGURES["accuracy"](results)
        assert {key: matplotlib.rcParams[key] for key in PERSON} == PERSON
    with matplotlib.rc_context({**PERSON, "pdf.fonttype": 3, "savefig.facecolor": "red"}):
        save(figure, tmp_path / f"person.{ending}")
        assert matplotlib.rcParams["savefig.facecolor"] == "red"
    assert (tmp_path / f"plain.{ending}").read_bytes() == (tmp_path / f"person.{ending}").read_bytes()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(a folder with a finished suite, its figures as this process draws them)."""
    root = tmp_path_factory.mktemp("person")
    stores.new_project(root, stores.SUITE.partition("  KD:")[0])
    stores.finish_all(root)
    for path in root.glob("results/runs/**/history.csv"):
        history(path.parent.name, False).to_csv(path)
    with chdir(root):
        assert main(["figures", "small", "--partial", "--out", "here"]) == 0
    return root, drawings(root / "here")


def drawings(folder):
    return {name: content for name, content in stores.files(folder).items() if name.endswith((".pdf", ".png"))}


def figures_of(root, variables):
    """{file: content} of the figures that the command draws in an environment of these variables alone."""
    out = root / "out"
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"], **variables}
    command = [sys.executable, "-m", "distillbench", "figures", "small", "--partial", "--out", str(out)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return drawings(out)


@pytest.mark.parametrize("person", ["machine", "settings", "damaged settings"])
def test_a_persons_environment_changes_no_byte(drawn, person):
    root, expected = drawn
    assert len(expected) == 4
    files = ["home/.config/matplotlib/matplotlibrc", "config/matplotlibrc", "config/stylelib/mine.mplstyle", "rc"]
    if person == "machine":
        variables = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # of Jupyter and Colab
        variables |= {"HOME": "/proc/nobody", "MPLCONFIGDIR": "/proc/nobody", "SOURCE_DATE_EPOCH": "1"}
        variables |= {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "DISPLAY": ":7"}
    else:
        variables = {"HOME": "home", "MPLCONFIGDIR": "config", "MATPLOTLIBRC": "rc", "MPLBACKEND": "nonsense"}
        content = RC_FILE.encode() if person == "settings" else b"font.family: \xff\n"
        for name in [*files, "matplotlibrc"]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    try:
        assert figures_of(root, variables) == expected
    finally:
        (root / "matplotlibrc").unlink(missing_ok=True)


def test_a_row_may_be_named_like_a_formula(results, tmp_path):
    results.index["row"] = results.index["row"].replace("KD+GKD", "$\\KD$_{")
    for name in ("accuracy", "curves"):
        assert save(FIGURES[name](results), tmp_path / f"{name}.png") == set()


@pytest.fixture
def fonts(monkeypatch):
    """The fonts that come with matplotlib, and no other; returns the list."""
    bundled = [font for font in font_manager.fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    forget()
    yield bundled
    forget()


def forget():
    font_manager.fontManager._findfont_cached.cache_clear()


def new_font(path, characters):
    """A font whose every glyph is a large triangle."""
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (1000, 0)), (pen.lineTo, (500, 1000))):
        move(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "triangle"])
    builder.setupCharacterMap({ord(character): "triangle" for character in characters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "triangle": pen.glyph()})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in (".notdef", "triangle")})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "A Font", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    font_manager.fontManager.addfont(path)
    forget()


def test_what_the_usual_font_lacks_comes_from_another_font_of_the_system(results, fonts, tmp_path):
    """And figures that need none depend on no font of the system."""

    def draw(name):
        paths = [tmp_path / f"{name}.{ending}" for ending in ("pdf", "png")]
        unknown = set().union(*(save(FIGURES["accuracy"](results), path) for path in paths))
        return unknown, [path.read_bytes() for path in paths]

    latin = draw("latin")
    assert latin[0] == set()
    row = results.index["row"].copy()
    results.index["row"] = row.replace("KD+GKD", "知識")
    del results.__dict__["table"]
    unknown, boxes = draw("boxes")
    assert unknown == set("知識")
    new_font(tmp_path / "font.ttf", "知識KDNOE 0123456789")
    unknown, glyphs = draw("glyphs")
    assert unknown == set() and all(a != b for a, b in zip(glyphs, boxes, strict=True))
    results.index["row"] = row
    del results.__dict__["table"]
    assert draw("latin again") == latin


def test_characters_without_a_font_are_named(tmp_path, monkeypatch, capsys, fonts):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, stores.SUITE.replace("  KD:", "  知識:"))
    assert main(["figures", "small", "--partial"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and "知" in line and "識" in line


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
    assert drawn[0, 0] == 2 and np.allclose(drawn[:, 1], mean[1:])


def test_histories_are_read_by_epoch(tmp_path):
    store = Store(tmp_path)
    index = pd.DataFrame({"run": ["a/b/c/s0-000000000000", "a/b/c/s1-000000000000"]})
    path = store.run(index["run"][1]) / "history.csv"
    path.parent.mkdir(parents=True)
    path.write_text("epoch,lr,test_top1,test_loss_ce\n1,0.1,50,0.5\n2,0.01,60,0.4\n")
    (frame,) = Results("demo", store, index, None, None, {}, SCOPE).histories.values()
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
            assert any(np.allclose((at, height), [[x], [interval.mean]]) for at, height, _ in diamonds(axis))
        (level,) = results.table.entries["Teacher", pair].last.values()
        assert any((line[:, 1] == level).all() and len(line) == 2 for line in lines(axis))
