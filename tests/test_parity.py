"""This code gives the official code's numbers."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from distillbench.cli import main

OWN_COPY = Path(__file__).parent / "fixtures" / "reference"


def test_agrees_with_the_projects_copy_of_the_reference_vectors(capsys):
    assert main(["parity", str(OWN_COPY)]) == 0
    assert ", 0 differ, 0 not covered yet" in capsys.readouterr().out


@pytest.mark.skipif("DISTILLBENCH_REFERENCE" not in os.environ, reason="DISTILLBENCH_REFERENCE names no folder")
def test_agrees_with_the_full_reference_vectors(capsys):
    assert main(["parity", os.environ["DISTILLBENCH_REFERENCE"]]) == 0
    assert "not covered yet: losses of" in capsys.readouterr().out


def test_a_wrong_number_is_reported_and_fails(tmp_path, capsys):
    case = tmp_path / "losses" / "KD"
    shutil.copytree(OWN_COPY / "losses" / "KD", case)
    with np.load(case / "random10.npz") as archive:
        arrays = dict(archive)
    arrays["grad.kd.logits_student"] = arrays["grad.kd.logits_student"] * (1 + 1e-6)
    np.savez(case / "random10.npz", **arrays)
    assert main(["parity", str(tmp_path)]) == 1
    assert "DIFFERS  losses/KD/random10.json: grad.kd" in capsys.readouterr().out


def test_what_is_not_covered_is_said(tmp_path, capsys):
    shutil.copytree(OWN_COPY / "losses" / "KD", tmp_path / "losses" / "NOVEL")
    assert main(["parity", str(tmp_path)]) == 1
    assert "not covered yet: losses of NOVEL" in capsys.readouterr().out


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    assert main(["parity", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
