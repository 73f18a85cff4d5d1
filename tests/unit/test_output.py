"""What commands write stays apart from what others left in the same folder."""

import json
import shutil
from pathlib import Path

import pytest
from stores import files, finish_all, new_project, runs

from distillbench.commands import main
from distillbench.errors import UserError
from distillbench.files import write_atomically
from distillbench.output import RECORD, output
from distillbench.planning import plan_suite
from distillbench.store import Store

OURS, OTHERS = {"main.md": "a table", "paper/main.tex": "a paper"}, {"notes.md": "mine", "paper/notes.tex": "mine"}


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """A folder of somebody who writes there, too."""
    monkeypatch.chdir(tmp_path)
    put("out", OTHERS | {"partial-mine.md": "mine", "partial-paper/mine.tex": "mine", "scale.pdf": "mine"})
    return tmp_path / "out"


def put(folder, contents):
    for name, content in contents.items():
        write_atomically(Path(folder) / name, content)


def write(contents=OURS, folder="out", by="report demo", workflow="reports/demo", partial=False):
    with output(folder, by, workflow, partial) as stage:
        put(stage, contents)


def texts(folder="out"):
    return {name: content.decode() for name, content in files(folder).items() if name != RECORD}


def refused(says, **options):
    """A call that fails in one line and changes nothing."""
    before = files(".")
    with pytest.raises(UserError, match=says) as error:
        write(**options)
    assert "\n" not in str(error.value) and files(".") == before


def test_files_of_others_stay_and_ours_are_renewed(out):
    before = texts()
    write()
    assert texts() == before | OURS
    write({"main.md": "another table", "paper/numbers.tex": "new"})
    assert texts() == before | {"main.md": "another table", "paper/numbers.tex": "new"}
    assert [path.name for path in out.glob(".*")] == [RECORD]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("workflow", ["reports/demo", "out"], ids=["a user's folder", "the workflow's"])
def test_a_file_that_was_edited_is_lost_in_the_workflows_folder_alone(out, name, workflow):
    write(workflow=workflow)
    (out / name).write_text("edited")
    if workflow == "out":
        write({"main.md": "1", "paper/main.tex": "2"}, workflow=workflow)
        assert texts()[name] in "12"
    else:
        refused("is not what an earlier `distillbench report demo` left")


def test_a_file_that_was_edited_is_never_deleted(out):
    for workflow in ("reports/demo", "out"):
        write({"old.md": "old", **OURS}, workflow=workflow)
        (out / "old.md").write_text("edited")
        write(workflow=workflow)
        assert (out / "old.md").read_text() == "edited"
        (out / "old.md").unlink()


def a_file(path):
    write_atomically(path, "mine")


def a_link(path):
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/nowhere")


IN_THE_WAY = {
    "a file": ("main.md", a_file, "not what an earlier"),
    "a file below": ("paper/main.tex", a_file, "not what an earlier"),
    "a link": ("main.md", a_link, "not what an earlier"),
    "a folder": ("main.md", lambda path: path.mkdir(), "main.md: is a folder where a file is needed"),
}


@pytest.mark.parametrize("name, make, says", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_in_the_way_is_not_overwritten(out, name, make, says):
    make(out / name)
    refused(says)


@pytest.mark.parametrize("workflow", ["reports/demo", "out"])
def test_a_file_where_a_folder_is_needed_is_refused_everywhere(out, workflow):
    refused(
        "notes.md: is a file where a folder is needed", contents={"notes.md/main.tex": "a paper"}, workflow=workflow
    )
    refused("notes.md: is no folder", folder="out/notes.md", workflow=workflow)


def test_the_same_content_is_not_in_the_way(out):
    put("out", OURS)
    write()
    write({"main.md": "another table"})
    assert texts()["main.md"] == "another table" and "paper/main.tex" not in texts()


@pytest.mark.parametrize("by", ["report other", "tables demo"])
def test_commands_and_suites_that_share_a_folder_leave_each_others_files(by):
    write(OURS | {"partial-main.md": "a part"}, by="report demo", partial=True)
    refused("is of `distillbench report demo`", by=by, contents={"main.md": "another"})
    before = texts()
    write({"index.html": "a page"}, by=by)
    assert texts() == before | {"index.html": "a page"}


def test_complete_files_stay_beside_partial_ones_and_replace_them(out):
    before = texts()
    part = {"partial-main.md": "a part", "partial-paper/main.tex": "a part", "partial-paper/more/x.tex": "a part"}
    write()
    write(part, partial=True)
    assert texts() == before | OURS | part
    write({"partial-main.md": "more"}, partial=True)
    assert texts() == before | OURS | {"partial-main.md": "more"}
    write()
    assert texts() == before | OURS
    assert not (out / "partial-paper/more").exists()


def test_a_folder_of_ours_goes_with_its_last_file(out):
    write(OURS | {"gone/deep/x.tex": "x"})
    write()
    assert not (out / "gone").exists() and (out / "paper").is_dir()


RECORDS = {
    "absent": None,
    "empty": "",
    "cut": '{"schema": 1, "files": {"main.md"',
    "a list": "[]",
    "another version's": '{"schema": 2, "files": {}}',
    "of another program": '{"schema": 1, "files": {"main.md": 1}}',
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_without_a_record_nothing_is_overwritten(out, content):
    write()
    (out / RECORD).unlink()
    if content is not None:
        (out / RECORD).write_text(content)
    refused(RECORD if content is not None else "main.md: is not what", contents={"main.md": "another table"})


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_without_a_record_the_workflows_folder_is_renewed_and_nothing_deleted(out, content):
    write(workflow="out")
    (record,) = Path("results/written").iterdir()
    record.unlink()
    if content is not None:
        record.write_text(content)
    write({"main.md": "another table"}, workflow="out")
    assert texts()["main.md"] == "another table" and texts()["paper/main.tex"] == "a paper"


def test_a_record_cannot_name_a_file_outside_its_folder(out):
    write()
    put(".", {"precious.txt": "a table"})
    record = json.loads((out / RECORD).read_text())
    record["files"]["../precious.txt"] = record["files"]["main.md"]
    (out / RECORD).write_text(json.dumps(record))
    write()
    assert Path("precious.txt").exists()


def test_the_workflow_does_not_renew_through_a_link_to_elsewhere(out):
    put("thesis", {"main.tex": "mine"})
    shutil.rmtree(out / "paper")
    (out / "paper").symlink_to("../thesis")
    refused("main.tex: is not what", workflow="out")


def test_a_command_that_fails_changes_nothing(out):
    write()
    before = files(".")
    with pytest.raises(ZeroDivisionError), output("out", "report demo", "reports/demo") as stage:
        put(stage, {"main.md": "half"})
        raise ZeroDivisionError
    assert files(".") == before


def test_what_was_written_before_a_failure_is_known_as_ours(out, monkeypatch):
    from distillbench import output as module

    def full(path, content):
        if path.name == "main.tex":
            raise OSError("no space")
        write_atomically(path, content)

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError):
        write()
    monkeypatch.undo()
    monkeypatch.chdir(out.parent)
    write({"main.md": "another table"})
    assert texts()["main.md"] == "another table"


# The commands


@pytest.fixture
def project(tmp_path):
    new_project(tmp_path)
    finish_all(tmp_path)
    for path in tmp_path.glob("results/runs/**/history.csv"):
        path.write_text("epoch,lr,test_top1,test_loss_ce\n1,0.1,50,0.5\n2,0.1,60,0.4\n")
    return tmp_path


def one_line(capsys, *parts):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and all(part in lines[0] for part in parts), lines


def collected():
    assert main(["collect", "small", "--out", "results/suites/small"]) == 0


def test_reports_go_where_somebody_writes_and_touch_nothing(project, out, capsys):
    collected()
    before = texts()
    for command in ("tables", "figures", "report"):
        assert main([command, "small", "--out", "out", "--partial"]) == 0
    for command in ("tables", "figures", "report"):
        assert main([command, "small", "--out", "out"]) == 0
    after = texts_and_bytes(out)
    assert {name: after[name].decode() for name in before} == before
    assert {"main.md", "details.csv", "accuracy.pdf", "index.html", "paper/main.tex"} <= after.keys()
    assert {name for name in after if name.startswith("partial")} == {"partial-mine.md", "partial-paper/mine.tex"}
    (out / "paper/main.tex").write_text("my paper")
    assert main(["report", "small", "--out", "out"]) == 2
    one_line(capsys, "out/paper/main.tex")
    assert (out / "paper/main.tex").read_text() == "my paper"


def texts_and_bytes(folder):
    return {name: content for name, content in files(folder).items() if name != RECORD}


def test_after_a_failed_attempt_the_complete_reports_replace_the_partial_ones(project):
    assert main(["report", "small", "--partial"]) == 0
    partial = {name for name in files("reports/small")}
    assert partial >= {
        "tables/partial-main.md",
        "figures/partial-accuracy.png",
        "partial.html",
        "partial-paper/main.tex",
    }
    collected()
    for command, folder in (("tables", "reports/small/tables"), ("figures", None), ("report", None)):
        assert main([command, "small", *(["--out", folder] if folder else [])]) == 0
    complete = files("reports/small").keys()
    assert {name.replace("partial-", "").replace("partial.", "index.") for name in partial} == complete


def test_a_figure_that_the_rows_do_not_draw_is_not_shown(project):
    put("reports/small/figures", {"scale.png": "somebody's", "scale.pdf": "somebody's"})
    collected()
    for command in ("figures", "report"):
        assert main([command, "small"]) == 0
    assert Path("reports/small/figures/scale.pdf").read_text() == "somebody's"
    assert not Path("reports/small/paper/scale.pdf").exists()
    assert "figure-scale" not in Path("reports/small/index.html").read_text()


def test_tables_of_a_part_are_not_written_under_the_complete_name(project, capsys):
    collected()
    run = runs(project)["KD/s1"]
    edited = Path("params/small.yaml").read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2]")
    Path("params/small.yaml").write_text(edited)
    plan_suite("small")
    for command in ("tables", "figures", "report"):
        assert main([command, "small", "--out", "out/new"]) == 2
        one_line(capsys, "2 of 7 runs have no metrics yet", "--partial")
    shutil.rmtree(Store().run(run))
    assert main(["collect", "small", "--out", "out/new"]) == 2
    one_line(capsys, "3 of 7 runs have no metrics yet")
    assert not Path("out/new").exists()
    assert main(["tables", "small", "--out", "out/new", "--partial"]) == 0


def test_collect_overwrites_no_csv_of_others(project, out, capsys):
    put("out", {"costs.csv": "my own"})
    assert main(["collect", "small", "--out", "out"]) == 2
    one_line(capsys, "out/costs.csv")
    assert (out / "costs.csv").read_text() == "my own" and not (out / "metrics.csv").exists()


@pytest.mark.parametrize("content", ["precious", ""], ids=["text", "empty"])
@pytest.mark.parametrize("command", [["export", "small"], ["data", "digits"]], ids=lambda command: command[0])
def test_a_file_of_others_is_no_archive_and_no_dataset(project, capsys, command, content):
    Path("mine.tar").write_text(content)
    assert main([*command, "--out", "mine.tar"]) == 2
    one_line(capsys, "mine.tar")
    assert Path("mine.tar").read_text() == content


def test_an_archive_replaces_one_of_its_suite_and_no_other(project, capsys):
    for name in ("small", "other"):
        if name == "other":
            shutil.copy("params/small.yaml", "params/other.yaml")
        assert main(["export", name, "--out", f"{name}.tar.gz"]) == 0
        assert main(["export", name, "--predictions", "--out", f"{name}.tar.gz"]) == 0
    before = Path("other.tar.gz").read_bytes()
    assert main(["export", "small", "--out", "other.tar.gz"]) == 2
    assert Path("other.tar.gz").read_bytes() == before


def test_a_run_is_not_trained_over_another_or_over_files_of_others(project, capsys):
    one, other = runs(project)["NONE/s0"], runs(project)["NONE/s1"]
    shutil.copytree(Store().run(other), "out/run")
    put("out/mine", {"history.csv": "my history"})
    before = files("out")
    for folder in ("out/run", "out/mine"):
        assert main(["train", "--spec", f"results/specs/{one}.json", "--out", folder]) == 2
        one_line(capsys, folder, one)
    assert files("out") == before and not Path("out/run.work").exists()


@pytest.mark.parametrize("name", ["results/runs", "results/runs/digits", "results/data/new", "linked/x"])
def test_no_output_goes_between_runs_and_what_they_are_made_from(project, out, capsys, name):
    Path("linked").symlink_to("results/specs")
    assert main(["tables", "small", "--partial", "--out", name]) == 2
    one_line(capsys, name, "choose another --out")
    assert not list(Path("results").rglob("main.md"))


def test_a_link_to_nothing_is_no_folder(project, out, capsys):
    Path("link").symlink_to("nowhere")
    assert main(["tables", "small", "--partial", "--out", "link"]) == 2
    one_line(capsys, "link: is no folder", "choose another --out")


def test_nobody_is_told_to_remove_a_file_that_is_not_the_datasets(project, capsys):
    for path in ("params/small.yaml", "."):
        assert main(["data", "digits", "--out", path]) == 2
        one_line(capsys, path, "choose another --out")
