"""Tables of logits as planning, status and gc see them: which are made, which are what they should be."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import stores
import torch
from standins import OWN

from distillbench.commands import main
from distillbench.config import components, own_files
from distillbench.config.suite import load_suite
from distillbench.config.views import view_count, view_order
from distillbench.data import digits
from distillbench.data.augment import CropFlip
from distillbench.errors import UserError
from distillbench.files import to_json, write_atomically
from distillbench.planning.tables import (
    JOB,
    Planned,
    decided,
    epochs_of,
    plan_tables,
    read_planned,
    require_mode,
    write_planned,
)
from distillbench.store import Store
from distillbench.store.claim import claim
from distillbench.store.layout import FAILURE, PROGRESS, STATE
from distillbench.store.tables import (
    Key,
    as_bytes,
    aside,
    header_of,
    key_of,
    problem_of,
    replaces_teacher,
    rows_done,
    size_of,
    table_path,
)

SUITE = """\
dataset: digits
seeds: [0, 1]
base: {SOLVER: {EPOCHS: 100, PRECISION: fp32}}
pairs: [{teacher: resnet20, student: resnet8}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
  KD: {DISTILLER.TYPE: KD, control: NONE}
  exact: {like: KD, SOLVER.PRECISION: fp64}
"""
SHAPE = (300, 81, 10)
SIZE = size_of(SHAPE)


# Views


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (1, False), (1, True), (4, True)])
def test_a_number_stands_for_one_view(padding, flip):
    augmentation, count = CropFlip(padding, flip), view_count({"crop_padding": padding, "flip": flip})
    numbers = torch.arange(count)
    draws = augmentation.draws_of(numbers)
    assert torch.equal(augmentation.numbers(draws), numbers)
    positions = range(2 * padding + 1)
    every = set(itertools.product(positions, positions, (False, True) if flip else (False,)))
    assert set(zip(*(draws[name].tolist() for name in ("row", "column", "flip")))) == every and len(every) == count
    drawn = augmentation.draw(torch.Generator().manual_seed(0), 2, 50)
    again = augmentation.draws_of(augmentation.numbers(drawn))
    assert all(torch.equal(again[name], drawn[name]) and again[name].dtype == drawn[name].dtype for name in drawn)


def test_views_are_counted_where_they_are_finitely_many():
    counts = {name: view_count(d["augmentation"]) for name, d in components.datasets().items()}
    crops = {"digits": 81, "cifar10": 162, "cifar100": 162}
    assert counts == {**crops, "tiny_imagenet": None, "imagenet": None}
    assert components.datasets()["digits"]["num_train"] == len(digits.arrays()[0])
    unnamed, named = ({**kind, "crop_padding": 4, "flip": False} for kind in ({}, {"kind": "crop_flip"}))
    assert view_order(unnamed) == view_order(named) != view_order({**named, "flip": True})


# Files


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A store whose teacher is finished, and its suite; the working directory."""
    monkeypatch.chdir(tmp_path)
    store = stores.new_project(tmp_path, SUITE)
    stores.finish(store, named("Teacher"))
    return Store(planned=suite().runs)


def suite():
    return load_suite("small")


def named(row, seed=0):
    return next(run for name, run in stores.runs(".").items() if name == f"{row}/s{seed}")


def meant(store):
    """(path, header) of the table of the suite's teacher."""
    specification, teacher = suite().runs[named("KD")], named("Teacher")
    key = Key(teacher, "last")
    assert key_of(specification) == key
    return table_path(store.results, key), header_of(specification, key, store.record(teacher)["weights"]["last"])


def lay(path, header, size=SIZE):
    """A table's file of zeros."""
    write_atomically(path, as_bytes(header))
    with open(path, "r+b") as file:
        file.truncate(size)


def test_what_is_in_the_way_of_a_table_is_told_from_it(project):
    path, header = meant(project)
    assert problem_of(path, header) == "is not there" and header["shape"] == list(SHAPE)
    whole = {**header, "content": "0" * 64}
    lay(path, whole)
    assert problem_of(path, header) == ""
    for size in (-4, 4):
        lay(path, whole, SIZE + size)
        assert problem_of(path, header) == "is not whole"
    lay(path, header)
    assert problem_of(path, header) == "is not whole", "it is still being made"
    for name, value in {"teacher": {}, "dataset": {}, "views": {}, "shape": [81, 300, 10], "dtype": "<f2"}.items():
        lay(path, {**whole, name: value})
        assert problem_of(path, header) == f"was made with another {name}"
    lay(path, {"content": ""})
    assert problem_of(path, header) == f"was made with another {' and '.join(sorted(header))}"
    for content in (b"", b"[]", b"\xff" * 5000):
        path.write_bytes(content)
        assert problem_of(path, header) == "is not a logit table"


def test_a_header_names_weights_images_and_views(project):
    specification, key = suite().runs[named("KD")], Key(named("Teacher"), "last")
    others = [header_of(specification, key, "1"), header_of(specification, key._replace(checkpoint="best"), "0")]
    changed = {**specification.data, "dataset": {**specification["dataset"], "sha256": "0"}}
    others.append(header_of(type(specification)(changed), key, "0"))
    changed = {**specification.data, "views": {"count": 1, "augmentation": {"crop_padding": 3, "flip": False}}}
    others.append(header_of(type(specification)(changed), key, "0"))
    one = header_of(specification, key, "0")
    assert json.loads(as_bytes(one)) == one and all(other != one for other in others)


def test_a_table_serves_what_needs_nothing_but_logits(project):
    runs = {name: suite().runs[run] for name, run in stores.runs(".").items()}
    assert {name for name, run in runs.items() if replaces_teacher(run)} == {"KD/s0", "KD/s1"}
    kd = runs["KD/s0"]
    rotated = {**kd.data, "views": {**kd["views"], "augmentation": {"kind": "rotation_flip", "flip": True}}}
    assert not replaces_teacher(type(kd)(rotated))
    assert not replaces_teacher(type(kd)({**kd.data, "method": {"name": "of my own"}})), "whose file is not in use"
    mixed = {**kd.data, "views": {**kd["views"], "mixup": 0.2}}
    assert not replaces_teacher(type(kd)(mixed)), "of mixtures there is no end"
    own_files.use([OWN])
    assert not replaces_teacher(type(kd)({**kd.data, "method": {"name": "FeaturesAndModules"}}))
    own_files.use([])


# The decision


def table(epochs=0, begun=False, problem="is not there"):
    return Planned(Key("a", "last"), epochs, SHAPE, begun, problem)


def uses(mode="auto", free=10**9, **facts):
    return decided(table(**facts), mode, free).used


def test_a_table_is_made_if_it_saves_more_than_it_costs():
    enough = 81 + JOB // 300 + 1
    assert not uses(epochs=enough - 1) and uses(epochs=enough)
    assert uses(epochs=enough, free=SIZE) and not uses(epochs=enough, free=SIZE - 1)
    assert uses(problem="") and uses(problem="", free=0), "one that is there is used"
    assert uses("always", free=0) and not uses("never", epochs=10**6) and not uses("never", problem="")
    assert all(uses(mode, begun=True) for mode in ("auto", "always", "never")), "a run in flight keeps its source"
    assert "1.0 MB" not in decided(table(enough), "auto", 10**6).why and decided(table(enough), "auto", 0).why[0] == "0"
    require_mode("always")
    with pytest.raises(UserError, match="table=allways: unknown mode 'allways'; did you mean always"):
        require_mode("allways")


def in_flight(store, run, source):
    write_atomically(store.work(run) / STATE, "a state")
    write_atomically(store.work(run) / PROGRESS, to_json({"epoch": 1, **source}))


def test_what_unfinished_runs_ask_of_a_teacher_is_added_up(project):
    key = Key(named("Teacher"), "last")

    def planned(mode="auto"):
        return plan_tables(suite(), Store(planned=suite().runs), mode)

    kd = suite().runs[named("KD")]
    assert epochs_of(kd) == 100
    assert epochs_of(type(kd)({**kd.data, "views": {**kd["views"], "count": 2}})) == 200
    found = planned()
    assert found.keys() == {key} and found[key].epochs == 200
    assert (found[key].used, found[key].begun, found[key].problem) == (True, False, "is not there")
    in_flight(project, named("KD", 1), {"teacher_source": "live"})
    assert planned()[key].epochs == 100
    in_flight(project, named("KD", 1), {})
    assert planned()[key].epochs == 100, "of a version without tables"
    in_flight(project, named("KD", 1), {"teacher_source": "table"})
    assert planned()[key].epochs == 200 and planned("never")[key].used
    (project.work(named("KD", 1)) / STATE).unlink()
    assert not planned("never")[key].used, "it has saved nothing yet"
    shutil.rmtree(project.work(named("KD", 1)))
    stores.finish(project, named("KD", 1))
    assert planned()[key].epochs == 100
    path, header = meant(project)
    lay(path, {**header, "content": "0" * 64})
    assert planned()[key].problem == "" and planned()[key].why == "it is there"
    stores.finish(project, named("KD"))
    assert planned() == {}


def test_disk_that_one_table_takes_is_not_there_for_the_next(project, monkeypatch):
    Path("params/small.yaml").write_text(SUITE.replace("seeds: [0, 1]", "seeds: [0, 1]\nteacher_seed: matched"))
    room = SIZE
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, room * 2 - 1))
    Path("params/small.yaml").write_text(Path("params/small.yaml").read_text().replace("EPOCHS: 100", "EPOCHS: 200"))
    found = plan_tables(suite(), Store(planned=suite().runs))
    assert [t.used for t in found.values()] == [True, False]


def test_the_disk_that_counts_is_that_of_the_tables(project, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (project.results / "tables").symlink_to(tmp_path / "elsewhere")
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(0, 0, 0))
    assert not any(table.used for table in plan_tables(suite(), Store(planned=suite().runs)).values())
    assert {path.resolve() for path in asked} == {tmp_path / "elsewhere"}


def test_a_decision_is_read_as_it_was_written_down(project):
    found = plan_tables(suite(), project)
    assert read_planned("small", project.results) == {}
    write_planned(found, "small", project.results)
    again = read_planned("small", project.results)
    assert again.keys() == found.keys()
    assert all(list(again[key][1:]) == json.loads(json.dumps(found[key][1:])) for key in found)
    (project.results / "tables/small.json").write_text("{}")
    with pytest.raises(UserError, match=r"tables/small\.json: not what was planned"):
        read_planned("small", project.results)


# What people see


def test_plan_says_which_tables_are_made(project, capsys):
    def lines(*options):
        capsys.readouterr()
        assert main(["plan", "small", *options]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("table")]

    teacher = named("Teacher")
    cost = "students ask for 60000 passes of the teacher, the table costs 44300"
    first, second = lines()
    assert first == f"table    {teacher} (last) to make, 1.0 MB: {cost}" and second.startswith("tables take 1.0 MB, ")
    assert lines("--table", "never") == [f"table    {teacher} (last) not made, 1.0 MB: table=never"]
    path, header = meant(project)
    lay(path, {**header, "content": "0" * 64})
    assert lines() == [f"table    {teacher} (last) used, 1.0 MB: it is there"]
    lay(path, {**header, "content": "0" * 64}, 5000)
    assert "to make" in lines()[0]
    assert main(["plan", "small"]) == 0
    assert f"{path}: is not whole; it is made again" in capsys.readouterr().out.splitlines()
    assert not Path("results/tables/small.json").exists()


def test_status_says_how_tables_stand(project, capsys):
    def line():
        capsys.readouterr()
        assert main(["status", "small"]) == 0
        found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  table")]
        return found[0].removeprefix(f"  table    {named('Teacher')} (last) ") if found else None

    path, header = meant(project)
    assert line() is None
    write_planned(plan_tables(suite(), project), "small", project.results)
    assert line().startswith("missing: students ask for")
    lay(aside(path), {**header, "rows": 128})
    assert rows_done(path, header) == 128
    assert line() == "stopped: 128 of 24300 views"
    with claim(project.work(named("Teacher"))):
        assert line() == "being made: 128 of 24300 views"
    aside(path).unlink()
    write_atomically(project.work(named("Teacher")) / FAILURE, to_json({"reason": "the disk is full"}))
    assert line() == "failed: the disk is full"
    lay(path, {**header, "content": "0" * 64})
    assert line() == "here: 1.0 MB"
    stores.finish(project, named("Teacher"), weight=2.0)
    assert line() == "stale: was made with another teacher"


def test_a_damaged_teacher_stops_no_list(project, capsys):
    (project.run(named("Teacher")) / "record.json").write_text("{")
    for command in ("plan", "status"):
        assert main([command, "small"]) == 2
    assert "to make" in capsys.readouterr().out


def test_gc_removes_tables_of_teachers_that_belong_to_nothing(project, capsys):
    teacher = named("Teacher")
    path, header = meant(project)
    lay(path, {**header, "content": "0" * 64})
    shutil.copytree(Path(__file__).parents[2] / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    assert main(["gc"]) == 0
    assert "(table" not in (out := capsys.readouterr().out) and teacher not in out
    Path("params/small.yaml").write_text(SUITE.replace("resnet20", "wrn_16_2"))
    with claim(project.work(teacher)):
        main(["gc"])
        assert teacher not in capsys.readouterr().out, "a table of it is being made, for all that is known"
    assert main(["gc", "--delete", "--yes"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if f"  {teacher}  " in line)
    assert line.endswith("(run, spec, table)") and float(line.split()[0]) >= 1.0
    assert not path.exists() and not path.parent.exists()
