"""The report page opens offline and says what was run; the paper folder compiles and holds the tables' numbers."""

import csv
import io
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from project import parsed
from standins import TEACHER

from distillbench.commands import main
from distillbench.config import components
from distillbench.config.specification import evaluated
from distillbench.errors import UserError
from distillbench.files import read_json, to_json, write_atomically
from distillbench.reporting import page
from distillbench.reporting.collect import collect, scope
from distillbench.reporting.evidence import NO_REFERENCE, citation, citation_key, gather, references
from distillbench.reporting.figures import CAPTIONS
from distillbench.reporting.figures.style import save
from distillbench.reporting.page import render_page
from distillbench.reporting.paper import MISSING, bibliography, macros, words, write_paper
from distillbench.reporting.render import csv as csv_file
from distillbench.reporting.render import files, html
from distillbench.reporting.render.latex import tex
from distillbench.reporting.render.text import text as shown
from distillbench.reporting.results import Results
from distillbench.reporting.sheet import Cell, Column, Difference, Line, Sheet, Text
from distillbench.reporting.sheets.details import columns as details_columns
from distillbench.reporting.statistics import Interval
from distillbench.reporting.tables import POOLED
from distillbench.store import Store
from distillbench.store.index import COLUMNS

HOSTILE = ['<script>alert("1")<b> & 50%', "A_B#{$x^~\\", "A+B", "AB", "A|B"]
PAIRS = ("resnet20-resnet8", "wrn_16_2-resnet8")
PARAMS = """\
dataset: digits  # <&>
seeds: [0]
pairs: [{teacher: resnet20, student: resnet8}]
methods: {NONE: {DISTILLER.TYPE: NONE}}
"""
KEYS = {"NONE": {}, "KD": {"DISTILLER__TYPE": "KD"}, "KD+GKD": {"DISTILLER__TYPE": "KD", "GKD__K": 0.6}}
PROCESSOR = {"model": "A <CPU>", "torch": "AVX512", "onednn": "Intel AVX2"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Suite:
    """A suite's files below a folder, made without training: `missing` rows have no result in their last seed."""

    def __init__(self, root, specify, rows=(), missing=(), commits=("a" * 40,)):
        self.store, self.folder = Store(root), root / "reports/small_2"
        self.made, cells = 0, []
        for number, row in enumerate([*KEYS, *rows]):
            keys = KEYS.get(row) or ({} if row == "NONE" else {"DISTILLER__TYPE": "KD", "KD__TEMPERATURE": 2 + number})
            for pair in PAIRS:
                teacher = specify(DISTILLER__STUDENT=pair.split("-")[0], seed=7)
                cells.append(self.cell("Teacher", "teacher", "", pair, teacher, 0, commits))
                for seed in (0, 1):
                    taught = {"kind": "run", "id": teacher.id, "checkpoint": "last"} if keys else None
                    run = specify(seed=seed, teacher=taught, **keys)
                    role, control = ("distilled", "NONE") if keys else ("student", "")
                    absent = row in missing and seed == 1
                    cells.append(self.cell(row, role, control, pair, run, seed, commits, absent))
        self.index = pd.DataFrame(cells, columns=COLUMNS).drop_duplicates(["row", "pair", "seed"])
        self.results = Results(
            "small_2", self.store, self.index, *collect(self.index, self.store), {}, scope(self.index, self.store)
        )
        write_atomically(root / "params/small_2.yaml", PARAMS)
        for ending in ("png", "pdf"):
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot([0, 1])
            save(figure, self.folder / f"figures/accuracy.{ending}")

    def cell(self, row, role, control, pair, specification, seed, commits, absent=False):
        run = specification.id
        write_atomically(self.store.planned(run), to_json(specification.as_file()))
        if not absent and not (self.store.run(run) / "record.json").exists():
            self.made += 1
            record = {
                "run": run, "weights": {"last": "0" * 64, "best": "0" * 64}, "teacher_weights": None,
                "commit": commits[self.made % len(commits)], "modified": ["src/x.py"][: self.made % 2],
                "device": "x86_64 CPU", "processor": PROCESSOR, "threads": 1, "platform": "Linux",
                "seconds": 10.0, "images_per_second": 50.0,
                "finished": f"2026-01-{self.made:02}T00:00:00+00:00", "versions": {"torch": "2", "numpy": "3"},
            }  # fmt: skip
            write_atomically(self.store.run(run) / "record.json", to_json(record))
            for checkpoint in ("last", "best"):
                value = 80 + (self.made * 7 % 13) / 3 + (checkpoint == "best") * self.made**2 / 100
                entry = {"task": "classification", "split": "test", "checkpoint": checkpoint}
                metrics = [{**entry, "metric": "top1", "value": value}]
                content = {"run_sha256": specification.digest, "metrics": metrics}
                write_atomically(self.store.evaluation(run, checkpoint) / "metrics.json", to_json(content))
        return row, role, control, pair, *pair.split("-"), seed, run

    @property
    def table(self):
        return self.results.table

    def show(self, table):
        """Let page and paper be of another table."""
        self.results = replace(self.results)
        self.results.__dict__["table"] = table

    def page(self, partial=False):
        return render_page(self.results, self.folder, partial)

    def paper(self, partial=False):
        """{file: text} of the paper folder."""
        out = self.folder / "paper"
        write_paper(self.results, self.folder, out, partial)
        return {path.name: path.read_text() for path in out.iterdir() if path.suffix != ".pdf"}


@pytest.fixture
def suite(tmp_path, specify):
    return Suite(tmp_path, specify)


@pytest.fixture
def hostile(tmp_path, specify):
    return Suite(tmp_path, specify, rows=HOSTILE, missing=["KD", "AB"])


class Page(HTMLParser):
    """What a test looks at in a page; parsing fails where elements are not properly nested."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag):
        return "".join(self.texts.get(tag, ()))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def rows_of(text, table="main"):
    """The texts of a table's body, by line, as a browser shows them without the hidden notes and the marks."""
    (block,) = re.findall(rf'<table id="table-{table}">(.*?)</table>', text, re.DOTALL)
    block = re.sub(r'<span class="hidden">.*?</span>| [▲▼]', "", block)
    lines = re.findall(r"<tr>(.*?)</tr>", block.partition("</thead>")[2], re.DOTALL)
    cells = [re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[Page(f"<p>{re.sub(r'</?(span|strong)>', '', c)}</p>").text("p").strip() for c in line] for line in cells]


# The page


def test_page_needs_no_other_file(hostile):
    text = hostile.page()
    page = Page(text)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert page.all("img") and all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert not re.search(r"url\(|@import|https?:", page.text("style"))


def test_links_within_the_page_lead_somewhere(suite):
    page = Page(suite.page())
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"][1:] for link in page.all("a")} <= set(names)


def test_page_is_accessible(suite):
    text = suite.page()
    page = Page(text)
    assert [html["lang"] for html in page.all("html")] == ["en"]
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert page.all("th") and all(cell["scope"] in ("col", "colgroup", "row") for cell in page.all("th"))
    assert all(image["alt"].strip() for image in page.all("img"))
    assert any(meta.get("name") == "viewport" for meta in page.all("meta")) and "@media print" in text


def test_hostile_rows_are_shown_as_text(hostile):
    text = hostile.page()
    assert "<script" not in text and "<b>" not in text
    assert [line[0] for line in rows_of(text)] == hostile.table.rows
    assert "<&>" in Page(text).text("pre")


def test_page_holds_the_tables_cells(hostile):
    main = hostile.results.main.shown
    cells = [[shown(main, *place) for place in zip(main.columns, line.cells, strict=True)] for line in main.lines]
    assert rows_of(hostile.page()) == cells


def test_teachers_and_students_stand_apart(suite):
    bodies = re.findall(r"<tbody( class=\"alone\")?>(.*?)</tbody>", suite.page(), re.DOTALL)[:3]
    assert [bool(alone) for alone, _ in bodies] == [True, True, False]
    assert [re.findall(r'scope="row">([^<]*)', body) for _, body in bodies] == [["Teacher"], ["NONE"], ["KD", "KD+GKD"]]


def test_banner_says_that_runs_are_missing(tmp_path, specify):
    assert "PARTIAL" not in Suite(tmp_path / "a", specify).page()
    partial = Suite(tmp_path / "b", specify, missing=["KD"])
    assert Page(partial.page()).text("p").count(partial.table.banner) == 1
    assert partial.table.banner.startswith("PARTIAL: 10 of 12")


def test_same_inputs_make_the_same_bytes(tmp_path, specify):
    one, two = (Suite(tmp_path / name, specify, rows=HOSTILE) for name in ("one", "two"))
    assert one.page() == two.page() and one.paper() == two.paper()


@pytest.mark.parametrize(
    "low, high, sign",
    [
        (0.33, 3.31, "▲"),
        (-3.31, -0.01, "▼"),
        (0.001, 3.31, "▲"),
        (0.0, 3.31, ""),
        (-0.33, 3.31, ""),
        (0.0, 0.0, ""),
        (float("nan"), float("nan"), ""),
    ],
)
def test_only_a_difference_whose_interval_excludes_zero_is_marked(low, high, sign):
    cells = Cell(Text("+1.49 [+0.33, +3.31]")), Cell(Difference("NONE", Interval(3, 1.49, low, high)))
    sheet = Sheet("main", "s", "t", (Column("row"), Column("difference")), (Line(cells),))
    text = html.render(sheet).partition("</table>")[0]
    assert "".join(c for c in text if c in "▲▼") == sign


def test_marks_are_explained_where_there_are_any(suite):
    plain = suite.page()
    entry = suite.table.entries["KD", PAIRS[0]]
    sure = entry._replace(difference=entry.difference._replace(mean=1.0, low=0.5, high=1.5))
    suite.show(replace(suite.table, entries={**suite.table.entries, ("KD", PAIRS[0]): sure}))
    assert "▲" not in plain.partition("</table>")[0]
    marked, _, below = suite.page().partition("</table>")
    assert marked.count("▲") == marked.count("(interval excludes zero)") == 1 and "excludes zero: above" in below


def test_every_run_is_listed_once(suite):
    lines = rows_of(suite.page(), "runs")
    assert sorted(line[3] for line in lines) == sorted(set(suite.index["run"])) and len(lines) == 12
    (line,) = [line for line in lines if line[:3] == ["KD", PAIRS[0], "1"]]
    entry = suite.table.entries["KD", PAIRS[0]]
    assert line[4:] == [f"{entry.last[1]:.2f}", f"{entry.best[1]:.2f}", "2", "10.0 s", "50", "x86_64 CPU"]
    assert any(line[1] == ", ".join(PAIRS) for line in lines), "the student alone serves both pairs"


def test_runs_without_result_say_so(hostile):
    lines = [line for line in rows_of(hostile.page(), "runs") if line[0] == "AB"]
    assert [line[4] for line in lines if line[2] == "1"] == ["missing", "missing"]


def test_provenance_lists_every_distinct_value(tmp_path, specify):
    text = Page(Suite(tmp_path, specify, commits=("a" * 40, "b" * 40, None)).page()).text("dd")
    for value in ("a" * 40, "b" * 40, "not made in a git checkout", "with changes that are not in it: src/x.py"):
        assert value in text
    assert "2 min 00 s" in text, "twelve runs of ten seconds"
    assert "2026-01-01T00:00:00+00:00 to 2026-01-12T00:00:00+00:00" in text
    assert components.datasets()["digits"]["sha256"] in text


def test_provenance_names_each_processor_and_records_before_that(suite):
    assert "A <CPU>, torch AVX512, oneDNN Intel AVX2" in Page(suite.page()).text("dd")
    run, other = list(dict.fromkeys(suite.index["run"]))[:2]
    for name, processor in ((run, None), (other, {"model": "B", "torch": "DEFAULT", "onednn": None})):
        path = suite.store.run(name) / "record.json"
        record = read_json(path)
        del record["processor"]
        write_atomically(path, to_json(record | ({"processor": processor} if processor else {})))
    values = Page(suite.page()).texts["dd"]
    assert {"unknown (1 run)", "B, torch DEFAULT (1 run)"} <= set(values)
    assert "A <CPU>, torch AVX512, oneDNN Intel AVX2 (10 runs)" in "".join(values)


def test_commands_on_the_page_exist_and_name_the_latest_commit(tmp_path, specify):
    suite = Suite(tmp_path, specify, commits=("a" * 40, "b" * 40))
    block = next(text for text in Page(suite.page()).texts["code"] if "snakemake" in text)
    assert f"git checkout {'a' * 40} " in block and "suite=small_2" in block
    commands = re.findall(r"^distillbench (.*)$", block, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        parsed(shlex.split(command))


def test_the_details_are_those_of_the_results_whatever_lies_in_the_folder(suite):
    """And so in the paper folder: no file is read again."""
    before, paper = suite.page(), suite.paper()
    for name in ("main.md", "details.md", "details.tex", "mine.md", "mine.tex"):
        write_atomically(suite.folder / "tables" / name, "| row |\n| --- |\n| edited |\n")
    assert suite.page() == before and suite.paper() == paper and "edited" not in before
    sheet = suite.results.details
    cells = [[shown(sheet, *place) for place in zip(sheet.columns, line.cells, strict=True)] for line in sheet.lines]
    assert rows_of(before, "details") == cells


@pytest.mark.parametrize("other", [{"split": "val"}, {"task": "detection"}], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_metrics_of_another_split_or_task_change_no_byte(suite, other, first):
    """In whichever order they were collected."""
    page, paper, tables = suite.page(), suite.paper(), files((suite.results.main, suite.results.details))
    metrics = suite.results.metrics
    more = metrics.assign(**other, value=metrics["value"] / 2)
    both = pd.concat([more, metrics] if first else [metrics, more], ignore_index=True)
    suite.results = replace(suite.results, metrics=both)
    assert files((suite.results.main, suite.results.details)) == tables
    assert suite.page() == page and suite.paper() == paper


def test_only_figures_with_a_caption_are_shown(suite, monkeypatch):
    shutil.copy(suite.folder / "figures/accuracy.png", suite.folder / "figures/novel.png")
    assert "figure-novel" not in suite.page()
    monkeypatch.setitem(CAPTIONS, "novel", "Curves of <all> runs.")
    monkeypatch.setitem(CAPTIONS, "absent", "No such file.")
    after = suite.page()
    assert "Curves of &lt;all&gt; runs." in after and "figure-absent" not in after
    assert after.index("figure-accuracy") < after.index("figure-novel")


def test_captions_of_intervals_say_what_they_cover(suite):
    """The caption is of the suite: the same figure of another one covers something else."""
    caption, paper = (lambda: Page(suite.page()).text("figcaption")), (lambda: suite.paper())
    assert suite.table.coverage in caption() and tex(suite.table.coverage) in paper()["example.tex"]
    other = "Deviations and intervals cover something else."
    suite.show(replace(suite.table, coverage=other))
    assert other in caption() and suite.page().count(other) == 3, "below both tables, and in the figure's caption"
    assert all(other in paper()[name] for name in ("main.tex", "details.tex", "example.tex", "numbers.tex"))
    assert [name for name, text in CAPTIONS.items() if "{coverage}" in text] == ["accuracy", "differences"]


# The paper folder


def defined(text):
    """{macro: its text} of numbers.tex."""
    return dict(re.findall(r"^\\newcommand\{\\(\w+)\}\{(.*)\}%", text, re.MULTILINE))


@pytest.mark.parametrize(
    "text, spelled",
    [
        ("resnet20", "ResnetTwenty"),
        ("wrn_16_2", "WrnSixteenTwo"),
        ("resnet32x4", "ResnetThirtyTwoXFour"),
        ("KD+GKD", "KDGKD"),
        ("KD-2019", "KDTwoZeroOneNine"),
        ("K=-0.05", "KMinusZeroPointZeroFive"),
        ("50%", "Fifty"),
    ],
)
def test_names_are_spelled_in_letters(text, spelled):
    assert words(text) == spelled


def test_macros_are_unique_and_of_letters(hostile):
    text = hostile.paper()["numbers.tex"]
    names = re.findall(r"^\\newcommand\{\\(.*?)\}", text, re.MULTILINE)
    rows, pairs = hostile.table.rows, hostile.table.pairs
    cells = len(rows) * len(pairs) * (4 + 2 * (len(details_columns(hostile.results.scope)) - 1))
    assert len(names) == len(set(names)) == 2 + cells + (len(rows) - 2) * (len(pairs) + 1) * 4
    assert all(re.fullmatch("db[A-Za-z]+", name) for name in names)
    assert "dbSmallTwoKDGKDResnetTwentyResnetEightTopOne" in names


def test_rows_of_one_name_share_no_macro_and_do_not_swap_when_one_is_added(tmp_path, specify):
    alone, both, turned = (
        macros((made := Suite(tmp_path / str(number), specify, rows=rows).results).table, made.main, made.details)
        for number, rows in enumerate((["AB"], ["AB", "A+B"], ["A+B", "AB"]))
    )
    ends = {what.split(",")[0]: name for name, (_, what) in both.items() if "ABResnet" in name and "TopOne" in name}
    assert set(ends) == {"AB", "A+B"} and ends["AB"] != ends["A+B"]
    assert {name: what for name, (_, what) in both.items()} == {name: what for name, (_, what) in turned.items()}
    assert not {name for name in alone if "ABResnet" in name} & set(both), "an old name is gone, not another's"


def test_macros_hold_the_numbers_of_both_tables(suite):
    found = defined(suite.paper()["numbers.tex"])
    columns = {
        "TopOne": ("last_mean", ".2f"),
        "TopOneSd": ("last_sd", ".2f"),
        "BestTopOne": ("best_mean", ".2f"),
        "Difference": ("difference_mean", "+.2f"),
        "DifferenceLow": ("difference_low", "+.2f"),
        "DifferenceHigh": ("difference_high", "+.2f"),
        "TopOneN": ("n", ".0f"),
        "DifferenceN": ("difference_n", ".0f"),
    }
    seen = 0
    for record in csv.DictReader(io.StringIO(csv_file.render(suite.results.main))):
        for name, (column, form) in columns.items():
            macro = f"dbSmallTwo{words(record['row'])}{words(record['pair'])}{name}"
            if record[column]:
                assert re.sub(r"\\ensuremath\{(.*)\}", r"\1", found.pop(macro)) == format(float(record[column]), form)
                seen += 1
            elif macro in found:
                assert found.pop(macro) == MISSING
    for line in csv.DictReader(io.StringIO(csv_file.render(suite.results.details))):
        for column in details_columns(suite.results.scope):
            for name in column.fields if column.key != "top1" else ():
                text = found.pop(f"dbSmallTwo{words(line['row'])}{words(line['pair'])}{words(name)}")
                assert text == (format(float(line[name]), column.form) if line[name] else MISSING)
    assert found == {"dbSmallTwoRuns": "12", "dbSmallTwoRunsFinished": "12"} and seen == 2 * 3 + 2 * 4 + 4 * 8 + 2 * 4


def test_missing_numbers_stay_visible(tmp_path, specify):
    found = defined(Suite(tmp_path, specify, missing=["KD"]).paper()["numbers.tex"])
    assert found["dbSmallTwoKDAllPairsDifferenceLow"] == found["dbSmallTwoKDResnetTwentyResnetEightTopOneSd"] == MISSING
    assert found["dbSmallTwoKDResnetTwentyResnetEightTopOne"] != MISSING


def test_comment_beside_a_macro_names_row_pair_and_quantity(suite):
    (line,) = re.findall(r"KDGKDWrnSixteenTwoResnetEightDifferenceLow\}.*", suite.paper()["numbers.tex"])
    assert line.endswith("% KD+GKD, wrn_16_2-resnet8: difference to NONE, lower end of the 95 % interval")


def test_every_declared_reference_has_a_key_of_its_own():
    kinds = (components.methods(), components.trainers(), components.transforms(), components.datasets())
    entries = [declared["bibtex"].strip() for kind in kinds for declared in kind.values() if declared["bibtex"]]
    keys = [citation_key(entry) for entry in entries]
    assert len(set(keys)) == len(set(entries)) and {"hinton2015distilling", "gkd", "alpaydin1998digits"} <= set(keys)


def test_bibliography_has_what_the_suite_uses(suite):
    bib = suite.paper()["references.bib"]
    keys = re.findall(r"^@\w+\{([^,]+),", bib, re.MULTILINE)
    used = ["alpaydin1998digits", "gkd", "he2016deep", "hinton2015distilling", "zagoruyko2016wide"]  # two of networks
    assert sorted(keys) == used
    assert list(bibliography(gather(suite.results))) == keys


def test_an_optimizer_that_is_not_the_usual_one_has_a_reference(specify):
    assert not any(what.startswith("optimizer") for what in references(specify()))
    used = references(specify(SOLVER__TYPE="AdamW", SOLVER__LR=0.001))
    assert citation_key(used["optimizer AdamW"]) == "loshchilov2019decoupled"


def test_networks_of_student_and_teacher_have_references(specify):
    assert citation_key(references(specify())["network resnet8"]) == "he2016deep"
    used = references(specify(teacher=TEACHER, DISTILLER__TYPE="KD", DISTILLER__STUDENT="wrn_16_1"))
    assert citation(used["network wrn_16_1"]) == "Zagoruyko, Komodakis 2016"
    assert citation(used["network resnet8"]) == "He et al. 2016"
    assert citation("@misc{mine, title = {Mine}}") == NO_REFERENCE


def test_component_without_reference_says_so(suite, specify, monkeypatch):
    monkeypatch.setitem(components.packaged_methods()["KD"], "bibtex", "")
    assert references(specify(DISTILLER__TYPE="KD"))["method KD"] == ""
    files = suite.paper()
    assert "hinton" not in "".join(files.values()) and f"method KD: {NO_REFERENCE}" in files["numbers.tex"]
    assert f"<dt>method KD</dt>\n<dd>{NO_REFERENCE}</dd>" in suite.page()


def test_method_in_a_file_of_the_users_own_brings_its_reference(specify, monkeypatch):
    specification = specify(DISTILLER__TYPE="KD")
    specification["method"]["name"] = "Mine"
    assert references(specification)["method Mine"] == ""
    monkeypatch.setitem(components.own_methods, "Mine", {"name": "Mine", "bibtex": "@misc{mine, title = {Mine}}"})
    assert citation_key(references(specification)["method Mine"]) == "mine"


@pytest.mark.parametrize("entry", ["Hinton 2015", "@article{, title = {x}}", "@article{a, title = {x}"])
def test_malformed_reference_is_refused(entry):
    with pytest.raises(UserError, match="expected one entry"):
        citation_key(entry)


def bare(tex):
    """TeX without comments and escaped characters."""
    return re.sub(r"(?<!\\)%.*", "", re.sub(r"\\[\\&%$#_{}~^]", "", tex))


def test_tex_is_balanced_and_uses_only_what_it_defines(hostile):
    files = hostile.paper()
    macro_names = set(defined(files["numbers.tex"]))
    for name in ("main.tex", "numbers.tex", "example.tex"):
        text = bare(files[name])
        assert text.count("{") == text.count("}"), name
        assert sorted(re.findall(r"\\begin\{(\w+)", text)) == sorted(re.findall(r"\\end\{(\w+)", text))
    example = bare(files["example.tex"])
    assert set(re.findall(r"\\(db[A-Za-z]+)", example)) == macro_names
    inputs = set(re.findall(r"\\input\{(\w+)\}", example))
    assert {f"{name}.tex" for name in inputs} | {"example.tex", "references.bib"} == set(files)
    pictures = re.findall(r"\\includegraphics\[.*\]\{(\w+)\}", example)
    assert pictures == ["accuracy"]
    assert all((hostile.folder / "paper" / f"{name}.pdf").exists() for name in pictures)
    assert set(re.search(r"\\cite\{(.*?)\}", example)[1].split(",")) == set(
        re.findall(r"@\w+\{([^,]+),", files["references.bib"])
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_example_compiles(hostile):
    hostile.paper()
    for program in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        command = [program, "example"] if program == "bibtex" else [program, "-interaction=nonstopmode", "example"]
        result = subprocess.run(command, cwd=hostile.folder / "paper", capture_output=True)
        assert result.returncode == 0, result.stdout.decode(errors="replace")[-2000:]
    log = (hostile.folder / "paper/example.log").read_text(errors="replace")
    assert "undefined" not in log and "Overfull" not in log


def test_the_page_shows_what_the_suite_includes_and_its_own_file_where_that_cannot_be_read(suite):
    root = suite.store.results.parent
    write_atomically(root / "params/small_2.yaml", "include: common/a.yaml\nseeds: [0]\n")
    write_atomically(root / "params/common/a.yaml", "base: {KD.WARMUP: 3}  # <shared>\n")
    _, _, shown = suite.page().partition('<h2 id="params">params/small_2.yaml</h2>')
    own, _, included = shown.partition("<h3>params/common/a.yaml</h3>")
    assert "seeds: [0]" in own and "base: {KD.WARMUP: 3}  # &lt;shared&gt;" in included
    (root / "params/common/a.yaml").unlink()
    assert "seeds: [0]" in (page := suite.page()) and "common/a.yaml</h3>" not in page


# The command


def test_report_without_collected_metrics_is_one_line(tmp_path, monkeypatch, capsys):
    write_atomically(tmp_path / "params/demo.yaml", PARAMS)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "demo"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "--partial" in lines[0]


def test_command_writes_page_and_paper_and_the_complete_one_removes_the_partial(suite, monkeypatch):
    root = suite.store.results.parent
    monkeypatch.chdir(root)
    assert main(["report", "small_2", "--partial"]) == 0
    assert "PARTIAL: 0 of 2 runs" in Path("reports/small_2/partial.html").read_text()
    assert Path("reports/small_2/partial-paper/example.tex").exists()
    write_atomically("results/suites/small_2/index.csv", suite.index.to_csv(index=False))
    for name, frame in zip(("metrics", "costs"), collect(suite.index, suite.store), strict=True):
        write_atomically(f"results/suites/small_2/{name}.csv", frame.to_csv(index=False))
    assert main(["report", "small_2"]) == 0
    found = {path.name for path in Path("reports/small_2").iterdir()}
    assert found == {"index.html", "paper", "tables", "figures"}
    assert Path("reports/small_2/index.html").read_text() == suite.page()


def test_reporting_imports_no_torch():
    code = "import sys, distillbench.reporting.page, distillbench.reporting.paper; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pooled_pair_is_spelled():
    assert words(POOLED) == "AllPairs"


def test_the_page_names_a_dataset_by_whatever_tells_its_images_from_others():
    stated = [evaluated("digits", "resnet8")["dataset"], evaluated("cifar100", "resnet8")["dataset"]]
    assert re.fullmatch("digits, version 1, sha256 [0-9a-f]{64}", page._dataset(stated[0]))
    assert page._dataset(stated[1]) == "cifar100, version 1, md5 eb9058c3a382ffc7106e4002c42a8d85"
