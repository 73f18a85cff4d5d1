"""Whatever drives the steps, and in whatever precision: the run is the same, and its record says what it was."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from standins import TEACHER, learn, learner_of, quiet

from distillbench.commands import main
from distillbench.config.specification import Specification
from distillbench.engine import drivers, run
from distillbench.engine.device import effective_precision, prepare_device, require_precision
from distillbench.engine.drivers import CaptureFailed, Graph, drive
from distillbench.engine.feed import generated_feed
from distillbench.engine.learner import Learner
from distillbench.engine.networks import LiveTeacher, Student
from distillbench.engine.replay import Recording, Replayed, untouched
from distillbench.engine.streams import initialisation
from distillbench.engine.weights import load_tensors
from distillbench.errors import UserError
from distillbench.files import to_json
from distillbench.methods.kd import KD
from distillbench.methods.none import Vanilla
from distillbench.models import build_network
from distillbench.store.tables import replaces_teacher

ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
KD_KEYS = {"DISTILLER.TYPE": "KD", "KD.WARMUP": 3, "GKD": {}}


def teacher_network():
    with initialisation(0, "teacher"):
        return build_network("resnet8", "digits").requires_grad_(False).eval()


def distilling(specify, precision="fp32", **keys):
    """A learner of KD with GKD on 96 generated images."""
    specification = specify(teacher=TEACHER, **{**KD_KEYS, "SOLVER.PRECISION": precision, **keys})
    return learner_of(specification, 96, teacher_network())


class Rehearsed(Replayed):
    name, why = "replayed", "a test"


@pytest.mark.parametrize(
    "more",
    [{}, {"SOLVER.TRAINER": "dot"}, {"SOLVER.MIXUP": 0.4, "SOLVER.LABEL_SMOOTHING": 0.1}],
    ids=["base", "dot", "mixup"],
)
def test_a_run_whose_steps_are_replayed_is_the_run(specify, images, tmp_path, monkeypatch, more):
    """Epochs, a decay of the rate, a warm-up, smaller last batches, observed steps; stopped once and resumed."""
    teacher = specify(seed=7)
    run.train(teacher, images, tmp_path / teacher.id, tmp_path / "w", tmp_path, device="cpu", report=quiet)
    keys = {**KD_KEYS, **more, "SOLVER.EPOCHS": 3}
    specification = specify(teacher={"kind": "run", "id": teacher.id, "checkpoint": "last"}, **keys)

    def trained(name):
        run.train(
            specification, images, tmp_path / name, tmp_path / f"{name}.work", tmp_path, device="cpu", report=quiet
        )
        weights = [(tmp_path / name / file).read_bytes() for file in ("history.csv", "model.last.pt", "model.best.pt")]
        return weights, json.loads((tmp_path / name / "record.json").read_text())["engine"]

    plain, how = trained("eager")
    assert (how["driver"], how["why"]) == ("eager", "the device is the cpu, which has no CUDA graphs")
    replay = Rehearsed.step

    def stopped(driver, size, observing=True):
        driver.steps = getattr(driver, "steps", 0) + 1
        if driver.steps == 5:
            raise KeyboardInterrupt
        replay(driver, size, observing)

    monkeypatch.setattr(run, "drive", lambda learner, *arguments: Rehearsed(learner))
    monkeypatch.setattr(Rehearsed, "step", stopped)
    options = {"device": "cpu", "report": quiet, "save_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        run.train(specification, images, tmp_path / "replayed", tmp_path / "replayed.work", tmp_path, **options)
    assert load_tensors(tmp_path / "replayed.work" / "state.pt")["progress"]["position"] > 0
    monkeypatch.setattr(Rehearsed, "step", replay)
    replayed, how = trained("replayed")
    assert replayed == plain and how["driver"] == "replayed"


def test_a_step_that_is_replayed_counts_what_it_has_and_nothing_else(specify):
    """The step that is recorded comes after others of its epoch, which had other sums."""
    learner = distilling(specify)
    learner.begin(1, 0.05)
    learner.step(16, observing=True)
    replayed = Replayed(learner)
    learner.sums.zero()
    learner.step(16, observing=True)
    replayed.step(16, observing=False)
    learner.begin(2, 0.05)
    replayed.step(16, observing=False)
    assert not any(name.startswith("kd_gradient") for name in learner.sums.totals())


def test_the_driver_is_chosen_by_device_and_method_and_says_why(specify):
    learner = learner_of(specify(), 20)
    assert drive(learner).why == "the device is the cpu, which has no CUDA graphs"
    assert (drive(learner, "eager").name, drive(learner, "eager").why) == ("eager", "asked for")
    with pytest.raises(
        UserError, match=r"^--driver graph: the device is the cpu, which has no CUDA graphs; leave it out"
    ):
        drive(learner, "graph")
    learner.feed.device, learner.method.capturable = torch.device("cuda"), False
    assert (drive(learner).name, drive(learner).why) == ("eager", "NONE declares capturable = False")
    with pytest.raises(UserError, match=r"^--driver graph: NONE declares capturable = False; leave it out"):
        drive(learner, "graph")


@pytest.fixture
def uncapturable(specify, monkeypatch):
    """A learner and a driver whose capture fails, without a device: (learner, driver of `required`, lines)."""
    learner, lines = learner_of(specify(), 20), []
    monkeypatch.setattr(drivers.torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(drivers.torch.cuda, "graph_pool_handle", lambda: None)

    def fail(*arguments):
        raise CaptureFailed("operation not permitted when stream is capturing")

    monkeypatch.setattr(Graph, "_recorded", fail)
    return learner, lambda required: Graph(learner, required, lines.append), lines


def test_a_capture_that_fails_ends_in_eager_steps_and_one_line(specify, uncapturable):
    learner, graph, lines = uncapturable
    driver, plain = graph(required=False), learner_of(specify(), 20)
    for built, step in ((learner, driver), (plain, plain)):
        built.begin(1, 0.05)
        step.step(8)
        step.step(8, observing=False)
    assert all(map(torch.equal, learner.statics(), plain.statics()))
    reason = "operation not permitted when stream is capturing"
    assert lines == [f"the steps are not replayed from a CUDA graph: {reason}"]
    assert (driver.name, driver.why) == ("eager", reason)


def test_a_graph_that_was_asked_for_and_cannot_be_captured_is_one_line(uncapturable):
    learner, graph, lines = uncapturable
    learner.begin(1, 0.05)
    with pytest.raises(UserError, match=r"^--driver graph: operation not permitted .*; leave it out or choose eager$"):
        graph(required=True).step(8)
    assert not lines


class RehearsedGraph:
    capturing = False

    def reset(self):
        self.capturing = False


@pytest.fixture
def capturing(specify, monkeypatch):
    """(learner, its driver, lines, captures): graphs on the CPU, whose captures are recorded and move nothing."""
    learner, lines, captures = distilling(specify), [], []
    stream = SimpleNamespace(wait_stream=lambda other: None)

    @contextlib.contextmanager
    def capture(graph, pool, stream):
        captures.append(graph)
        graph.capturing = True
        try:
            with untouched(learner), Recording() as recording:
                yield
        except RuntimeError:
            raise RuntimeError("a previous error during capture")  # noqa: B904 (as torch's has the first one behind it)
        graph.capturing, graph.replay = False, recording.replay

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RehearsedGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return learner, Graph(learner, False, lines.append), lines, captures


def both(specify, learner, driver):
    """A learner that takes the steps of the driver's eagerly: (statics of both), after two epochs."""
    plain = distilling(specify)
    for built, step in ((learner, driver), (plain, plain)):
        for epoch, lr in ((1, 0.05), (2, 0.01)):
            built.begin(epoch, lr)
            for number, size in enumerate((40, 40, 16)):
                step.step(size, observing=number % 2 == 0)
    assert learner.sums.totals().keys() == plain.sums.totals().keys()
    return learner.statics(), plain.statics()


def test_a_graph_is_captured_once_for_each_kind_of_step_and_warming_up_leaves_no_trace(specify, capturing):
    learner, driver, lines, captures = capturing
    assert all(map(torch.equal, *both(specify, learner, driver)))
    assert (driver.name, lines, len(captures)) == ("graph", [], 3)


def test_a_capture_that_fails_leaves_no_trace_and_says_what_could_not_be_captured(specify, capturing):
    """Here that of the last batch, which is the third, in the last gradient of its step."""
    learner, driver, lines, captures = capturing

    def waiting(gradient):
        if len(captures) == 3 and captures[-1].capturing:
            raise RuntimeError("not permitted when\nstream is capturing")

    learner.student.conv1.weight.register_hook(waiting)
    assert all(map(torch.equal, *both(specify, learner, driver)))
    assert (driver.name, driver.why) == ("eager", "not permitted when stream is capturing")
    assert lines == ["the steps are not replayed from a CUDA graph: not permitted when stream is capturing"]


def test_a_graph_on_a_processor_is_refused_by_the_command_line(specify, images, tmp_path, capsys, monkeypatch):
    from distillbench import data

    monkeypatch.setattr(data, "load", lambda *arguments: images)
    (tmp_path / "spec.json").write_text(to_json(specify().as_file()))
    options = ["--spec", f"{tmp_path}/spec.json", "--out", f"{tmp_path}/out", "--device", "cpu"]
    assert main(["train", *options, "--driver", "graph"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("distillbench: --driver graph: the device is the cpu")
    assert not (tmp_path / "out").exists()


# Precision


def test_bf16_is_for_convolutions_alone(specify):
    learner = distilling(specify, "bf16")
    learner.begin(1, 0.05)
    with untouched(learner):
        learner.step(32)
    with Recording() as recording:
        learner.step(32)
    types = {"convolution": set(), "native_batch_norm": set(), "addmm": set(), "_log_softmax": set()}
    for function, arguments, _, _ in recording.operations:
        name = function._schema.name.removeprefix("aten::")
        if name in types:
            types[name] |= {a.dtype for a in arguments if isinstance(a, torch.Tensor)}
    assert types["addmm"] == types["_log_softmax"] == {torch.float32}
    assert torch.bfloat16 in types["convolution"], "those of the student"
    assert {tensor.dtype for tensor in learner.statics() if tensor.is_floating_point()} == {
        torch.float32,
        torch.float64,
    }
    assert all(stack.dtype == torch.float64 for stack in learner.sums.stacks.values())
    features = learner.callables[0](learner.feed.batch(4))[0].features
    assert features["pooled_feat"].dtype == torch.float32 and set(features) == set(features.features)
    assert {feature.dtype for feature in features["feats"]} == {torch.float32}


def test_a_teacher_of_logits_computes_in_ieee_arithmetic_whatever_its_student_does(specify):
    """As a table has it that may stand in its place; where none may, it computes as the student."""
    logits = {}
    for precision in ("fp32", "tf32", "bf16"):
        learner = distilling(specify, precision)
        logits[precision] = learner.callables[1](learner.feed.batch(32))[0].logits
    assert torch.equal(logits["fp32"], logits["tf32"]) and torch.equal(logits["fp32"], logits["bf16"])
    turned = {"kind": "rotation_flip", "degrees": 20, "interpolation": "nearest", "flip": True}
    specification = specify(teacher=TEACHER, **KD_KEYS)
    assert replaces_teacher(specification)
    many = Specification({**specification.data, "views": {"count": 1, "augmentation": turned}})
    assert not replaces_teacher(many) and not replaces_teacher(specify())


def test_a_teacher_whose_features_are_used_computes_as_its_student(specify):
    network, batch = teacher_network().to(memory_format=torch.channels_last), distilling(specify).feed.batch(32)
    logits = LiveTeacher(network, "fp32", features=True)(batch)[0].logits
    assert not torch.equal(LiveTeacher(network, "bf16", features=True)(batch)[0].logits, logits)
    seen, convolutions = [], torch.backends.cudnn.conv
    network.conv1.register_forward_hook(lambda *arguments: seen.append(convolutions.fp32_precision))
    for teacher in (LiveTeacher(network, "tf32", True), LiveTeacher(network, "fp32", True), Student(network, "tf32")):
        before = convolutions.fp32_precision
        teacher(batch)
        assert convolutions.fp32_precision == before
    assert seen == ["tf32", "ieee", "tf32"]


def test_a_bf16_run_is_evaluated_in_fp32(specify):
    learner, plain = distilling(specify, "bf16"), distilling(specify)
    assert learner.evaluate(learner.feed.split) == plain.evaluate(plain.feed.split)


def test_bf16_is_refused_where_the_processor_has_none(specify, images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(
        UserError, match=r"^SOLVER.PRECISION: bf16: this cpu has no such arithmetic; choose fp32 or tf32$"
    ):
        learn(specify(**{"SOLVER.PRECISION": "bf16"}), images, tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})
    require_precision("bf16", torch.device("cpu"))


def test_tf32_is_fp32_on_a_processor():
    precisions = ("fp64", "fp32", "tf32", "bf16")
    assert [effective_precision(p, torch.device("cpu")) for p in precisions] == ["fp64", "fp32", "fp32", "bf16"]


# Deterministic


@contextlib.contextmanager
def as_before(specification):
    try:
        yield
    finally:
        prepare_device(specification, "cpu")


def test_a_deterministic_run_refuses_operations_that_are_not(specify, images, tmp_path, monkeypatch):
    specification, losses = specify(), Vanilla.losses

    def in_some_order(self, student, *arguments):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))  # which has no deterministic implementation
        return losses(self, student, *arguments)

    with as_before(specification):
        out = learn(specification, images, tmp_path / "well", deterministic=True)
        assert json.loads((out / "record.json").read_text())["engine"]["deterministic"] is True
        monkeypatch.setattr(Vanilla, "losses", in_some_order)
        with pytest.raises(UserError, match=r"^--deterministic: put_.*; leave it out$") as error:
            learn(specification, images, tmp_path / "refused", deterministic=True)
        assert "\n" not in str(error.value)
        learn(specification, images, tmp_path / "free")


# On a device


@ON_CUDA
@pytest.mark.parametrize("trainer", ["base", "dot"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_graph_is_the_eager_step_bit_for_bit(specify, precision, trainer):
    specification = specify(teacher=TEACHER, **{**KD_KEYS, "SOLVER.PRECISION": precision, "SOLVER.TRAINER": trainer})
    statics = []
    with as_before(specification):
        prepare_device(specification, "cuda", deterministic=True)
        for driver in ("eager", "graph"):
            learner = Learner(specification, generated_feed(specification, 96, "cuda"), teacher_network())
            driven = drive(learner, driver)
            for epoch, lr in ((1, 0.05), (2, 0.01)):
                learner.begin(epoch, lr)
                for number, size in enumerate((32, 32, 20)):
                    driven.step(size, observing=number % 2 == 0)
            assert driven.name == driver
            statics.append([tensor.cpu() for tensor in learner.statics()])
    assert all(map(torch.equal, *statics))


@ON_CUDA
def test_a_method_that_waits_for_the_device_runs_eagerly_after_its_capture_fails(specify, monkeypatch):
    loss, lines = KD.distillation_loss, []

    def waiting(self, logits, *arguments):
        return loss(self, logits, *arguments) * (1.0 if logits.sum().item() < 1e9 else 0.0)

    monkeypatch.setattr(KD, "distillation_loss", waiting)
    specification = specify(teacher=TEACHER, **KD_KEYS)
    learner = Learner(specification, generated_feed(specification, 96, "cuda"), teacher_network())
    driven = drive(learner, report=lines.append)
    learner.begin(1, 0.05)
    driven.step(32)
    assert driven.name == "eager" and len(lines) == 1
    assert learner.feed.position.item() == 32 and torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(3, device="cuda")  # the generator is not left in the state of a capture
