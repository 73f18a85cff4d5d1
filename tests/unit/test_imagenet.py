"""ImageNet's folder: found, checked, listed in the prepared file, staged; every fault is one line with the file."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from published import WNIDS, publish_imagenet, write_imagenet

from distillbench import data
from distillbench.commands import main
from distillbench.config import components
from distillbench.config.implemented import require_file
from distillbench.config.specification import Specification
from distillbench.data import imagenet
from distillbench.data.copies import VARIABLE
from distillbench.data.jpeg import decode
from distillbench.data.stage import staged
from distillbench.errors import UserError
from distillbench.files import read_json
from distillbench.planning import plan_suite

FLAT = ("ILSVRC2012_validation_ground_truth.txt", "imagenet_2012_validation_synset_labels.txt")
FLAT += ("LOC_val_solution.csv", "val.txt")
VAL = "ILSVRC2012_val_00000002"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty project, and `sets` for copies; what is declared is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "sets")
    Path("sets").mkdir()
    components.datasets.cache_clear()
    yield tmp_path
    components.datasets.cache_clear()


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not data.data_path("imagenet").exists()
    return line


def load(name="imagenet"):
    return data.load(name, data.data_path(name))


def test_the_list_is_that_of_an_image_folder_and_goes_into_records(here, monkeypatch, capsys):
    publish_imagenet("sets/imagenet", monkeypatch)
    assert main(["data", "imagenet"]) == 0
    assert "verified: classes, counts, labels of val, 18 files decoded" in capsys.readouterr().out
    files = load()
    names = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in sorted(WNIDS) for number in range(4)]
    assert [name.decode() for name in files.train_files] == names
    assert files.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and files.test_labels.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert files.train_sizes.tolist() == [Path("sets/imagenet", name).stat().st_size for name in names]
    assert files.training.read(3) == Path("sets/imagenet", names[3]).read_bytes()
    manifest = {"classes_sha256": components.datasets()["imagenet"]["classes_sha256"], "num_classes": 3, "version": 1}
    manifest |= {"num_train": 12, "num_test": 6, "folder": str(here / "sets/imagenet"), "file": "imagenet"}
    assert files.origin == {**manifest, "verified": files.source["verified"], "sha256": files.digest}


@pytest.mark.parametrize("labels", FLAT)
def test_a_flat_val_is_labelled_as_its_folders_would_be(here, monkeypatch, labels):
    """The devkit's numbers are not in the order of names, in which classes are numbered."""
    publish_imagenet("sets/imagenet", monkeypatch, labels=labels)
    assert main(["data", "imagenet"]) == 0
    files = load()
    expected = {f"val/ILSVRC2012_val_{n:08d}.JPEG": sorted(WNIDS).index(w) for n, w in enumerate(2 * WNIDS, start=1)}
    assert dict(zip((name.decode() for name in files.test_files), files.test_labels.tolist(), strict=True)) == expected
    publish_imagenet("folders/imagenet", monkeypatch)
    assert main(["data", "imagenet", "--from", "folders"]) == 0
    folders = load()
    assert (folders.digest, folders.test_labels.tolist()) == (files.digest, files.test_labels.tolist())
    assert [folders.test.read(n) for n in range(6)] == [files.test.read(n) for n in range(6)]


def test_the_digest_of_classes_is_over_the_sorted_names_a_line_each():
    names = ["n02", "n01"]
    assert imagenet.classes_digest(names) == hashlib.sha256(b"n01\nn02\n").hexdigest()


def test_it_is_never_downloaded(here, capsys):
    says = refused(capsys, "data", "imagenet")
    assert (
        "imagenet: is not here; put it into a folder imagenet in one that DISTILLBENCH_DATA names or in data/" in says
    )


def test_a_folder_is_named_with_from_or_the_one_within(here, monkeypatch, capsys):
    publish_imagenet("elsewhere/imagenet", monkeypatch)
    assert main(["data", "imagenet", "--from", "elsewhere"]) == 0
    assert load().folder == str(here / "elsewhere/imagenet")
    Path("elsewhere/imagenet").rename("elsewhere/moved")
    with pytest.raises(
        UserError, match=r"elsewhere/imagenet: no such folder, and .*imagenet.npz lists its files; where"
    ):
        load()
    digest = hashlib.sha256(data.data_path("imagenet").read_bytes()).hexdigest()
    assert main(["data", "imagenet", "--from", "elsewhere/moved"]) == 0
    assert hashlib.sha256(data.data_path("imagenet").read_bytes()).hexdigest() != digest
    assert "sets/nothing: no such folder" in refused_later(capsys, "data", "imagenet", "--from", "sets/nothing")


def refused_later(capsys, *arguments):
    """Where there is a prepared file, which stays."""
    before = data.data_path("imagenet").read_bytes()
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert data.data_path("imagenet").read_bytes() == before
    return line


def remove(path):
    def damage(root):
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    return damage


def rewrite(path, content):
    return lambda root: (root / path).write_bytes(content)


def move(path, target):
    return lambda root: (root / path).rename(root / target)


def change(path, old, new):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new, 1))


TRAIN, TRUTH = f"train/{WNIDS[1]}", f"ILSVRC2012_devkit_t12/data/{FLAT[0]}"
FAULTS = {  # what is damaged, how val/ is labelled, and what is said
    "no train": (remove("train"), "folders", "imagenet/train: cannot be read (No such file or directory)"),
    "no val": (remove("val"), "folders", "imagenet/val: cannot be read (No such file or directory)"),
    "missing class": (remove(TRAIN), "folders", f"{TRAIN}: is missing, and val/{WNIDS[1]}/{VAL}.JPEG is of this class"),
    "missing class, flat": (remove(TRAIN), FLAT[0], f"{TRAIN}: is missing, and val/{VAL}.JPEG is of this class"),
    "missing class of val": (remove(f"val/{WNIDS[1]}"), "folders", f"val: has no image of class {WNIDS[1]}"),
    "one class too many": (
        lambda root: shutil.copytree(root / TRAIN, root / "train/n00000009"),
        "folders",
        "train: 4 class folders, expected 3",
    ),
    "other classes": (
        lambda root: [move(f"{split}/{WNIDS[1]}", f"{split}/n00000009")(root) for split in ("train", "val")],
        "folders",
        "train: 3 classes, and not those of ImageNet",
    ),
    "class without images": (
        lambda root: [path.unlink() for path in (root / TRAIN).iterdir()],
        "folders",
        f"{TRAIN}: has no images",
    ),
    "too few images": (
        remove(f"{TRAIN}/{WNIDS[1]}_2.JPEG"),
        "folders",
        f"train: 11 images, 12 are published; fewest, 3, are of class {WNIDS[1]}",
    ),
    "too few of val": (
        remove(f"val/{WNIDS[1]}/{VAL}.JPEG"),
        "folders",
        f"val: 5 images, 6 are published; fewest, 1, are of class {WNIDS[1]}",
    ),
    "empty image": (rewrite(f"{TRAIN}/{WNIDS[1]}_2.JPEG", b""), "folders", f"{TRAIN}/{WNIDS[1]}_2.JPEG: is empty"),
    "no image": (rewrite(f"{TRAIN}/{WNIDS[1]}_2.JPEG", b"x"), "folders", f"{TRAIN}/{WNIDS[1]}_2.JPEG: not a whole"),
    "broken link": (
        lambda root: (remove(f"{TRAIN}/{WNIDS[1]}_2.JPEG")(root), (root / TRAIN / "x.JPEG").symlink_to("nothing")),
        "folders",
        f"{TRAIN}/x.JPEG: cannot be read",
    ),
    "image of another class": (
        move(f"{TRAIN}/{WNIDS[1]}_2.JPEG", f"train/{WNIDS[0]}/{WNIDS[1]}_2.JPEG"),
        "folders",
        f"train/{WNIDS[0]}/{WNIDS[1]}_2.JPEG: is named as an image of another class",
    ),
    "wrong label in a folder": (
        lambda root: [move(f"val/{a}/{VAL[:-1]}{n}.JPEG", f"val/{b}/{VAL[:-1]}{n}.JPEG")(root) for a, b, n in SWAPPED],
        "folders",
        "val: the labels are not the published ones",
    ),
    "image under another name": (
        move(f"val/{WNIDS[1]}/{VAL}.JPEG", f"val/{WNIDS[1]}/ILSVRC2012_val_00000009.JPEG"),
        "folders",
        f"val: {VAL}.JPEG is missing, and another image in its place",
    ),
    "wrong label in a file": (change(FLAT[1], "1", "2"), FLAT[1], "val: the labels are not the published ones"),
    "numbers of the devkit as if they were those of names": (
        lambda root: (root / "val.txt").write_text("".join(f"{VAL[:-1]}{n}.JPEG {(n - 1) % 3}\n" for n in range(1, 7))),
        "val.txt",
        "val: the labels are not the published ones",
    ),
    "no labels": (remove(TRUTH), FLAT[0], "val: has images and no labels; put ILSVRC2012_validation_ground_truth.txt"),
    "no meta.mat": (remove("ILSVRC2012_devkit_t12/data/meta.mat"), FLAT[0], "meta.mat: cannot be read"),
    "damaged meta.mat": (
        rewrite("ILSVRC2012_devkit_t12/data/meta.mat", b"x" * 200),
        FLAT[0],
        "meta.mat: not the devkit",
    ),
    "two images of one name": (
        lambda root: shutil.copy(root / f"val/{VAL}.JPEG", root / f"val/{VAL}.jpg"),
        FLAT[0],
        f"val/{VAL}.jpg: has the name of {VAL}.JPEG, too",
    ),
    "label of no class": (change(TRUTH, "2", "20"), FLAT[0], f"{FLAT[0]}: label 2, '20', stands for no class"),
    "empty label": (
        change(FLAT[2], f"{WNIDS[1]} 1 2 3 4", ""),
        FLAT[2],
        f"{FLAT[2]}: label 2, '', stands for no class",
    ),
    "image without label": (change("val.txt", f"{VAL}.JPEG 0\n", ""), "val.txt", f"val/{VAL}.JPEG: has no label in"),
    "label without image": (remove(f"val/{VAL}.JPEG"), "val.txt", f"val/{VAL}.JPEG: is missing, and has a label in"),
}
SWAPPED = [(WNIDS[0], WNIDS[1], 1), (WNIDS[1], WNIDS[0], 2)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_the_file(here, monkeypatch, capsys, fault):
    damage, labels, says = FAULTS[fault]
    publish_imagenet("sets/imagenet", monkeypatch, labels=labels)
    damage(Path("sets/imagenet"))
    assert says in refused(capsys, "data", "imagenet")


def test_a_prepared_file_of_another_set_or_form_is_refused(here, monkeypatch):
    publish_imagenet("sets/imagenet", monkeypatch)
    path, declared = data.data_path("imagenet"), components.datasets()["imagenet"]
    assert main(["data", "imagenet"]) == 0
    for field, other in (("num_train", 13), ("num_test", 5), ("num_classes", 4), ("classes_sha256", "0" * 64)):
        monkeypatch.setitem(components.datasets(), "imagenet", {**declared, field: other})
        with pytest.raises(UserError, match=rf"other images than imagenet declares [(]the {field} "):
            load()
    monkeypatch.setitem(components.datasets(), "imagenet", declared)
    with np.load(path) as archive:
        arrays = dict(archive)
    for field, other in (("train_files", np.zeros(12)), ("test_labels", np.zeros(5, np.int64)), ("train_sizes", 1)):
        np.savez(path, **{**arrays, field: other})
        with pytest.raises(UserError, match="not a prepared dataset"):
            load()


# Planning

SUITE = """\
dataset: imagenet
seeds: [0]
base: {DATASET.STAGE: FOLDER}
pairs: [{teacher: ResNet18, student: MobileNetV1}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
"""


def plan(folder):
    Path("params").mkdir(exist_ok=True)
    Path("params/small.yaml").write_text(SUITE.replace("FOLDER", folder))
    (run,) = plan_suite("small", "NONE").runs.values()
    return run, read_json(f"results/specs/{run.id}.json")["source"]


def test_the_classes_of_imagenet_are_stated_and_move_no_id(here):
    """The id is that of a specification that names no classes, as they were written before."""
    run, _ = plan('""')
    stated = run["dataset"]
    assert stated["classes_sha256"] == components.datasets()["imagenet"]["classes_sha256"]
    assert (stated["num_train"], stated["num_test"]) == (1_281_167, 50_000)
    earlier = {name: value for name, value in stated.items() if name != "classes_sha256"}
    assert Specification({**run.data, "dataset": earlier}).id == run.id
    assert Specification({**run.data, "dataset": {**stated, "classes_sha256": "0" * 64}}).id != run.id


def test_another_stage_is_that_of_runs_that_are_planned_already(here):
    (first, source), (second, other) = plan("$SCRATCH/a"), plan("$SCRATCH/b")
    assert first.id == second.id and (source["stage"], other["stage"]) == ("$SCRATCH/a", "$SCRATCH/b")
    require_file(f"results/specs/{first.id}.json")
    assert "stage" not in plan('""')[1]


# Datasets of one's own


def declare(folder="sets/mine", name="mine"):
    components.datasets.cache_clear()
    code = main(["data", "declare", str(folder), "--name", name, "--like", "imagenet"])
    components.datasets.cache_clear()
    return code


@pytest.mark.parametrize("labels", ["folders", *FLAT])
def test_a_folder_of_its_form_is_a_dataset_of_ones_own(here, capsys, labels):
    folder = write_imagenet(Path("sets/mine"), labels=labels)
    (folder / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").rename(folder / "train" / WNIDS[0] / "any name.png")
    assert declare() == 0 and "12 training and 6 test images of 3 classes" in capsys.readouterr().out
    declared, like = components.datasets()["mine"], components.datasets()["imagenet"]
    assert (declared["md5"], declared["classes_sha256"], declared["like"]) == (None, None, "imagenet")
    assert all(declared[key] == like[key] for key in ("zoo", "mean", "std", "augmentation", "image_size"))
    assert main(["data", "mine"]) == 0
    assert load("mine").source["files_sha256"] == declared["files_sha256"]
    content = Path("params/datasets/mine.yaml").read_text()
    shutil.copytree(folder, "elsewhere")
    assert declare("elsewhere") == 0 and Path("params/datasets/mine.yaml").read_text() == content


@pytest.mark.parametrize("what", ["an image's bytes", "an image's name", "a label"])
def test_other_files_are_not_those_that_were_declared(here, capsys, what):
    folder = write_imagenet(Path("sets/mine"), labels=FLAT[1])
    assert declare() == 0
    image = folder / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    if what == "an image's bytes":
        image.write_bytes(image.read_bytes() + b" ")
    elif what == "an image's name":
        image.rename(image.with_name("0.JPEG"))
    else:
        labels = (folder / FLAT[1]).read_text().splitlines()
        (folder / FLAT[1]).write_text("\n".join([*labels[:1], labels[2], labels[1], *labels[3:]]))
    capsys.readouterr()
    assert main(["data", "mine"]) == 2
    assert "the images have the files_sha256" in capsys.readouterr().err


def test_a_class_without_an_image_of_its_own_is_refused(here, capsys):
    folder = write_imagenet(Path("sets/mine"))
    shutil.rmtree(folder / "val" / WNIDS[0])
    assert declare() == 2 and f"has no image of class {WNIDS[0]}" in capsys.readouterr().err


# Reading, and copies nearby


def test_a_file_that_is_not_as_it_was_listed_is_named(here, monkeypatch):
    publish_imagenet("sets/imagenet", monkeypatch)
    assert main(["data", "imagenet"]) == 0
    training = load().training
    path = training.path(3)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{path}: has {len(content) - 1} bytes, {len(content)} when it was listed"):
        training.read(3)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path}: cannot be read"):
        training.read(3)


@pytest.fixture
def files(here, monkeypatch):
    publish_imagenet("sets/imagenet", monkeypatch)
    assert main(["data", "imagenet"]) == 0
    monkeypatch.setenv("SCRATCH", str(here / "scratch"))
    return load()


def test_staged_files_are_copies_and_the_record_names_the_originals(here, files):
    said = []
    copies = staged(files, "imagenet", ("training", "test"), "$SCRATCH/here", said.append)
    root = here / "scratch/here" / f"imagenet-{files.digest[:12]}"
    assert copies.training.path(0).is_relative_to(root) and copies.origin == files.origin
    for ours, theirs in ((copies.training, files.training), (copies.test, files.test)):
        assert [ours.read(p) for p in range(len(ours))] == [theirs.read(p) for p in range(len(theirs))]
    assert len(said) == 2 and "12 files" in said[0] and "6 files" in said[1]
    shutil.rmtree(files.folder)
    again = staged(files, "imagenet", ("training",), "$SCRATCH/here", pytest.fail)
    assert decode(again.training.read(0), "").shape[2] == 3
    assert not [path for path in root.rglob("*.tmp")]


def test_only_what_a_run_reads_is_copied_and_what_is_there_stays(here, files):
    root = here / "scratch" / f"imagenet-{files.digest[:12]}"
    staged(files, "imagenet", ("test",), "$SCRATCH")
    assert (root / "val").exists() and not (root / "train").exists()
    kept, cut = (root / files.training.path(p).relative_to(files.folder) for p in (0, 1))
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x" * files.train_sizes[0])
    cut.write_bytes(b"x")
    said = []
    staged(files, "imagenet", ("training",), "$SCRATCH", said.append)
    assert "11 files" in said[0], "a copy that was broken off is gone on with"
    assert kept.read_bytes()[:1] == b"x" and cut.read_bytes() == files.training.read(1)


def test_other_bytes_under_the_same_names_and_sizes_are_staged_beside_the_first(here, files):
    ours, others = (files._replace(source={"files_sha256": digit * 64}) for digit in "ab")
    staged(ours, "mine", ("test",), "$SCRATCH")
    path = files.test.path(0)
    path.write_bytes(b"x" * files.test_sizes[0])
    assert staged(others, "mine", ("test",), "$SCRATCH").test.read(0)[:1] == b"x"


def test_a_stage_may_lie_in_the_home_of_who_trains(here, files, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert Path(staged(files, "imagenet", ("test",), "~/copies").staged).is_relative_to(here / "home/copies")


@pytest.mark.parametrize("fault", ["variable", "room", "file", "no folder"])
def test_what_cannot_be_staged_is_one_line(here, files, monkeypatch, fault):
    if fault == "variable":
        with pytest.raises(UserError, match=r"DATASET.STAGE: [$]NOTHING/x: a variable in it is not set"):
            staged(files, "imagenet", ("test",), "$NOTHING/x")
    elif fault == "no folder":
        Path("scratch").touch()
        with pytest.raises(UserError, match=r"DATASET.STAGE: .*scratch/imagenet-.*: cannot be made \(Not a directory"):
            staged(files, "imagenet", ("test",), "scratch")
    elif fault == "room":
        monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10))
        with pytest.raises(UserError, match=r"DATASET.STAGE: .*GB of images do not fit, 0.0 GB are free"):
            staged(files, "imagenet", ("test",), "scratch")
    else:
        files.test.path(2).write_bytes(b"x")
        with pytest.raises(UserError, match=r"val/.*: has 1 bytes"):
            staged(files, "imagenet", ("test",), "scratch")
        assert not list(Path("scratch").rglob(".test"))


STAGE = """
import sys
from distillbench import data
from distillbench.data import listing, stage
read = listing.Listing.read
def slowly(self, position):
    import time
    time.sleep(0.2)
    return read(self, position)
listing.Listing.read = slowly
files = data._read(sys.argv[1])
stage.staged(files, "imagenet", ("training",), "scratch", lambda line: print(line, flush=True))
"""


def test_of_several_processes_one_copies_and_the_next_goes_on_where_it_was_killed(here, files, monkeypatch):
    command = [sys.executable, "-c", STAGE, data.data_path("imagenet")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "12 files" in first.stdout.readline()
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "another process copies the images; waiting for it" in second.stdout.readline()
    deadline = time.monotonic() + 60
    while not list(Path("scratch").rglob("*.JPEG")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and "files, 0.0 GB" in output
    copies = files._replace(staged=str(next(Path("scratch").iterdir()).absolute())).training
    assert [copies.read(p) for p in range(12)] == [files.training.read(p) for p in range(12)]
