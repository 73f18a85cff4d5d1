"""`distillbench bench data`: the ways from files to batches, timed only where they give the same images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from distillbench.benchmark import loading
from distillbench.commands import main
from distillbench.data.augment import ResizedCropFlip

ROW = {"way", "img_s", "img_s_min", "img_s_max", "ratio", "gate"}
ALL = [loading.PUBLISHED, loading.AGAIN, loading.DECODED, loading.OURS]


@pytest.fixture
def folder(tmp_path):
    """Of seven files, a picture of ImageNet's size each, one of them grey, below two folders."""
    draws = np.random.default_rng(0)
    for number in range(7):
        small = Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        picture = small.resize((300, 200), Image.Resampling.BICUBIC).convert("L" if number == 3 else "RGB")
        path = tmp_path / "images" / f"n0{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    (tmp_path / "images" / "README.txt").write_text("no image")
    return tmp_path / "images"


def benched(tmp_path, *words):
    """(exit code, content of the JSON file)"""
    file = tmp_path / "bench.json"
    code = main(["bench", "data", "--json", str(file), *words])
    return code, json.loads(file.read_text()) if file.exists() else None


def test_generated_files_are_timed_and_leave_a_table_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "GENERATED", 2)
    threads = torch.get_num_threads()
    code, content = benched(tmp_path, "--rounds", "2")
    out, err = capsys.readouterr()
    assert code == 0 and "round 2 of 2" in err and torch.get_num_threads() == threads
    assert [row["way"] for row in content["ways"]] == ALL
    assert all(set(row) == ROW and row["gate"] == "pass" for row in content["ways"])
    assert all(0 < row["img_s_min"] <= row["img_s"] <= row["img_s_max"] for row in content["ways"])
    assert content["ways"][0]["ratio"] == 1 and content["noise"] >= 0
    files = content["files"]
    assert (files["from"], files["count"], files["width"], files["height"]) == ("generated", 2, 500, 375)
    assert 100 < files["kB"] < 160  # as ImageNet's
    assert content["environment"]["threads"] == 1 and "pillow" in content["environment"]["versions"]
    assert all(name in out for name in ALL) and "FAIL" not in out


def test_files_of_a_folder_are_taken_evenly(tmp_path, folder):
    code, content = benched(tmp_path, "--rounds", "1", "--from", str(folder), "--images", "3")
    assert code == 0 and content["files"]["count"] == 3
    assert (content["files"]["width"], content["files"]["height"]) == (300, 200)
    chosen = [path.relative_to(folder).as_posix() for path in loading._some_below(folder, 3)]
    assert chosen == ["n00/0.JPEG", "n00/4.JPEG", "n01/1.JPEG"]
    assert len(loading._some_below(folder, 99)) == 7


def test_other_images_have_no_number_and_the_exit_code_is_1(tmp_path, folder, capsys, monkeypatch):
    box = ResizedCropFlip.box
    monkeypatch.setattr(ResizedCropFlip, "box", lambda self, *args: box(self, *args)[:2] + (50, 50))
    code, content = benched(tmp_path, "--rounds", "1", "--from", str(folder))
    rows = {row["way"]: row for row in content["ways"]}
    assert code == 1 and rows[loading.OURS]["gate"] == "fail" and rows[loading.PUBLISHED]["gate"] == "pass"
    assert rows[loading.OURS]["img_s"] is rows[loading.OURS]["ratio"] is None
    assert "ours: FAIL: " in capsys.readouterr().out


def test_what_cannot_be_timed_is_one_line(tmp_path, folder, capsys):
    other, empty, cut = tmp_path / "other.json", tmp_path / "empty", folder / "n01" / "5.JPEG"
    other.write_text('{"charged_to": "of the other benchmark"}')
    empty.mkdir()
    cut.write_bytes(cut.read_bytes()[:2000])
    for words, problem in (
        (["--json", str(other)], f"{other}: is not a benchmark's; nothing is overwritten"),
        (["--from", str(empty)], f"--from: {empty}: holds no images"),
        (["--from", str(folder)], f"{cut}: not a whole image"),
        (["--rounds", "0"], "invalid value for '--rounds'"),
        (["--images", "9"], "--images: counts files of a folder; add --from FOLDER or leave it out"),
    ):
        assert main(["bench", "data", *words]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"distillbench: {problem}"), line
    assert "charged_to" in other.read_text()
