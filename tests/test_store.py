"""What a store says of runs that are not there."""

import copy

import pytest
from stores import SUITE, new_project

from distillbench import store as module
from distillbench.config.specification import Specification, read_specification
from distillbench.files import to_json, write_atomically
from distillbench.planning import plan_suite


@pytest.fixture
def older(tmp_path):
    """(store, {run: id of the run that another version of its trainer made}) of a suite of 13 runs, all missing."""
    store = new_project(tmp_path, SUITE.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]"))
    found = {}
    for run, specification in plan_suite("small", root=tmp_path).runs.items():
        data = copy.deepcopy(specification.data)
        data["trainer"]["version"] = 7
        found[run] = Specification(data).id
        write_atomically(store.run(found[run]) / "spec.json", to_json(Specification(data).as_file()))
    return store, found


def test_a_missing_run_names_the_one_that_other_code_made(older):
    store, found = older
    for run, before in found.items():
        assert store.state(run) == ("missing", f"code changed since {before.rpartition('/')[2]}")


def test_a_run_of_other_values_is_not_taken_for_one_of_other_code(older):
    store, found = older
    run, before = next(iter(found.items()))
    data = copy.deepcopy(store.specification(before).data)
    data["schedule"]["EPOCHS"] += 1
    (store.run(before) / "spec.json").unlink()
    write_atomically(store.run(Specification(data).id) / "spec.json", to_json(Specification(data).as_file()))
    assert store.state(run) == ("missing", "")


def test_the_finished_runs_are_read_once_however_many_are_missing(older, monkeypatch):
    store, found = older
    read = []
    monkeypatch.setattr(module, "read_specification", lambda path: read.append(path) or read_specification(path))
    for run in found:
        store.state(run)
    finished = [path for path in read if store.runs in path.parents]
    assert len(found) == 13 and sorted(finished) == sorted(store.run(before) / "spec.json" for before in found.values())
