"""`distillbench bench`: what is timed is what R0 computes, and what is told of it."""

import json
import math
import subprocess

import pytest
import torch

from distillbench.benchmark import bench as benchmark
from distillbench.benchmark import experiment, gate, obstacles
from distillbench.benchmark.archive import Archive, generate
from distillbench.benchmark.bench import Climbed, Table
from distillbench.benchmark.engine_steps import Engine
from distillbench.benchmark.experiment import Job, Size
from distillbench.benchmark.ladder import Obstacles, Rung, ladder
from distillbench.benchmark.measuring import Measured, in_rounds, noise
from distillbench.benchmark.plain_steps import Plain
from distillbench.benchmark.processes import Broken, Processes
from distillbench.benchmark.results import Result, as_json, as_text
from distillbench.commands import main
from distillbench.errors import UserError

TINY = Size(images=64, resident=16, gated=8, rounds=2, seconds=0.01, batch=8)
PAIR = ("resnet14", "resnet8")
KEYS = {"pair", "method", "rung", "device", "img_s", "img_s_min", "img_s_max", "ratio", "gate"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and a teacher for the steps of `TINY`."""
    folder = tmp_path_factory.mktemp("bench")
    archive = generate(folder / "data", TINY.images)
    experiment.write_resident(folder / experiment.RESIDENT, *archive.arrays(), TINY.resident)
    experiment.write_teacher(PAIR[0], folder / experiment.TEACHER)
    return folder


def steps(kind, folder, method, **options):
    rung = Rung("one", "", "", "fp32", {"driver": "eager", **options}, threads=1)
    return kind(Job(PAIR, method, rung, "cpu", Archive(str(folder / "data")), folder, TINY))


def trace(kind, folder, method, **options):
    return steps(kind, folder, method, **options).trace(gate.STEPS, TINY.gated)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(benchmark.QUICK, "cpu", TINY)
    monkeypatch.setitem(benchmark.WORKERS, "cpu", (0, 1))
    monkeypatch.setattr(obstacles, "cores", lambda: 1)  # so one thread: two wait for each other beside other tests


def test_a_quick_benchmark_leaves_a_table_and_json(small, tmp_path, capsys):
    words = ["--quick", "--pairs", ":".join(PAIR), "--device", "cpu", "--json", str(tmp_path / "bench.json")]
    assert main(["bench", *words]) == 0
    out, err = capsys.readouterr()
    assert "round 2 of 2" in err and "gate 1 of" in err and "Traceback" not in err
    content = json.loads((tmp_path / "bench.json").read_text())
    rungs = {row["rung"]: row for row in content["rungs"]}
    assert all(set(row) == KEYS and row["gate"] == "pass" for row in rungs.values())
    assert all(0 < row["img_s_min"] <= row["img_s"] <= row["img_s_max"] for row in rungs.values())
    assert rungs["R0"]["ratio"] == 1 and [*rungs][:3] == ["R0", "R0 again", "resident data"]
    assert {"engine", "logit table"} <= rungs.keys() and "CUDA graph" not in rungs
    reasons = {entry["rung"]: entry["reason"] for entry in content["not_run"]}
    assert reasons["CUDA graph"] == "CUDA graphs need a GPU" and not reasons.keys() & rungs.keys()
    assert reasons["engine, 2 processes"] == "2 processes need 2 cores, here is 1"
    assert content["environment"]["versions"].keys() >= {"torch", "torchvision"}
    assert {"commit", "processor", "threads"} <= content["environment"].keys()
    (ladder,) = content["ladders"]
    assert ladder["table"]["views"] == 16 * 162 and ladder["operations"]["observed"] > 100 and not ladder["failed"]
    assert all(name in out for name in (*rungs, *reasons)) and "FAIL" not in out


def test_a_rung_with_other_losses_has_no_number_and_the_exit_code_is_1(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gate, "TOLERANCE", {"fp32": 0.0})  # rounding alone is too much then
    rungs = ladder("fp32", 1, 2, Obstacles(graph="no GPU", table="none"))
    monkeypatch.setattr(benchmark, "ladder", lambda *_: [rungs[0], rungs[1], rungs[6]])  # which is the engine
    words = ["--quick", "--rounds", "1", "--pairs", ":".join(PAIR), "--device", "cpu"]
    assert main(["bench", *words, "--json", str(tmp_path / "bench.json")]) == 1
    rungs = {row["rung"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rungs"]}
    assert rungs["engine"]["gate"] == "fail" and rungs["engine"]["img_s"] is rungs["engine"]["ratio"] is None
    assert rungs["R0"]["gate"] == "pass" and "engine: FAIL: other losses" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["KD", "DKD", "KD+GKD", "KD+DOT"])
def test_the_gate_tells_the_engine_from_one_with_another_rate(folder, method):
    reference = trace(Plain, folder, method)
    engine, other = steps(Engine, folder, method), steps(Engine, folder, method)
    assert gate.passes(engine.trace(gate.STEPS, TINY.gated), reference, "fp32")
    other.lr *= 1.01
    assert not gate.passes(other.trace(gate.STEPS, TINY.gated), reference, "fp32")


def test_the_plain_rungs_are_r0(folder):
    reference = trace(Plain, folder, "KD")
    for options in ({"resident": True, "read_back": False}, {"channels_last": True, "fused": True}):
        assert gate.passes(trace(Plain, folder, "KD", **options), reference, "fp32")
    for other in ("DKD", "KD+DOT"):
        assert not gate.passes(trace(Plain, folder, other), reference, "fp32")


def test_several_processes_do_the_same_at_once_and_what_they_raise_is_told(folder):
    rung = Rung("two", "plain", "R0", "fp32", {"resident": True}, threads=1, processes=2)
    with Processes(Job(PAIR, "KD", rung, "cpu", Archive(str(folder / "data")), folder, TINY)) as processes:
        processes.ready()
        one, other = processes.ask("trace", 2, TINY.gated)
        assert one == other == trace(Plain, folder, "KD")[:2]
        assert all(rate > 0 for rate in processes.ask("images_per_second", 0.01))
        with pytest.raises(Broken, match=r"AttributeError: .*'nothing'"):
            processes.ask("nothing")


def test_a_loss_that_is_not_finite_does_not_pass():
    for loss, other in ((math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (math.inf, math.inf)):
        assert not gate.passes([loss], [other], "bf16")
    assert gate.passes([1.0, 1.00001], [1.0, 1.0], "fp32") and not gate.passes([1.0, 1.0001], [1.0, 1.0], "fp32")


def test_torchvision_checks_generated_images_against_their_own_md5(tmp_path):
    archive = generate(tmp_path, 10)
    images, labels = archive.arrays()
    assert images.shape == (10, 32, 32, 3) and labels.shape == (10,)
    assert generate(tmp_path / "again", 10).md5 == archive.md5
    train = tmp_path / "cifar-100-python" / "train"
    train.write_bytes(train.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="holds no whole CIFAR-100"):
        archive.arrays()


def climbed():
    """R0 with 100 images per second, a live engine with 150, a table's with 300, a rung that failed."""
    live = Rung("engine", "engine", "R0", "fp32")
    table = live._replace(name="logit table", options={"table": True})
    r0, again = (Rung(name, "plain", before, "fp32") for name, before in (("R0", ""), ("R0 again", "R0")))
    rates = ((r0, (90.0, 100.0, 110.0)), (again, (91.0, 102.0, 113.0)), (live, (150.0,) * 3), (table, (300.0,) * 3))
    measured = [*(Measured(*pair) for pair in rates), Measured(live._replace(name="broken"), (), "other losses")]
    made = Table(images=500, views=500 * 162, seconds=400.0)
    return Climbed(PAIR, "KD", "cpu", "fp32", measured, {"CUDA graph": "no GPU"}, made, 2, {"observed": 3})


def test_a_table_is_charged_to_one_run_and_to_a_suite():
    result = Result(climbed())
    live, table = result.measured["engine"], result.measured["logit table"]
    assert (result.ratio(live), result.ratio(table), result.step(table)) == (1.5, 3.0, 3.0)
    assert result.table_seconds == 40_000  # of 50 000 images; a run of 240 epochs at 300 per second takes as long
    assert result.charged(table, 1) == pytest.approx(1.5) and result.charged(live, 1) == 1.5
    assert result.charged(table, 40) == pytest.approx(3 * 40 / 41)
    assert result.best("fp32", True) is table and result.best("fp32", False) is live and not result.best("bf16", True)


def test_what_is_within_the_noise_is_an_equals_sign_and_what_failed_has_no_number():
    result = Result(climbed())
    assert result.noise == pytest.approx(0.02) and result.failed == {"broken": "other losses"}
    rows = {line[:15].strip(): line.split() for line in as_text(result).splitlines() if line.endswith(("pass", "fail"))}
    assert rows["R0 again"][6:8] == ["=", "="] and rows["logit table"][-4:] == ["3.00", "1.50", "2.93", "pass"]
    assert rows["broken"][1:] == ["fp32", "FAIL", "fail"] and "no GPU" in as_text(result)
    content = as_json([result], {})
    assert content["rungs"][-1] == {
        **dict.fromkeys(KEYS), "pair": ":".join(PAIR), "method": "KD", "rung": "broken", "device": "cpu", "gate": "fail"
    }  # fmt: skip
    assert [(row["rung"], row["one_run"]) for row in content["charged"]] == [("logit table", pytest.approx(1.5))]


def test_rounds_go_forwards_and_backwards():
    assert [*in_rounds(["a", "b"], 3)] == [["a", "b"], ["b", "a"], ["a", "b"]]
    assert noise((100.0, 100.0, 100.0), (101.0, 103.0, 150.0)) == pytest.approx(0.03)


def test_each_rung_changes_the_one_before_it():
    rungs = {rung.name: rung for rung in ladder("tf32", None, 4, Obstacles(), "mdistiller 0123456")}
    for rung in rungs.values():
        before = rungs.get(rung.before)
        assert before or rung.name == "R0"
    assert rungs["CUDA graph"].before == "engine" and rungs["logit table"].before == "CUDA graph"
    assert rungs["logit table, bf16, 4 processes"].before == "logit table, bf16"
    cpu = {rung.name: rung for rung in ladder("fp32", 2, 2, Obstacles(graph="no GPU", table="features"))}
    assert (cpu["engine, 2 processes"].threads, cpu["engine, 2 processes"].processes) == (1, 2)
    assert {name for name, rung in cpu.items() if rung.obstacle == "features"} == {n for n in cpu if "table" in n}


def test_several_processes_share_a_gpu_only_under_mps(tmp_path, monkeypatch):
    specification, gpu = experiment.specification(PAIR, "KD", "fp32", 1), torch.device("cuda")
    monkeypatch.setattr(obstacles, "require_precision", lambda *_: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = obstacles.obstacles(specification, gpu)
    assert found.processes.startswith("no MPS daemon answers (nvidia-cuda-mps-control: ") and not found.graph
    (tmp_path / "nvidia-cuda-mps-control").write_text("#!/bin/sh\necho 100.0\n")
    (tmp_path / "nvidia-cuda-mps-control").chmod(0o755)
    assert obstacles.obstacles(specification, gpu) == Obstacles()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--pairs", "resnet56"], "--pairs: 'resnet56' is not TEACHER:STUDENT"),
        (["--pairs", "resnet56:resnet21"], "--pairs: unknown network 'resnet21'; did you mean"),
        (["--methods", "KDD"], "--methods: unknown method 'KDD'"),
        (["--methods", "KD,"], "--methods: 'KD,': a name is empty"),
        (["--methods", "KD+GDK"], "--methods: unknown part of KD+GDK 'GDK'; did you mean GKD?"),
        (["--methods", "NONE"], "--methods: NONE has no teacher"),
        (["--device", "cuda:99"], "--device cuda:99: not usable here"),
        (["--data", "data"], "data: holds no whole CIFAR-100"),
        (["--upstream", "data"], "--upstream data: not a checkout of mdistiller"),
        (["--json", "data/other.json"], "data/other.json: is not a benchmark's; nothing is overwritten"),
        (["--rounds", "0"], "invalid value for '--rounds'"),
    ],
)
def test_what_cannot_be_timed_is_one_line(small, tmp_path, monkeypatch, capsys, words, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "other.json").write_text("{}")
    assert main(["bench", "--quick", "--device", "cpu", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"distillbench: {problem}") and line.count("\n") == 1
    assert (tmp_path / "data" / "other.json").read_text() == "{}"


def test_a_checkout_with_changes_is_not_upstream(tmp_path, capsys):
    (tmp_path / "mdistiller" / "distillers").mkdir(parents=True)
    file = tmp_path / "mdistiller" / "distillers" / "KD.py"
    for content in ("", "changed"):
        assert main(["bench", "--upstream", str(tmp_path), "--pairs", "no pair"]) == 2
        file.write_text(content)
        subprocess.run(["git", "-C", tmp_path, "init", "-q"], check=True)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(["git", "-C", tmp_path, *who, "commit", "-qm", "one"], check=True)
    file.write_text("changed again")
    assert main(["bench", "--upstream", str(tmp_path), "--device", "cpu"]) == 2
    assert "changed since its commit (mdistiller/distillers/KD.py)" in capsys.readouterr().err
