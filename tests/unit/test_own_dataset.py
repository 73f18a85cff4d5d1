"""Datasets of one's own: declared from a folder in a published format, and from then on datasets like the others."""

import shutil
from pathlib import Path

import pytest
import standins
from published import publish, write_cifar, write_tiny

from distillbench import data
from distillbench.commands import main
from distillbench.config import components
from distillbench.config.implemented import require_trainable
from distillbench.config.suite import load_suite
from distillbench.data.copies import VARIABLE
from distillbench.errors import UserError
from distillbench.files import read_json

FILE = Path("params/datasets/mine.yaml")
SUITE = """\
dataset: mine
seeds: [0]
base: {SOLVER: {EPOCHS: 1, BATCH_SIZE: 4, LR_DECAY_STAGES: [1]}}
pairs: [{teacher: NETWORK, student: NETWORK}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty project, and `sets` for copies; what is declared is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "sets")
    Path("sets").mkdir()
    yield forget()
    forget()


def forget():
    """As a new process."""
    components.datasets.cache_clear()


def declare(folder="sets/mine", name="mine", like="cifar100"):
    forget()
    code = main(["data", "declare", str(folder), "--name", name, "--like", like])
    forget()
    return code


def refused(capsys, *arguments, **options):
    before = {path: path.read_bytes() for path in Path("params").rglob("*.yaml")}
    capsys.readouterr()
    assert declare(*arguments, **options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert {path: path.read_bytes() for path in Path("params").rglob("*.yaml")} == before
    return line


def test_a_declaration_has_the_counts_and_the_digest_and_the_rest_is_that_of_its_like(capsys):
    write_cifar(Path("sets/mine/cifar-100-python"))
    assert declare() == 0
    assert "params/datasets/mine.yaml: 6 training and 6 test images of 3 classes" in capsys.readouterr().out
    declared, like = components.datasets()["mine"], components.datasets()["cifar100"]
    assert (declared["name"], declared["md5"], declared["like"], declared["bibtex"]) == ("mine", None, "cifar100", "")
    assert [declared[key] for key in ("num_train", "num_test", "num_classes")] == [6, 6, 3]
    assert all(declared[key] == like[key] for key in ("zoo", "mean", "std", "augmentation", "image_size", "version"))
    assert components.networks("mine") == components.networks("cifar100")
    assert list(components.datasets()) == [*components.packaged("dataset"), "mine"]
    content = FILE.read_bytes()
    assert declare() == 0 and FILE.read_bytes() == content


def test_its_digest_is_over_names_and_bytes_of_the_files_that_are_read(capsys):
    folder = write_cifar(Path("sets/mine"))
    assert declare() == 0
    first = FILE.read_text()
    (folder / "readme.html").write_text("")
    shutil.copytree(folder, "elsewhere")
    assert declare("elsewhere") == 0 and FILE.read_text() == first
    for name in ("train", "test", "meta"):
        shutil.copytree(folder, f"with another {name}")
        path = Path(f"with another {name}", name)
        path.write_bytes(path.read_bytes() + b" ")
        assert f"{FILE}: declares other images, and is not replaced" in refused(capsys, path.parent)
    write_cifar(Path("ten"), "cifar10")
    assert declare("ten", "ten", "cifar10") == 0 and declare("elsewhere", "other") == 0
    texts = {path.name: path.read_text() for path in FILE.parent.iterdir()}
    assert texts["other.yaml"] == first and texts["ten.yaml"] != first


@pytest.mark.parametrize(
    "name, like, says",
    [
        ("cifar10", "cifar100", "--name: the name cifar10 is taken by a published dataset"),
        ("CIFAR10", "cifar100", "taken"),
        ("../mine", "cifar100", "no name of a dataset"),
        ("1mine", "cifar100", "no name of a dataset"),
        ("mine", "digits", "--like: unknown dataset 'digits'; valid: cifar10, cifar100, imagenet, tiny_imagenet"),
        ("mine", "imagenet", "sets/mine/train: cannot be read"),
        ("mine", "cifar10", "sets/mine/batches.meta: is missing"),
        ("mine", "tiny_imagenet", "sets/mine/wnids.txt: is missing"),
    ],
)
def test_what_cannot_be_declared_is_refused(capsys, name, like, says):
    write_cifar(Path("sets/mine"))
    assert says in refused(capsys, name=name, like=like)


def test_a_folder_that_is_not_there_is_refused(capsys):
    assert "nothing: no such folder; name one that holds cifar-100-python" in refused(capsys, "nothing")


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("like: cifar100", "like: digits", "like: unknown dataset 'digits'"),
        ("like: cifar100\n", "", "like is missing"),
        ("num_test: 6\n", "", "num_test is missing"),
        ("num_test: 6", "num_test: 0", "num_test must be a positive integer"),
        ("num_test: 6", "num_test:", "num_test has no value"),
        ("num_classes: 3", "num_classes: 3.0", "num_classes must be a positive integer"),
        ('files_sha256: "', 'files_sha256: "0', "files_sha256 must be a digest of 64 hex digits"),
        ("num_test: 6", "num_test: 6\nmean: [0, 0, 0]", "mean: unknown key 'mean'"),
        ("num_test: 6", "num_test: 010", "YAML 1.1 reads 010"),
    ],
)
def test_a_declaration_is_read_strictly(capsys, old, new, says):
    write_cifar(Path("sets/mine"))
    assert declare() == 0
    text = FILE.read_text()
    assert text.count(old) == 1
    FILE.write_text(text.replace(old, new))
    capsys.readouterr()
    assert main(["data", "mine"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(FILE) in line and says in line


def test_images_are_those_declared_when_they_are_prepared(capsys):
    write_cifar(Path("sets/mine/cifar-100-python"))
    assert declare() == 0
    assert main(["data", "mine"]) == 0
    images = data.load("mine", data.data_path("mine"))
    assert images.source["verified"] == "every file"
    assert images.source["files_sha256"] == components.datasets()["mine"]["files_sha256"]
    Path("sets/mine").rename("elsewhere")
    assert main(["data", "mine"]) == 2 and "put it into a folder mine in one that DISTILL" in capsys.readouterr().err
    assert main(["data", "mine", "--from", "elsewhere"]) == 0
    write_cifar(Path("elsewhere/cifar-100-python"), seed=1)
    assert main(["data", "mine", "--from", "elsewhere"]) == 2
    assert "the images have the files_sha256" in capsys.readouterr().err
    assert main(["data", "mine", "--from", str(FILE)]) == 2 and "no such folder" in capsys.readouterr().err
    assert data.load("mine", data.data_path("mine")).digest == images.digest


def test_it_is_no_copy_of_the_published_one_and_that_none_of_it(monkeypatch):
    """Though their folders have one name, and lie in one place."""
    publish("cifar100", "sets", monkeypatch)
    write_cifar(Path("sets/mine/cifar-100-python"), seed=1)
    published = components.datasets()["cifar100"]
    assert declare() == 0
    monkeypatch.setitem(components.datasets(), "cifar100", published)
    assert main(["data", "mine"]) == main(["data", "cifar100"]) == 0
    images = {name: data.load(name, data.data_path(name)) for name in ("mine", "cifar100")}
    assert images["mine"].digest != images["cifar100"].digest
    shutil.copy(data.data_path("cifar100"), data.data_path("mine"))
    with pytest.raises(UserError, match="other images than mine declares"):
        data.load("mine", data.data_path("mine"))


def planned(network="resnet8"):
    forget()
    Path("params/mine.yaml").write_text(SUITE.replace("NETWORK", network))
    return load_suite("mine").cells[-1].specification


def test_its_digest_is_part_of_the_ids_of_its_runs():
    write_cifar(Path("sets/mine"))
    assert declare() == 0
    first, digest = planned(), components.datasets()["mine"]["files_sha256"]
    stated = {"name": "mine", "version": 1, "like": "cifar100", "files_sha256": digest, "protocol": "published"}
    assert first["dataset"] == stated
    require_trainable(first)
    FILE.unlink()
    write_cifar(Path("sets/mine"), seed=1)
    assert declare() == 0
    assert planned().id != first.id and planned().id.startswith("mine/resnet8/none/s0-")
    with pytest.raises(UserError, match=r"dataset[.]files_sha256: .* is asked for"):
        require_trainable(first)


@pytest.mark.parametrize(
    "like, write, network", [("cifar10", write_cifar, "resnet8"), ("tiny_imagenet", write_tiny, "ShuffleV2")]
)
def test_a_run_on_it_names_the_images_that_it_had(tmp_path, like, write, network):
    write(Path("sets/mine"), like) if write is write_cifar else write(Path("sets/mine"))
    assert declare(like=like) == 0 and main(["data", "mine"]) == 0
    images = data.load("mine", data.data_path("mine"))
    out = standins.learn(planned(network), images, tmp_path / "run")
    assert read_json(out / "record.json")["images"] == images.origin
    source = images.source
    for other in ({**source, "files_sha256": "0" * 64}, {}):
        with pytest.raises(UserError, match=r"mine has the digest .* is asked for"):
            standins.learn(planned(network), images._replace(source=other), tmp_path / "other")
    assert not (tmp_path / "other/out").exists()
