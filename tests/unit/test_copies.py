"""Data sets read from copies as they are published: which copy, what of it, and what is said where it is not right."""

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import CLASSES, jpeg, pickled, publish, write_cifar

from distillbench import data
from distillbench.commands import main
from distillbench.config import components
from distillbench.data import cifar100, copies, tiny_imagenet
from distillbench.data.unpickle import read_arrays
from distillbench.errors import UserError

NAMES = ("cifar10", "cifar100", "tiny_imagenet")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, and `sets` for copies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(copies.VARIABLE, "sets")
    Path("sets").mkdir()
    return tmp_path


def refused(capsys, *words):
    """The line that a command which must fail says; nothing is prepared."""
    before = sorted(Path("results").rglob("*"))
    capsys.readouterr()
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path("results").rglob("*")) == before
    return line


# What is read


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_and_its_folder_are_one_dataset(here, monkeypatch, name):
    archive, folder = publish(name, "sets", monkeypatch)
    found = {}
    for path, other in ((archive, folder), (folder, archive)):
        other.rename("aside")
        data.prepare(name, "results/a.npz")
        found[path] = data.load(name, "results/a.npz")
        Path("aside").rename(other)
    assert found[archive].digest == found[folder].digest == data.digest_of(found[archive].arrays)
    assert found[archive].source["verified"] == "archive" and found[archive].source["file"] == archive.name
    said = "names, counts and sizes, not against the archive" if name == "tiny_imagenet" else "every file"
    assert found[folder].source["verified"] == said
    assert {images.source["md5"] for images in found.values()} == {components.datasets()[name]["md5"]}
    data.prepare(name, "results/a.npz")
    assert data.load(name, "results/a.npz").source["verified"] == "archive"  # where both are there


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_of_cifar_are_planes_of_colours_in_the_order_of_the_files(here, monkeypatch, name):
    _, folder = publish(name, "sets", monkeypatch)
    data.prepare(name, "results/a.npz")
    images, layout = data.load(name, "results/a.npz"), components.module("dataset", {"module": name}).layout
    for split, names in ((images.training, layout.train), (images.test, layout.test)):
        batches = [pickle.loads((folder / file).read_bytes()) for file in names]
        rows = np.concatenate([batch["data"] for batch in batches])
        assert np.array_equal(split[1], np.concatenate([batch[layout.labels] for batch in batches]))
        for image, row in zip(split[0], rows, strict=True):
            assert (image[0, 1] == row[[1, 1025, 2049]]).all() and (image[5, 0] == row[[160, 1184, 2208]]).all()


def test_tiny_imagenet_is_ordered_by_class_and_name_as_an_image_folder(here, monkeypatch):
    _, folder = publish("tiny_imagenet", "sets", monkeypatch)
    data.prepare("tiny_imagenet", "results/a.npz")
    images = data.load("tiny_imagenet", "results/a.npz")
    files = [folder / f"train/{wnid}/images/{wnid}_{n}.JPEG" for wnid in sorted(CLASSES) for n in (0, 10)]
    tested = [folder / f"val/images/val_{CLASSES.index(wnid)}.JPEG" for wnid in sorted(CLASSES)]
    for split, paths, labels in ((images.training, files, [0, 0, 1, 1, 2, 2]), (images.test, tested, [0, 1, 2])):
        assert np.array_equal(split[0], [np.asarray(Image.open(path)) for path in paths])
        assert split[1].tolist() == labels


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_grey_or_cmyk_jpeg_becomes_rgb(here, monkeypatch, mode):
    _, folder = publish("tiny_imagenet", "sets", monkeypatch)
    grey = np.full((64, 64, 3), 100, np.uint8)
    (folder / "train/n01/images/n01_0.JPEG").write_bytes(jpeg(grey, mode))
    data.prepare("tiny_imagenet", "results/a.npz", folder)
    image = data.load("tiny_imagenet", "results/a.npz").train_images[0]
    assert image.shape == (64, 64, 3) and abs(image.astype(int) - 100).max() <= 2


def test_a_copy_is_looked_for_in_folder_after_folder_and_nothing_is_written_there(here, monkeypatch):
    archive, folder = publish("cifar100", "sets", monkeypatch)
    for name in ("one", "two", "data"):
        Path(name).mkdir()
    monkeypatch.setenv(copies.VARIABLE, "one:two")
    declared, published = components.datasets()["cifar100"], cifar100.published
    assert copies.find(declared, published) is None
    shutil.copy(archive, "data")
    assert copies.find(declared, published) == Path("data", archive.name)
    shutil.copytree(folder, Path("two", folder.name))
    assert copies.find(declared, published) == Path("two", folder.name)
    shutil.copy(archive, "two")
    assert copies.find(declared, published) == Path("two", archive.name)
    before = sorted(Path("two").rglob("*"))
    assert main(["data", "cifar100"]) == 0 and sorted(Path("two").rglob("*")) == before
    monkeypatch.setenv(copies.VARIABLE, "one:three")
    with pytest.raises(UserError, match="DISTILLBENCH_DATA: three: no such folder"):
        copies.find(declared, published)


def test_odd_names_in_an_archive_are_never_written(here, monkeypatch):
    archive, folder = publish("tiny_imagenet", "sets", monkeypatch)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../out.txt", "")
        file.writestr(f"{folder.name}/../../out.txt", "")
        file.writestr("/out.txt", "")
    tar, folder = publish("cifar100", "sets", monkeypatch)
    with tarfile.open(tar, "w:gz") as file:
        file.add(folder, folder.name)
        link = tarfile.TarInfo(f"{folder.name}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../out.txt"
        file.addfile(link)
        file.addfile(tarfile.TarInfo("../out.txt"), io.BytesIO())
    for name, path in (("tiny_imagenet", archive), ("cifar100", tar)):
        declared = {**components.datasets()[name], "md5": copies.md5_of(path)}
        monkeypatch.setitem(components.datasets(), name, declared)
        before = sorted(here.parent.glob("*")) + sorted(p for p in here.rglob("*") if "results" not in p.parts)
        data.prepare(name, f"results/{name}.npz", path)
        after = sorted(here.parent.glob("*")) + sorted(p for p in here.rglob("*") if "results" not in p.parts)
        assert after == before


# Pickles


class Planted:
    def __reduce__(self):
        return Path.touch, (Path("called"),)


class Evaluated:
    def __reduce__(self):
        return eval, ("open('called', 'w')",)


@pytest.mark.parametrize("planted", [Planted(), Evaluated(), np.array([Planted()], dtype=object)])
@pytest.mark.parametrize("protocol", range(6))
def test_a_planted_call_is_refused_and_not_executed(here, planted, protocol):
    content = pickle.dumps({"data": np.zeros(3, np.uint8), "labels": [planted]}, protocol)
    with pytest.raises(UserError, match=r"sets/train: not a pickle of arrays and lists \(it asks for ") as error:
        read_arrays(io.BytesIO(content), "sets/train")
    assert not Path("called").exists() and "\n" not in str(error.value)
    pickle.loads(content)
    assert Path("called").exists(), "the call was no call"


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_are_read_whoever_wrote_them(protocol):
    content = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "text": ("é", None, 0.5, True)}
    found = read_arrays(io.BytesIO(pickle.dumps(content, protocol)), "x")
    assert np.array_equal(found.pop("data"), content.pop("data")) and found == content
    if protocol == 2:
        assert np.array_equal(read_arrays(io.BytesIO(pickled(np.arange(3))), "x"), np.arange(3))


# What is not right


def cut(path, size=-1):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("damage", [cut, lambda path: cut(path, 0), lambda path: path.write_bytes(b"<html>")])
@pytest.mark.parametrize("name", NAMES)
def test_an_archive_of_other_bytes_is_refused_and_stays(here, monkeypatch, capsys, name, damage):
    archive, _ = publish(name, "sets", monkeypatch)
    damage(archive)
    content = archive.read_bytes()
    line = refused(capsys, "data", name)
    assert f"{archive}: has the MD5 " in line and f"published is {components.datasets()[name]['md5']}" in line
    assert archive.read_bytes() == content


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_a_file_of_an_unpacked_folder_is_compared_with_its_published_digest(here, monkeypatch, capsys, file):
    archive, folder = publish("cifar100", "sets", monkeypatch)
    archive.unlink()
    write_cifar(folder, seed=1)
    (folder / "meta").write_bytes((folder / "meta").read_bytes() + (b"" if file != "meta" else b" "))
    whole = {name: (folder / name).read_bytes() for name in ("train", "test", "meta")}
    monkeypatch.setattr(cifar100, "published", cifar100.published._replace(files={file: "0" * 32}))
    assert f"sets/{folder.name}/{file}: is not the published file" in refused(capsys, "data", "cifar100")
    (folder / file).unlink()
    assert f"sets/{folder.name}/{file}: is missing" in refused(capsys, "data", "cifar100")
    assert whole.keys() - {path.name for path in folder.iterdir()} == {file}


ROWS = np.zeros((6, 3072), np.uint8)
FAULTS = {
    "a wrong label": ({"train": {"fine_labels": [0, 1, 2, 3, 0, 1]}}, "train: fine_labels of image 3 is 3, expected 0"),
    "a negative label": ({"test": {"fine_labels": [0, -1, 2, 0, 0, 1]}}, "test: fine_labels of image 1 is -1"),
    "a label of another type": ({"train": {"fine_labels": [0, 1, 2, 0, 1, "2"]}}, "train: fine_labels of image 5"),
    "too few labels": ({"train": {"fine_labels": [0, 1]}}, "train: 2 fine_labels for 6 images"),
    "no labels": ({"test": {"fine_labels": None}}, "test: has no list 'fine_labels'"),
    "smaller images": ({"train": {"data": ROWS[:, :-1]}}, "train: data is uint8 6x3071, expected uint8 with 3072"),
    "other numbers": ({"train": {"data": ROWS.astype(np.float32)}}, "train: data is float32"),
    "no images": ({"train": {"data": [1]}}, "train: has no ndarray 'data'"),
    "no classes": ({"meta": {"fine_label_names": "abc"}}, "meta: has no list 'fine_label_names'"),
}


@pytest.mark.parametrize("changes, says", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_batch_of_cifar_is_one_line_with_the_file(here, capsys, changes, says):
    folder = write_cifar(Path("sets/mine"), **changes)
    assert f"{folder}/{says}" in refused(capsys, "data", "declare", "sets/mine", "--name", "a", "--like", "cifar100")
    assert not Path("params").exists()


def test_a_batch_that_is_no_pickle_is_refused(here, capsys):
    folder = write_cifar(Path("sets/mine"))
    for content in (b"", b"abc", (folder / "train").read_bytes()[:-100]):
        (folder / "train").write_bytes(content)
        line = refused(capsys, "data", "declare", "sets/mine", "--name", "a", "--like", "cifar100")
        assert f"{folder}/train: not a pickle of arrays and lists" in line


FIRST = "train/n01/images/n01_0.JPEG"


def tiny_faults():
    grey = np.zeros((64, 64, 3), np.uint8)
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62" for number, wnid in enumerate(CLASSES)]
    notes = "val/val_annotations.txt"

    def annotate(folder, *lines):
        (folder / notes).write_text("\n".join(lines))

    yield "a cut image", lambda f: cut(f / FIRST, 500), f"{FIRST}: not a whole image"
    yield "no image", lambda f: (f / FIRST).write_bytes(b"<html>"), f"{FIRST}: not a whole image"
    yield "an empty image", lambda f: cut(f / FIRST, 0), f"{FIRST}: not a whole image"
    yield "a smaller image", lambda f: (f / FIRST).write_bytes(jpeg(grey[1:])), f"{FIRST}: is 64x63, expected 64x64"
    yield (
        "one of another class",
        lambda f: (f / FIRST).rename(f / "train/n01/images/n02_9.JPEG"),
        "9.JPEG: is named",
    )
    yield "no validation image", lambda f: (f / "val/images/val_1.JPEG").unlink(), "val/images/val_1.JPEG: is missing"
    yield "no annotations", lambda f: (f / notes).unlink(), f"{notes}: is missing"
    yield "an unknown class", lambda f: annotate(f, lines[0].replace("n03", "n09"), *lines[1:]), f"{notes}, line 1"
    yield "one twice", lambda f: annotate(f, *lines, lines[2]), f"{notes}, line 4"
    yield "no annotation", lambda f: annotate(f, *lines[:2]), f"val/images/val_2.JPEG: has no line in {notes}"
    yield "a class too few", lambda f: shutil.rmtree(f / "train/n01"), "wnids.txt: lists other classes"
    yield "a class twice", lambda f: (f / "wnids.txt").write_text("n01 n02 n03 n03"), "wnids.txt: lists other classes"
    yield "an image too few", lambda f: (f / FIRST).unlink(), "the images have the num_train 5, declared is 6"


@pytest.mark.parametrize("damage, says", [fault[1:] for fault in tiny_faults()], ids=[f[0] for f in tiny_faults()])
def test_a_fault_in_a_folder_of_tiny_imagenet_is_one_line_with_the_file(here, monkeypatch, capsys, damage, says):
    archive, folder = publish("tiny_imagenet", "sets", monkeypatch)
    archive.unlink()
    damage(folder)
    line = refused(capsys, "data", "tiny_imagenet")
    assert says in line and str(folder) in line


def test_an_image_in_a_zip_file_that_is_damaged_is_named(here, monkeypatch, capsys):
    archive, folder = publish("tiny_imagenet", "sets", monkeypatch)
    with zipfile.ZipFile(archive) as file:
        place = file.getinfo(f"{folder.name}/{FIRST}").header_offset
    content = bytearray(archive.read_bytes())
    content[place + 200] ^= 255
    archive.write_bytes(content)
    declared = {**components.datasets()["tiny_imagenet"], "md5": copies.md5_of(archive)}
    monkeypatch.setitem(components.datasets(), "tiny_imagenet", declared)
    assert f"{archive}: {FIRST}: cannot be read" in refused(capsys, "data", "tiny_imagenet")


@pytest.mark.parametrize("name", ["digits", "tiny_imagenet"])
def test_only_a_published_archive_is_tracked(here, monkeypatch, capsys, name):
    archive, _ = publish("tiny_imagenet", "sets", monkeypatch)
    archive.unlink()
    assert main(["data", name, "--track"]) == 2
    assert "is no published archive, and only these are tracked" in capsys.readouterr().err
    assert data.data_path(name).exists() and not Path("data").exists()


def test_what_is_named_and_not_there_is_refused(here, capsys):
    assert "nothing: cannot be read (No such file" in refused(capsys, "data", "cifar100", "--from", "nothing")
    assert "--from" in refused(capsys, "data", "digits", "--from", "sets")


# What is compared on a read


@pytest.fixture
def prepared(here, monkeypatch):
    publish("tiny_imagenet", "sets", monkeypatch)
    data.prepare("tiny_imagenet", "a.npz")
    with np.load("a.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    "field, other",
    [("md5", "0" * 32), ("num_train", 7), ("num_test", 2), ("image_size", 32), ("version", 2), ("num_classes", 4)],
)
def test_a_prepared_file_of_something_else_than_is_declared_is_refused(prepared, monkeypatch, field, other):
    declared = {**components.datasets()["tiny_imagenet"], field: other}
    monkeypatch.setitem(components.datasets(), "tiny_imagenet", declared)
    with pytest.raises(UserError, match=r"a[.]npz: other images than tiny_imagenet declares .* remove it and make it"):
        data.load("tiny_imagenet", "a.npz")


def test_a_prepared_file_without_its_source_is_refused(prepared):
    for source in ({}, {"source": "{}"}, {"source": "[]"}, {"source": "{"}):
        np.savez("a.npz", **{field: value for field, value in prepared.items() if field != "source"}, **source)
        with pytest.raises(UserError, match=r"a[.]npz: (other images than tiny_imagenet|not a prepared dataset)"):
            data.load("tiny_imagenet", "a.npz")


def test_other_decoded_pixels_are_no_other_dataset(prepared):
    """Another libjpeg rounds differently; a run's record says which pixels it had."""
    prepared["train_images"][0, 0, 0] ^= 1
    np.savez("a.npz", **{**prepared, "sha256": "0" * 64})
    images = data.load("tiny_imagenet", "a.npz")
    assert images.origin["sha256"] == "0" * 64
    assert images.origin["md5"] == components.datasets()["tiny_imagenet"]["md5"]
    assert set(images.origin) == {"sha256", "md5", "version", "num_classes", "file", "verified"}


def test_the_names_and_sizes_of_the_published_archives():
    published = {name: components.module("dataset", components.datasets()[name]).published for name in NAMES}
    assert all(found.url.endswith(f"/{found.archive}") for found in published.values())
    assert tiny_imagenet.published.folder == "tiny-imagenet-200"
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        ours = published[name]
        assert (ours.archive, ours.folder, ours.url) == (theirs.filename, theirs.base_folder, theirs.url)
        digests = {**dict(theirs.train_list), **dict(theirs.test_list), theirs.meta["filename"]: theirs.meta["md5"]}
        assert ours.files == digests


def test_a_folder_of_tiny_imagenet_may_hold_more_than_is_read(here, monkeypatch):
    archive, folder = publish("tiny_imagenet", "sets", monkeypatch)
    archive.unlink()
    data.prepare("tiny_imagenet", "a.npz")
    (folder / "test/images").mkdir(parents=True)
    (folder / "test/images/test_0.JPEG").write_bytes(b"")
    (folder / "words.txt").write_text("")
    data.prepare("tiny_imagenet", "b.npz")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
