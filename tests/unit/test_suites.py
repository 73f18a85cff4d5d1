"""What suites share (`include:`), the papers' suites and their numbers of runs, and what matched teachers cost."""

import re
from functools import cache
from pathlib import Path

import pytest
from standins import ROOT

from distillbench.commands import main
from distillbench.config.components import packaged_methods
from distillbench.config.suite import load_suite
from distillbench.config.suite_file import row_names, suite_names
from distillbench.config.yaml_file import as_yaml, merged, read_yaml

OWN = """\
include: common/rows.yaml
dataset: digits
seeds: [0]
pairs: [{teacher: resnet20, student: resnet8}]
"""
ROWS = """\
base: {SOLVER: {EPOCHS: 20, LR: 0.1}}
methods:
  NONE: {DISTILLER.TYPE: NONE}
  KD: {DISTILLER.TYPE: KD, KD: {TEMPERATURE: 4, LOSS: {CE_WEIGHT: 0.1, KD_WEIGHT: 0.9}}, control: NONE}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project({file: text}): the files of params/ of the project in which commands are run."""
    monkeypatch.chdir(tmp_path)

    def write(**files):
        for name, text in files.items():
            path = Path("params", f"{name.replace('__', '/')}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


papers = cache(lambda name: load_suite(name, ROOT))


def ids(name):
    return list(load_suite(name).runs)


def refused(capsys, *parts, command=("plan", "own")):
    assert main([*command]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and not Path("results").exists()
    for part in parts:
        assert part in line, line


# What is merged


def test_a_suite_is_the_one_that_has_everything_in_its_own_file(project):
    whole = OWN.partition("\n")[2] + ROWS
    project(own=OWN, common__rows=ROWS, whole=whole)
    assert ids("own") == ids("whole")


@pytest.mark.parametrize("key", ["SOLVER: {LR: 0.2}", "SOLVER.LR: 0.2"])
@pytest.mark.parametrize("below", ["SOLVER: {EPOCHS: 20, LR: 0.1}", "SOLVER.EPOCHS: 20, SOLVER.LR: 0.1"])
def test_mappings_merge_by_key_and_the_includer_wins_dotted_or_nested(project, key, below):
    rows = ROWS.replace("SOLVER: {EPOCHS: 20, LR: 0.1}", below)
    project(
        own=f"{OWN}base: {{{key}}}\nmethods: {{KD: {{KD.TEMPERATURE: 2}}, GKD: {{like: KD, GKD: {{}}}}}}",
        common__rows=rows,
    )
    cells = {cell.row: cell for cell in load_suite("own").cells}
    assert list(cells) == ["Teacher", "NONE", "KD", "GKD"]  # what is included stands before what is added
    for cell in cells.values():
        assert {**cell.specification["schedule"]}.items() >= {"LR": 0.2, "EPOCHS": 20}.items()
    for row in ("KD", "GKD"):
        parameters = cells[row].specification["method"]["parameters"]
        assert parameters["TEMPERATURE"] == 2 and parameters["LOSS.KD_WEIGHT"] == 0.9
    assert cells["KD"].control == "NONE" and cells["GKD"].specification["gradient_scaling"]


def test_rows_keep_their_place_also_where_all_of_one_is_written_anew(project):
    project(
        own=f"{OWN}methods: {{new: {{like: NONE, SOLVER.LR: 1}}, NONE: {{DISTILLER.TYPE: NONE}}}}", common__rows=ROWS
    )
    assert row_names("own") == ["Teacher", "NONE", "KD", "new"]


def test_lists_are_replaced_whole(project):
    shared = f"seeds: [0, 1, 2]\npairs: [{{teacher: resnet56, student: resnet8}}]\n{ROWS}"
    project(own=OWN, common__rows=shared)
    assert {cell.pair for cell in load_suite("own").cells} == {"resnet20-resnet8"}
    assert {cell.seed for cell in load_suite("own").cells} == {0}


def test_of_several_files_what_is_read_later_counts_more(project):
    first, second = (f"base: {{SOLVER.LR: {lr}, SOLVER.BATCH_SIZE: {size}}}\n" for lr, size in ((0.1, 32), (0.2, 16)))
    own = OWN.replace("common/rows.yaml", "[common/rows.yaml, common/first.yaml, common/second.yaml]")
    project(own=f"{own}base: {{SOLVER.BATCH_SIZE: 8}}\n", common__rows=ROWS, common__first=first, common__second=second)
    suite = load_suite("own")
    assert suite.files == (*(f"params/common/{name}.yaml" for name in ("rows", "first", "second")), "params/own.yaml")
    (specification, *_) = suite.runs.values()
    assert (specification["schedule"]["LR"], specification["batch"]["size"]) == (0.2, 8)


def test_files_include_others_by_their_path_in_params_and_one_may_come_twice(project):
    project(
        own=OWN.replace("common/rows.yaml", "[common/a.yaml, common/b.yaml]"),
        common__a="include: common/rows.yaml\n",
        common__b="include: common/rows.yaml\nbase: {SOLVER.LR: 0.3}\n",
        common__rows=ROWS,
        other="include: own.yaml\nseeds: [4]\n",
    )
    assert {s["schedule"]["LR"] for s in load_suite("own").runs.values()} == {0.3}
    other = load_suite("other")
    assert {cell.seed for cell in other.cells} == {4, 0} and other.cells[-1].seed == 4
    assert other.files == tuple(f"params/{n}.yaml" for n in ("common/rows", "common/a", "common/b", "own", "other"))
    assert other.source == "params/other.yaml"


def test_an_empty_switch_and_its_keys_may_stand_in_two_files(project):
    project(own=f"{OWN}methods: {{KD: {{GKD: {{}}}}}}", common__rows=ROWS.replace("KD: {DIST", "KD: {GKD.K: 0.9, DIST"))
    cell = load_suite("own").cells[-1]
    assert cell.specification["gradient_scaling"]["parameters"]["K"] == 0.9


# What is refused


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("3", "include: 3 is not valid here, expected a file by its path in params/"),
        ("[common/rows.yaml, 3]", "include: 3 is not valid here"),
        ("../own.yaml", "include: '../own.yaml' is not valid here"),
        ("/tmp/own.yaml", "include: '/tmp/own.yaml' is not valid here"),
        ("common/rows", "include: 'common/rows' is not valid here, expected a file"),
        ("common/row.yaml", "include: unknown file 'common/row.yaml'; did you mean common/rows.yaml?"),
        ("[common/rows.yaml, common/rows.yaml]", "include: common/rows.yaml stands twice; remove one"),
        ("own.yaml", "include: goes in a circle: own.yaml -> own.yaml"),
    ],
)
def test_an_include_that_cannot_be_is_one_line(project, capsys, include, says):
    project(own=OWN.replace("common/rows.yaml", include), common__rows=ROWS)
    refused(capsys, f"params/own.yaml: {says}")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "broken link"])
def test_what_is_no_file_is_not_offered_in_its_own_place(project, capsys, make):
    project(own=OWN.replace("common/rows.yaml", "common/row.yaml"), common__rows=ROWS)
    make(Path("params/common/row.yaml"))
    refused(capsys, "params/own.yaml: include: unknown file 'common/row.yaml'; did you mean common/rows.yaml?")


def test_a_circle_behind_others_names_its_files(project, capsys):
    project(own=OWN, common__rows=f"include: common/more.yaml\n{ROWS}", common__more="include: common/rows.yaml\n")
    circle = "common/rows.yaml -> common/more.yaml -> common/rows.yaml"
    refused(capsys, f"params/common/more.yaml: include: goes in a circle: {circle}")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("methods:", "mehtods: {}\nmethods:", "mehtods: unknown section 'mehtods'; did you mean methods?"),
        ("LR: 0.1", "LRR: 0.1", "base.SOLVER.LRR: unknown key 'SOLVER.LRR'; did you mean SOLVER.LR?"),
        ("LR: 0.1", "LR: -0.1", "base.SOLVER.LR: -0.1 is out of range"),
        ("SOLVER: {E", "SOLVR: {E", "base.SOLVR: unknown node 'SOLVR'; did you mean SOLVER?"),
        ("TEMPERATURE: 4", "TEMPERATURE: 0", "methods.KD.KD.TEMPERATURE: 0"),
        ("TEMPERATURE: 4, ", "TEMPERATURE: 4}, DKD: {T: 1}, KD.LOSS: {CE_WEIGHT: 1}, GKD: {", "methods.KD.GKD.LOSS"),
        ("DISTILLER.TYPE: NONE", "DISTILLER.TYPE: NONE, KD.WARMUP: 3", "methods.NONE.KD.WARMUP: not read by a row"),
        ("DISTILLER.TYPE: NONE", "DISTILLER.TYPE: NONE, GKD: {}", "methods.NONE.GKD: NONE has no loss"),
        ("control: NONE", "control: NON", "methods.KD.control: unknown row 'NON'; did you mean NONE?"),
        ("LR: 0.1", "LR: on", "YAML 1.1 reads on as True"),
    ],
)
def test_a_fault_names_the_file_that_it_stands_in(project, capsys, old, new, says):
    """Also where the suite's file has other keys in the same section and row."""
    rows = ROWS.replace(old, new, 1)
    project(
        own=f"{OWN}base: {{SOLVER.BATCH_SIZE: 8}}\nmethods: {{KD: {{KD.WARMUP: 1}}, NONE: {{}}}}\n", common__rows=rows
    )
    assert rows != ROWS
    refused(capsys, "params/common/rows.yaml", says)


def test_a_fault_of_the_suites_own_names_its_file(project, capsys):
    own = f"{OWN}methods: {{KD: {{KD.WARMUP: -1}}}}\nbase: {{SOLVER.EPOCHS: 2}}\n"
    project(own=own, common__rows=ROWS)
    refused(capsys, "params/own.yaml: methods.KD.KD.WARMUP: -1")
    project(own=own.replace("-1", "1").replace("resnet20", "resnet21"))
    refused(capsys, "params/own.yaml: pairs[0].teacher: ")
    project(own=OWN.replace("dataset: digits\n", ""))
    refused(capsys, "params/own.yaml: dataset: is missing")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("dataset: digit", "dataset: unknown dataset 'digit'"),
        ("seeds: [a]", "seeds: ['a'] is not valid here"),
        ("pairs: [{teacher: resnet20}]", "pairs[0]"),
        ("protocol: {holdout: 2}", "protocol.holdout: 2"),
        ("teachers: {seed: -1}", "teachers.seed: -1"),
        ("teachers: {KD.WARMUP: 2}", "teachers.KD.WARMUP: not read"),
        ("teacher_seed: mached", "teacher_seed: 'mached'"),
        ("method_files: [none.py]", "method_files: none.py: no such file"),
        ("network_files: 3", "network_files: 3 is not valid here"),
        ("sweep: {KD.TEMPERATUR: [1]}", "sweep.KD.TEMPERATUR: unknown key"),
        ("sweep: {KD.TEMPERATURE: [0]}", "sweep.KD.TEMPERATURE: 0"),
    ],
)
def test_every_section_may_be_shared_and_its_faults_are_its_files(project, capsys, section, says):
    name = section.partition(":")[0]
    own = "".join(line for line in OWN.splitlines(keepends=True) if not line.startswith(name))
    project(own=own, common__rows=f"{section}\n{ROWS}")
    refused(capsys, f"params/common/rows.yaml: {says}")


# What is noted


def test_what_is_shared_may_serve_other_suites_and_is_not_noted(project, capsys):
    shared = "DKD.T: 3, SOLVER.DOT.DELTA: 0.05, GKD.K: 1"
    rows = ROWS.replace("SOLVER: {E", f"{shared}, SOLVER: {{E") + "method_files: [my.py]\n"
    Path("my.py").write_text((ROOT / "tests/fixtures/own_method.py").read_text())
    project(own=OWN, common__rows=rows)
    assert load_suite("own").notes == ()
    project(own=f"{OWN}base: {{DKD.BETA: 3, SOLVER.LR: 0.2}}\n")
    (note,) = load_suite("own").notes
    assert note.startswith("params/own.yaml: base.DKD.BETA: is read by no run")
    project(own=OWN, common__rows=ROWS, whole=OWN.partition("\n")[2] + rows)
    assert len(load_suite("whole").notes) == 4  # a suite's own are noted, all of them


# Who else reads params files


def test_what_is_only_included_is_no_suite(project, capsys):
    project(own=OWN, common__rows=ROWS)
    assert suite_names() == ["own"]
    assert main(["plan", "common/rows"]) == 2
    assert "unknown suite 'common/rows'" in capsys.readouterr().err


def test_rows_are_offered_from_everything_that_is_read(project):
    project(own=f"{OWN}methods: {{GKD: {{like: KD, GKD: {{}}}}}}", common__rows=ROWS)
    assert row_names("own") == ["Teacher", "NONE", "KD", "GKD"]


@pytest.mark.parametrize("name", [*suite_names(ROOT), "own"])
def test_a_resolved_suite_is_one_file_that_gives_the_same_runs(project, capsys, monkeypatch, name):
    root = project(own=f"{OWN}protocol: {{holdout: 0.2}}\nmethods: {{KD: {{GKD: {{}}}}}}", common__rows=ROWS)
    monkeypatch.chdir(ROOT if name in suite_names(ROOT) else root)
    assert main(["plan", name, "--resolved"]) == 0
    text, expected = capsys.readouterr().out, load_suite(name)
    assert text.startswith(f"# params/{name}.yaml") and all(file in text.splitlines()[0] for file in expected.files)
    monkeypatch.chdir(root)
    project(resolved=text)
    assert "include" not in read_yaml("params/resolved.yaml") and not Path("results").exists()
    resolved = load_suite("resolved")
    assert [(cell.name, cell.control) for cell in resolved.cells] == [(c.name, c.control) for c in expected.cells]
    assert list(resolved.runs) == list(expected.runs)


def test_a_part_of_a_suite_is_not_printed_resolved(project, capsys):
    project(own=OWN, common__rows=ROWS)
    for words in (("--only", "KD"), ("--table", "never")):
        says = f"--resolved: prints a suite as it is written; leave out {words[0]}"
        refused(capsys, says, command=("plan", "own", "--resolved", *words))
    project(common__rows=ROWS.replace("LR: 0.1", "LR: -1"))
    refused(capsys, "params/common/rows.yaml: base.SOLVER.LR", command=("plan", "own", "--resolved"))


def test_what_is_written_is_read_as_the_same(tmp_path):
    shared = ["010", "0o17", "on", "~", "1:30", "2024-01-02", "=", "λ", "1e5", "a: b", "", "+1_0"]
    content = {text: [text, shared] for text in shared} | {
        "numbers": [1, 1e-5, 1e22, 0.1, -3.0, True, None, float("inf")]
    }
    (tmp_path / "it.yaml").write_text(as_yaml(content), encoding="utf-8")
    assert read_yaml(tmp_path / "it.yaml") == content


def test_merging_changes_neither_side():
    below, above = {"a": {"b": {"c": 1}, "d.e": 2}, "x": 1}, {"a": {"b.c": 3, "d": {"f": 4}}, "y": {}}
    assert merged(below, above) == {"a": {"d.e": 2, "b.c": 3, "d": {"f": 4}}, "x": 1, "y": {}}
    assert below == {"a": {"b": {"c": 1}, "d.e": 2}, "x": 1} and above == {"a": {"b.c": 3, "d": {"f": 4}}, "y": {}}


# The papers' suites

ROW_COUNT = 26  # 14 methods, KD again, 4 with GKD (2 of them controls), 7 with DOT (2 of them controls)
PAPERS = {  # suite: (pairs, seeds, networks that teach, students of more than one pair)
    "cifar100_same": (6, 5, 5, 0),  # wrn_40_2 teaches two
    "cifar100_different": (6, 5, 4, 2),  # resnet32x4 and ResNet50 teach two; ShuffleV1 and MobileNetV2 learn of two
    "tiny_imagenet": (2, 5, 1, 0),
    "imagenet": (2, 1, 2, 0),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_suite_has_the_runs_that_arithmetic_gives(name):
    """A row of each pair and seed; pairs share teachers, and the student that learns alone where it is in several."""
    pairs, seeds, teachers, shared = PAPERS[name]
    suite = papers(name)
    assert len({cell.row for cell in suite.cells} - {"Teacher"}) == ROW_COUNT
    assert (
        len({cell.pair for cell in suite.cells}) == pairs and len({c.seed for c in suite.cells if c.teacher}) >= seeds
    )
    students = [cell for cell in suite.cells if cell.role != "teacher"]
    assert len(students) == pairs * ROW_COUNT * seeds
    assert len(suite.runs) == pairs * ROW_COUNT * seeds - shared * seeds + teachers * seeds
    assert len(suite.teachers) == teachers * seeds and len(set(suite.teachers.values())) == teachers
    assert suite.notes == () and not any(cell.notes for cell in suite.cells)


def test_the_suites_of_cifar_share_teachers_and_a_student():
    same, different = (set(papers(name).runs) for name in ("cifar100_same", "cifar100_different"))
    shared = {run.rpartition("-")[0] for run in same & different}
    networks = {"resnet32x4": 1000, "wrn_40_2": 1000, "vgg13": 1000, "vgg8": 0}
    assert shared == {f"cifar100/{network}/none/s{first + n}" for network, first in networks.items() for n in range(5)}


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_suite_has_every_method_and_a_control_for_each_row(name):
    suite = papers(name)
    rows = {cell.row: cell for cell in suite.cells if cell.role != "teacher"}
    assert {cell.specification["method"]["name"] for cell in rows.values()} == set(packaged_methods())
    assert [row for row, cell in rows.items() if not cell.control] == ["NONE"]


DKD_BETA = {"resnet56": 2, "resnet110": 2, "wrn_40_2": 6, "vgg13": 6, "resnet32x4": 8, "ResNet50": 8}  # by teacher
SHUFFLED = {"MobileNetV2", "ShuffleV1", "ShuffleV2"}  # learn at another rate


@pytest.mark.parametrize("name", ["cifar100_same", "cifar100_different"])
def test_pairs_of_cifar_have_their_published_settings(name):
    for cell in papers(name).cells:
        schedule, method = cell.specification["schedule"], cell.specification["method"]
        assert schedule["LR"] == (0.01 if cell.student in SHUFFLED and cell.role != "teacher" else 0.05)
        assert (schedule["EPOCHS"], cell.specification["batch"]["size"]) == (240, 64)
        if method["name"] == "DKD":
            expected = 8 if cell.student == "ShuffleV1" else DKD_BETA[cell.teacher]
            assert method["parameters"]["BETA"] == expected, cell.name


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("row", ["KD", "KD-warm"])
def test_dots_control_has_the_weights_that_its_momenta_stand_for(name, row):
    cells = {cell.row: cell.specification for cell in papers(name).cells}
    plain, weighted, dot = cells[row], cells[f"{row} weighted"], cells[f"{row}+DOT"]
    delta, momentum = dot["trainer"]["parameters"]["DELTA"], 0.9
    task, distilled = (1 - momentum) / (1 - momentum + delta), (1 - momentum) / (1 - momentum - delta)
    ours, theirs = weighted["method"]["parameters"], plain["method"]["parameters"]
    assert dot["method"] == plain["method"]
    assert ours["LOSS.CE_WEIGHT"] == pytest.approx(theirs["LOSS.CE_WEIGHT"] * task, rel=1e-5)
    assert ours["LOSS.KD_WEIGHT"] == pytest.approx(theirs["LOSS.KD_WEIGHT"] * distilled, rel=1e-5)
    assert weighted["schedule"]["WEIGHT_DECAY"] == pytest.approx(plain["schedule"]["WEIGHT_DECAY"] * task, rel=1e-5)
    assert {k: v for k, v in weighted["schedule"].items() if k != "WEIGHT_DECAY"} == {
        k: v for k, v in plain["schedule"].items() if k != "WEIGHT_DECAY"
    }


def test_imagenets_batches_are_the_published_ones_with_the_statistics_of_eight_gpus():
    sizes = {cell.row: cell.specification["batch"]["size"] for cell in papers("imagenet").cells}
    statistics = {cell.row: cell.specification["batch"]["statistics"] for cell in papers("imagenet").cells}
    assert statistics == {row: size // 8 for row, size in sizes.items()}
    rates = {cell.row: cell.specification["schedule"]["LR"] for cell in papers("imagenet").cells}
    others = {"CRD": (256, 0.1), "REVIEWKD": (256, 0.1), "OFD": (128, 0.05)}
    for row, size in sizes.items():
        assert (size, rates[row]) == others.get(row, (512, 0.2))


# Matched teachers, and sweeps

PAIRS = [("resnet20", "resnet8"), ("resnet20", "resnet14"), ("resnet14", "resnet8")]
MATCHED = OWN.replace("seeds: [0]", "seeds: [0, 1, 2]\nteacher_seed: matched")


@pytest.mark.parametrize("more", ["", "protocol: {holdout: 0.1}\n", "sweep: {KD.TEMPERATURE: [2, 4]}\n"])
def test_plan_says_what_matched_teachers_cost(project, capsys, more):
    pairs = "".join(f"  - {{teacher: {t}, student: {s}}}\n" for t, s in PAIRS)
    project(own=re.sub("pairs: .*", f"pairs:\n{pairs}", MATCHED) + more, common__rows=ROWS)
    assert main(["plan", "own"]) == 0
    line = "6 of them teachers, 6 to train (teacher_seed: matched); with fixed 2"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["plan", "own", "--only", "KD*/resnet14-resnet8/s1"]) == 0
    assert "(teacher_seed: matched)" not in capsys.readouterr().out  # of one seed there is nothing to say
    project(own=OWN)
    assert main(["plan", "own"]) == 0
    assert "teachers" not in capsys.readouterr().out


@pytest.mark.parametrize("more", ["protocol: {holdout: 0.1}\n", "sweep: {KD.TEMPERATURE: [2, 4]}\n"])
def test_matched_teachers_hold_out_what_their_students_do_and_each_seed_has_a_table(project, capsys, more):
    project(own=MATCHED + more, common__rows=ROWS)
    suite = load_suite("own")
    assert {str(s["dataset"]["protocol"]) for s in suite.runs.values()} == {"{'holdout': 0.1, 'salt': 0}"}
    for cell in suite.cells:
        assert cell.role != "distilled" or suite.runs[cell.specification.teacher_id]["seed"] == 1000 + cell.seed
    assert main(["plan", "own", "--table", "always"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("table ")]
    assert [line.split()[1].split("/s")[1][:4] for line in lines] == ["1000", "1001", "1002"]


def test_a_sweep_holds_out_unless_a_protocol_is_written_and_plan_says_so(project, capsys):
    sweep = "sweep: {KD.TEMPERATURE: [2, 4]}\n"
    protocols = {}
    for protocol in ("", "protocol: published\n", "protocol: {holdout: 0.3}\n"):
        project(own=OWN + protocol + sweep, common__rows=ROWS)
        (protocols[protocol],) = {str(s["dataset"]["protocol"]) for s in load_suite("own").runs.values()}
        assert main(["plan", "own"]) == 0
        noted = "note: params/own.yaml: protocol: is {holdout: 0.1}" in capsys.readouterr().out
        assert noted == (protocol == "")
    assert list(protocols.values()) == ["{'holdout': 0.1, 'salt': 0}", "published", "{'holdout': 0.3, 'salt': 0}"]
    project(own=f"{OWN}sweep: {{}}\n")
    assert {s["dataset"]["protocol"] for s in load_suite("own").runs.values()} == {"published"}


def test_no_suite_of_the_project_changes_its_protocol():
    assert {str(s["dataset"]["protocol"]) for name in suite_names(ROOT) for s in papers(name).runs.values()} == {
        "published"
    }
