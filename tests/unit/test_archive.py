"""Archives: what is exported arrives unchanged elsewhere, and nothing that is damaged, foreign or other arrives."""

import errno
import fcntl
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import stores
from standins import ROOT

from distillbench.commands import main
from distillbench.files import read_json, to_json
from distillbench.store import Store, importing
from distillbench.store.layout import CHECKPOINTS

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished suite and its archive `all.tar`, not to be changed."""
    root = tmp_path_factory.mktemp("made")
    stores.new_project(root)
    stores.finish_all(root)
    exported(root, "--out", "all.tar")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: the same suite, no run."""
    stores.new_project(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def exported(root, *arguments):
    before = os.getcwd()
    os.chdir(root)
    try:
        assert main(["export", "small", *map(str, arguments)]) == 0
    finally:
        os.chdir(before)


def contents(path):
    """[(member, bytes)] of an archive."""
    with tarfile.open(path) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive]


def write(path, members):
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)


def signed(members):
    """The same members with a manifest that has their digests."""
    manifest = json.loads(members[0][1])
    manifest["files"] = {
        m.name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for m, content in members[1:]
    }
    return [(members[0][0], to_json(manifest).encode()), *members[1:]]


def edited(members, name, change):
    """With another content in the one file whose name ends so; `change` is a function of the JSON in it."""
    assert sum(m.name.endswith(name) for m, _ in members) == 1, name
    return [(m, to_json(change(json.loads(c))).encode() if m.name.endswith(name) else c) for m, c in members]


def renamed(members, old, new):
    """With another end of the first name that ends so."""
    member = next(m for m, _ in members if m.name.endswith(old))
    member.name = member.name.removesuffix(old) + f"/{new}"
    return members


def without(members, name):
    return [(m, content) for m, content in members if m.name != name]


def first(members, name):
    """The name of the first member that ends so."""
    return next(m.name for m, _ in members if m.name.endswith(name))


def retyped(members, kind):
    """With the first run's history.csv as a link to a file outside, a device or the like."""
    member = next(m for m, _ in members if m.name.endswith("history.csv"))
    member.type, member.linkname, member.size = kind, "/etc/passwd", 0
    return members


def refused(capsys, path, *says):
    """Import fails in one line with code 2 and leaves the folder as it was, without a temporary one."""
    before = stores.files(".")
    assert main(["import", str(path)]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and str(path) in output.err, output.err
    assert ".import." not in output.err
    assert all(text in output.err for text in says), output.err
    assert stores.files(".") == before and not Path("results/runs").exists()
    assert not list(Path("results").glob(".import*"))


# There and back


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tgz"])
def test_what_is_exported_arrives_unchanged(made, here, tmp_path, capsys, name):
    exported(made, "--out", tmp_path / name)
    assert "5 of 5 runs" in capsys.readouterr().out
    assert main(["import", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.count("imported ") == 5
    assert stores.files(here / "results/runs") == stores.files(made / "results/runs")
    assert not list(Path("results").glob(".import*"))
    assert {Store().state(run) for run in Store().ids()} == {("done", "")}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_the_bytes_of_an_archive_depend_on_its_content_alone(made, here, tmp_path, name):
    exported(made, "--out", tmp_path / name)
    assert main(["import", str(made / "all.tar")]) == 0
    for path in here.rglob("*"):
        os.utime(path, (10**9, 10**9))
        if path.is_file():
            path.chmod(0o600)
    (tmp_path / "other").mkdir()
    exported(here, "--out", tmp_path / "other" / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    stores.finish(Store(), stores.runs(here)["KD/s1"], weight=2.0)
    exported(here, "--out", tmp_path / "other" / name)
    assert (tmp_path / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_the_manifest_names_every_file_and_every_run_with_digests(made):
    (first, text), *rest = contents(made / "all.tar")
    manifest = json.loads(text)
    assert first.name == MANIFEST
    assert manifest["schema"] == 1 and manifest["suite"] == "small" and manifest["distillbench"]
    assert {m.name: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for m, c in rest} == manifest["files"]
    store = Store(made)
    for run, entry in manifest["runs"].items():
        assert entry["specification"] == store.specification(run).digest
        assert entry["weights"] == read_json(store.run(run) / "record.json")["weights"]
    assert manifest["runs"].keys() == set(store.ids())
    assert "params/small.yaml" in manifest["files"]


def test_an_import_twice_says_already_here_and_changes_nothing(made, here, capsys):
    assert main(["import", str(made / "all.tar")]) == 0
    before = stores.files(here)
    capsys.readouterr()
    assert main(["import", str(made / "all.tar")]) == 0
    assert capsys.readouterr().out.count("already here ") == 5
    assert stores.files(here) == before


def test_predictions_come_without_weights_and_weights_come_later(made, here, tmp_path, capsys):
    exported(made, "--predictions", "--out", tmp_path / "p.tar")
    assert not [m.name for m, _ in contents(tmp_path / "p.tar") if m.name.endswith(".pt")]
    assert main(["import", str(tmp_path / "p.tar")]) == 0
    capsys.readouterr()
    assert main(["import", str(made / "all.tar")]) == 0
    assert capsys.readouterr().out.count("completed ") == 5
    assert stores.files(here / "results/runs") == stores.files(made / "results/runs")


@pytest.mark.parametrize("options", [[], ["--predictions"]])
def test_an_export_says_how_large_predictions_are_before_it_packs_them(made, tmp_path, capsys, options):
    exported(made, *options, "--out", tmp_path / "some.tar")
    line = capsys.readouterr().out.splitlines()[0]
    packed = {m.name: len(content) for m, content in contents(tmp_path / "some.tar") if m.name != MANIFEST}
    kinds = {"predictions": "predictions.npz", "weights": ".pt"} if not options else {"predictions": "predictions.npz"}
    sizes = {kind: sum(n for name, n in packed.items() if name.endswith(end)) for kind, end in kinds.items()}
    sizes["the rest"] = sum(packed.values()) - sum(sizes.values())
    assert line == "packing 5 runs: " + ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in sizes.items())
    assert sizes["predictions"] > 50_000  # so that the line shows what is counted


def test_a_run_of_which_only_the_metrics_are_here_is_completed(made, here, capsys):
    stores.finish_all(here)
    for path in list(Path("results/runs").rglob("*")):
        if path.is_file() and path.name != "metrics.json":
            path.unlink()
    assert main(["import", str(made / "all.tar")]) == 0
    assert capsys.readouterr().out.count("completed ") == 5
    assert stores.files(here / "results/runs") == stores.files(made / "results/runs")


def test_only_exports_a_part_with_its_teacher_and_unfinished_runs_are_named(made, here, tmp_path, capsys):
    exported(made, "--only", "KD/*/s1", "--out", tmp_path / "part.tar")
    assert main(["import", str(tmp_path / "part.tar")]) == 0
    known = stores.runs(here)
    assert set(Store().ids()) == {known["Teacher/s0"], known["KD/s1"]}
    (Store().run(known["KD/s1"]) / "record.json").unlink()
    (Store().run(known["Teacher/s0"]) / "model.last.pt").unlink()
    capsys.readouterr()
    assert main(["export", "small", "--out", "rest.tar"]) == 0
    output = capsys.readouterr().out
    assert f"{known['KD/s1']}: left out, has no record.json" in output
    assert f"{known['KD/s0']}: left out, not there" in output
    assert f"{known['Teacher/s0']}: without weights" in output
    assert "1 of 5 runs" in output


def test_export_of_nothing_or_to_another_kind_of_file_is_one_line(here, made, capsys):
    assert main(["export", "small", "--out", "all.tar"]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert main(["export", "small", "--out", "params/small.yaml"]) == 2
    assert ".tar" in capsys.readouterr().err
    assert not Path("all.tar").exists() and Path("params/small.yaml").read_text() == stores.SUITE


def test_params_are_never_overwritten_and_a_difference_is_said(made, here, capsys):
    text = stores.SUITE + "# mine\n"
    Path("params/small.yaml").write_text(text)
    assert main(["import", str(made / "all.tar")]) == 0
    assert "note: params/small.yaml is another" in capsys.readouterr().out
    assert Path("params/small.yaml").read_text() == text


def test_what_a_suite_includes_is_in_its_archive_and_a_difference_in_it_is_said(made, tmp_path, monkeypatch, capsys):
    for name in ("there", "here"):
        shutil.copytree(made, tmp_path / name)
        (tmp_path / name / "params/common").mkdir()
        *head, rows = stores.SUITE.partition("methods:")
        (tmp_path / name / "params/small.yaml").write_text(f"include: common/rows.yaml\n{head[0]}")
        (tmp_path / name / "params/common/rows.yaml").write_text(f"methods:{rows}")
    exported(tmp_path / "there", "--out", "shared.tar")
    names = [member.name for member, _ in contents(tmp_path / "there/shared.tar")]
    assert [name for name in names if name.startswith("params/")] == ["params/common/rows.yaml", "params/small.yaml"]
    monkeypatch.chdir(tmp_path / "here")
    assert main(["import", "../there/shared.tar"]) == 0
    assert "params/" not in capsys.readouterr().out
    Path("params/common/rows.yaml").unlink()
    assert main(["import", "../there/shared.tar"]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert note.startswith(
        "note: params/common/rows.yaml is not here; `tar -xOf ../there/shared.tar params/common/rows"
    )


def test_export_and_import_import_no_torch(made, here):
    program = (
        "import sys; from distillbench.commands import main\n"
        f"code = main(['import', {str(made / 'all.tar')!r}]) or main(['export', 'small', '--out', 'again.tar'])\n"
        "sys.exit(code or ', '.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("again.tar").read_bytes() == (made / "all.tar").read_bytes()


def test_weights_are_never_unpickled(here, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    stores.finish_all(here)
    run = stores.runs(here)["Teacher/s0"]
    (Store().run(run) / "model.last.pt").write_bytes(pickle.dumps(Attack()))
    assert main(["export", "small", "--out", str(tmp_path / "a.tar")]) == 0
    os.rename("results", "old")
    assert main(["import", str(tmp_path / "a.tar")]) == 0
    assert main(["import", str(tmp_path / "a.tar")]) == 0
    assert not (tmp_path / "attacked").exists()


# Other realisations


def only_conflict(capsys, archive, run):
    """Import leaves one run alone, with both digests in its line and code 1; returns the line."""
    before = stores.files(Store().run(run))
    assert main(["import", str(archive)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("refused ")]
    assert len(lines) == 1 and run in lines[0] and "same id, different realisation" in lines[0], lines
    assert stores.files(Store().run(run)) == before
    assert len(Store().ids()) == 5
    return lines[0]


def test_other_weights_under_the_same_id_are_refused_and_the_rest_is_imported(made, here, capsys):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run, weight=2.0)
    line = only_conflict(capsys, made / "all.tar", run)
    for store in (Store(), Store(made)):
        assert read_json(store.run(run) / "record.json")["weights"]["last"][:12] in line


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_other_weights_of_one_checkpoint_are_another_realisation(made, here, capsys, checkpoint):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run)
    path = Store().run(run) / "record.json"
    record = read_json(path)
    path.write_text(to_json({**record, "weights": {**record["weights"], checkpoint: "0" * 64}}))
    assert f"{checkpoint} weights 000000000000 here" in only_conflict(capsys, made / "all.tar", run)


def test_an_import_that_is_stopped_leaves_no_record_of_files_that_are_missing(made, here, monkeypatch):
    """What is derived comes after what it is derived from, the record last."""
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run)
    for path in Store().run(run).rglob("*"):
        if path.name != "history.csv" and path.is_file():
            path.unlink()
    placed, move = [], importing.move

    def note(source, target):
        placed.append(Path(target))
        move(source, target)

    monkeypatch.setattr(importing, "move", note)
    assert main(["import", str(made / "all.tar")]) == 0
    names = [path.name for path in placed if path.is_relative_to(Store().run(run))]
    assert names[-1] == "record.json" and sorted(names[-3:-1]) == ["metrics.json"] * 2 and len(names) == 8
    assert Store().state(run) == ("done", "")


def test_a_run_is_completed_without_a_change_to_what_is_here_of_it(made, here):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run)
    (Store().run(run) / "history.csv").write_text("with another library, other digits\n")
    before = stores.files(Store().run(run))
    del before["model.last.pt"]
    (Store().run(run) / "model.last.pt").unlink()
    assert main(["import", str(made / "all.tar")]) == 0
    after = stores.files(Store().run(run))
    assert after.keys() - before.keys() == {"model.last.pt"} and after.items() > before.items()


@pytest.mark.parametrize("removed", ["model.last.pt", "model.*.pt"], ids=str)
def test_a_partial_run_of_other_weights_gets_no_file(made, here, capsys, removed):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run, weight=2.0)
    for path in Store().run(run).glob(removed):
        path.unlink()
    only_conflict(capsys, made / "all.tar", run)


@pytest.mark.parametrize("with_record", [True, False])
def test_other_predictions_under_the_same_id_are_refused(made, here, capsys, with_record):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run, correct=60)
    if not with_record:
        (Store().run(run) / "record.json").unlink()
        (Store().run(run) / "history.csv").unlink()
    line = only_conflict(capsys, made / "all.tar", run)
    for store in (Store(), Store(made)):
        path = store.evaluation(run, "best") / "predictions.npz"  # the first that is looked at
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in line


def test_other_metrics_under_the_same_id_are_refused(made, here, capsys):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run, correct=60)
    for checkpoint in CHECKPOINTS:
        (Store().evaluation(run, checkpoint) / "predictions.npz").unlink()
    assert "metrics.json" in only_conflict(capsys, made / "all.tar", run)


def test_a_metric_that_only_one_side_has_is_no_conflict(made, here, capsys):
    stores.finish_all(here)
    path = Store().evaluation(stores.runs(here)["KD/s0"], "last") / "metrics.json"
    content = read_json(path)
    content["metrics"].append({**content["metrics"][0], "metric": "new"})
    path.write_text(to_json(content))
    assert main(["import", str(made / "all.tar")]) == 0
    assert read_json(path) == content


def test_a_student_of_another_teachers_weights_is_reported(made, here, capsys):
    known = stores.runs(here)
    stores.finish(Store(), known["Teacher/s0"], weight=2.0)
    assert main(["import", str(made / "all.tar")]) == 1
    output = capsys.readouterr().out
    assert output.count("refused ") == 1 and output.count("imported ") == 4
    for student in ("KD/s0", "KD/s1"):
        assert f"warning: {known[student]}: same id, different realisation: its teacher had weights" in output


def test_a_student_that_was_here_is_reported_when_another_realisation_of_its_teacher_arrives(made, here, capsys):
    known, store = stores.runs(here), Store()
    stores.finish(store, known["Teacher/s0"], weight=2.0)
    stores.finish(store, known["KD/s0"])
    for path in sorted(store.run(known["Teacher/s0"]).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    exported(made, "--only", "Teacher", "--out", here / "teacher.tar")
    assert main(["import", "teacher.tar"]) == 1
    assert f"warning: {known['KD/s0']}: same id" in capsys.readouterr().out


def test_a_run_that_is_being_trained_is_left_alone(made, here, capsys):
    run = stores.runs(here)["NONE/s1"]
    Store().work(run).mkdir(parents=True)
    with open(Store().work(run) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["import", str(made / "all.tar")]) == 1
    assert f"refused      {run}: is being worked on here" in capsys.readouterr().out
    assert not Store().run(run).exists() and len(Store().ids()) == 4


def test_weights_that_arrive_while_the_archive_is_read_are_compared_too(made, here, capsys, monkeypatch):
    """Another process finishes the run before it can be claimed."""
    run = stores.runs(here)["NONE/s1"]

    @contextmanager
    def later(work, **options):
        if work == Store().work(run):
            stores.finish(Store(), run, weight=2.0)
        yield

    monkeypatch.setattr(importing, "claim", later)
    assert main(["import", str(made / "all.tar")]) == 1
    output = capsys.readouterr().out
    assert f"refused      {run}: same id, different realisation" in output and output.count("imported ") == 4


def test_an_edited_specification_here_stops_the_import(made, here, capsys):
    run = stores.runs(here)["NONE/s1"]
    stores.finish(Store(), run)
    path = Store().run(run) / "spec.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 5'))
    before = stores.files(here)
    assert main(["import", str(made / "all.tar")]) == 2
    assert "it was edited" in capsys.readouterr().err
    assert stores.files(here) == before


def test_partly_pulled_runs_of_other_suites_disturb_no_import(made, here):
    run = Store().run("digits/resnet8/none/s0-0123456789ab")
    whole = stores.runs(made)["NONE/s0"]
    folder = run / Store(made).evaluation(whole, "last").relative_to(Store(made).run(whole))
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    assert main(["import", str(made / "all.tar")]) == 0


# Damaged, truncated, hostile


@pytest.mark.parametrize("kept", [0, 1, 600, 40_000])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_truncated_archive_is_refused(made, here, tmp_path, capsys, ending, kept):
    path = tmp_path / f"cut.{ending}"
    exported(made, "--out", path)
    content = path.read_bytes()
    path.write_bytes(content[: min(kept, len(content) - 300)])
    capsys.readouterr()
    refused(capsys, path)


def test_an_archive_that_ends_between_two_files_is_refused(made, here, tmp_path, capsys):
    write(tmp_path / "cut.tar", contents(made / "all.tar")[:-1])
    refused(capsys, tmp_path / "cut.tar", "truncated", "1 files are missing")


@pytest.mark.parametrize("content", [b"text\n", b"\x1f\x8bnot gzip", b"PK\x03\x04", bytes(10_240)], ids=repr)
def test_a_file_that_is_no_archive_is_refused(here, tmp_path, capsys, content):
    (tmp_path / "no.tar").write_bytes(content)
    refused(capsys, tmp_path / "no.tar")


def test_no_file_and_a_folder_are_refused(here, tmp_path, capsys):
    refused(capsys, tmp_path / "absent.tar", "No such file")
    refused(capsys, tmp_path, "directory")


def test_every_flipped_byte_is_noticed(made, here, tmp_path, capsys):
    for member, _ in contents(made / "all.tar")[::7]:
        damaged = bytearray((made / "all.tar").read_bytes())
        damaged[member.offset_data + member.size // 2] ^= 1
        (tmp_path / "flipped.tar").write_bytes(damaged)
        refused(capsys, tmp_path / "flipped.tar")


def plain(name):
    return tarfile.TarInfo(name), b"content"


UNKNOWN, FOREIGN, SPECIAL = "is not in its manifest or stands twice", "is not a run file", "is not a plain file"
HOSTILE = {
    "another file of a run": (lambda m: signed([*m, plain(first(m, "history.csv") + ".sh")]), FOREIGN),
    "a file above the folder": (lambda m: signed([*m, plain("../evil")]), FOREIGN),
    "a file above params": (lambda m: signed([*m, plain("params/../evil.yaml")]), FOREIGN),
    "no params file": (lambda m: signed([*m, plain("params/common/evil.txt")]), FOREIGN),
    "a hidden params file": (lambda m: signed([*m, plain("params/common/.yaml")]), FOREIGN),
    "a file above its run": (lambda m: signed(renamed(m, "/history.csv", "../../../evil")), FOREIGN),
    "an absolute path": (lambda m: signed([*m, plain("/tmp/evil")]), FOREIGN),
    "a run without a record": (lambda m: signed(without(m, first(m, "/record.json"))), "record.json' is missing"),
    "a run without metrics": (lambda m: signed(without(m, first(m, "/metrics.json"))), "metrics.json: is missing"),
    "a run without predictions": (lambda m: signed(without(m, first(m, ".npz"))), "predictions.npz: is missing"),
    "a run id that goes up": (
        lambda m: signed(edited(m, MANIFEST, lambda c: c | {"runs": {"../../../evil": {}}})),
        "not a run id",
    ),
    "a run id that is none": (
        lambda m: signed(edited(m, MANIFEST, lambda c: c | {"runs": c["runs"] | {"x\n": {}}})),
        "not a run id",
    ),
    "a suite that goes up": (
        lambda m: signed(edited(m, MANIFEST, lambda c: c | {"suite": "../small"})),
        "not a suite's name",
    ),
    "a file that the manifest has not": (lambda m: [*m, plain("runs/evil")], UNKNOWN),
    "a path up that the manifest has not": (lambda m: [*m, plain("../evil")], UNKNOWN),
    "a file twice": (lambda m: [*m, m[-1]], UNKNOWN),
    "the manifest twice": (lambda m: [*m, m[0]], UNKNOWN),
    "the manifest last": (lambda m: [*m[1:], m[0]], "does not begin with manifest.json"),
    "a symbolic link": (lambda m: retyped(m, tarfile.SYMTYPE), SPECIAL),
    "a hard link": (lambda m: retyped(m, tarfile.LNKTYPE), SPECIAL),
    "a character device": (lambda m: retyped(m, tarfile.CHRTYPE), SPECIAL),
    "a pipe": (lambda m: retyped(m, tarfile.FIFOTYPE), SPECIAL),
    "a folder": (lambda m: retyped(m, tarfile.DIRTYPE), SPECIAL),
    "a newer schema": (lambda m: edited(m, MANIFEST, lambda c: c | {"schema": 2}), "update distillbench"),
    "a manifest without runs": (lambda m: edited(m, MANIFEST, lambda c: {"schema": 1, "suite": "small"}), "damaged"),
    "a manifest that is a list": (lambda m: edited(m, MANIFEST, lambda c: [c]), "damaged"),
    "a manifest too deep": (lambda m: [(m[0][0], b"[" * 100_000), *m[1:]], "damaged"),
    "a manifest that is no JSON": (lambda m: [(m[0][0], b"\xff{"), *m[1:]], "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_refused(made, here, tmp_path, capsys, case):
    change, says = HOSTILE[case]
    write(tmp_path / "hostile.tar", change(contents(made / "all.tar")))
    refused(capsys, tmp_path / "hostile.tar", says)
    assert not list(tmp_path.rglob("evil*"))


def swapped_specifications(members):
    names = [m.name for m, _ in members if m.name.endswith("/spec.json")][:2]
    texts = {m.name: content for m, content in members if m.name in names}
    return [(m, texts[names[1 - names.index(m.name)]] if m.name in names else c) for m, c in members]


INCONSISTENT = {
    "an edited specification": lambda m: edited(
        m, first(m, "/spec.json"), lambda c: c | {"specification": c["specification"] | {"seed": 7}}
    ),
    "a specification that is none": lambda m: edited(m, first(m, "/spec.json"), lambda c: {"specification": 3}),
    "a specification of no schema": lambda m: edited(m, first(m, "/spec.json"), lambda c: c | {"specification": {}}),
    "a record of other weights": lambda m: edited(
        m, first(m, "/record.json"), lambda c: c | {"weights": dict.fromkeys(CHECKPOINTS, "0" * 64)}
    ),
    "a record of another run": lambda m: edited(m, first(m, "/record.json"), lambda c: c | {"run": "other"}),
    "a record without weights": lambda m: edited(m, first(m, "/record.json"), lambda c: {"run": c["run"]}),
    "metrics of another run": lambda m: edited(m, first(m, "/metrics.json"), lambda c: c | {"run_sha256": "0" * 64}),
    "metrics that are none": lambda m: edited(m, first(m, "/metrics.json"), lambda c: c | {"metrics": [3]}),
}


def test_a_specification_is_compared_with_its_id_and_with_the_whole_digest(made, here, tmp_path, capsys):
    members = contents(made / "all.tar")
    write(tmp_path / "odd.tar", signed(swapped_specifications(members)))
    refused(capsys, tmp_path / "odd.tar", "/spec.json: is the specification of ")
    run = next(iter(json.loads(members[0][1])["runs"]))
    other = {"specification": Store(made).specification(run).digest[:12] + "0" * 52}
    runs = edited(members, MANIFEST, lambda c: c | {"runs": c["runs"] | {run: c["runs"][run] | other}})
    write(tmp_path / "odd.tar", runs)
    refused(capsys, tmp_path / "odd.tar", "/spec.json: is the specification of ")


@pytest.mark.parametrize("case", INCONSISTENT)
def test_archive_whose_files_do_not_belong_together_is_refused(made, here, tmp_path, capsys, case):
    """Every digest of a file is right in these."""
    write(tmp_path / "odd.tar", signed(INCONSISTENT[case](contents(made / "all.tar"))))
    refused(capsys, tmp_path / "odd.tar")


def test_an_archive_that_is_only_packed_anew_is_imported(made, here, tmp_path):
    """Otherwise the tests above could pass for a wrong reason."""
    write(tmp_path / "anew.tar", signed(contents(made / "all.tar")))
    assert main(["import", str(tmp_path / "anew.tar")]) == 0
    assert stores.files("results/runs") == stores.files(made / "results/runs")


def test_a_run_that_is_not_whole_is_left_out_of_an_archive(made, here, capsys):
    """Stale, or with files that are still on their way to their place."""
    stores.finish_all(here)
    store, ids = Store(), stores.runs(here)
    stale, moving = ids["NONE/s0"], ids["NONE/s1"]
    record = store.run(stale) / "record.json"
    record.write_text(record.read_text().replace(read_json(record)["weights"]["last"], "7" * 64))
    (store.work(moving) / "finished").mkdir(parents=True)
    assert main(["export", "small", "--out", "part.tar"]) == 0
    out = capsys.readouterr().out
    assert f"note: {stale}: left out, stale: " in out and f"note: {moving}: left out, stopped: " in out
    assert "3 of 5 runs" in out


def test_an_import_first_brings_what_a_killed_training_left(made, here):
    store, run = Store(), stores.runs(here)["NONE/s0"]
    stores.finish(store, run, weight=7.0)
    weights = read_json(store.run(run) / "record.json")["weights"]
    shutil.rmtree(store.run(run) / "eval")
    store.work(run).mkdir(parents=True)
    store.run(run).rename(store.work(run) / "finished")
    assert main(["import", str(made / "all.tar")]) == 1, "it is here, with other weights"
    assert read_json(store.run(run) / "record.json")["weights"] == weights and not store.work(run).exists()


def test_an_import_crosses_to_another_disk(made, here, monkeypatch):
    rename = os.rename

    def other_disk(source, target):
        if "results/runs" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(source, target)

    monkeypatch.setattr(os, "rename", other_disk)
    assert main(["import", str(made / "all.tar")]) == 0
    assert {Store().state(run) for run in stores.runs(here).values()} == {("done", "")}
