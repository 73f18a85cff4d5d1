"""Networks in files of the user's own, and those of torchvision and timm: the tutorial, and what goes wrong."""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
import torch.nn as nn
from project import new_project, succeeded
from standins import ROOT, TEACHER, learner_of, specification_of

from distillbench.checks import network as contract
from distillbench.checks.method import Broken
from distillbench.commands import main
from distillbench.config import components, libraries, own_files
from distillbench.config.implemented import require_trainable
from distillbench.config.specification import RUN_ID
from distillbench.config.suite import load_suite
from distillbench.engine.drivers import drive
from distillbench.engine.networks import Student
from distillbench.engine.replay import Replayed
from distillbench.engine.streams import stream_seed
from distillbench.engine.weights import deployed_network, weights_digest
from distillbench.errors import UserError
from distillbench.methods.base import Output
from distillbench.methods.dry_pass import bn_before_relu, shapes
from distillbench.models import build_network
from distillbench.models.hooked import with_features

TUTORIAL = (ROOT / "docs" / "own-network.md").read_text()
PYTHON, CHECK, SUITE, RUN = re.findall(r"```\w+\n(.*?)```", TUTORIAL, re.DOTALL)
FILE = "my_networks/smallnet.py"
VERSION = "0.29.1"
GOLDEN = {  # of the tutorial's suite with this version of torchvision; those of the students change with its file
    "Teacher": "digits/torchvision.resnet18/none/s1000-302262f1863e",
    "KD": "digits/torchvision.resnet18-smallnet16/kd/s0-5dca3e49908f",
    "AT": "digits/torchvision.resnet18-smallnet16/at/s0-e76fcba965e7",
}


@pytest.fixture(autouse=True)
def no_own_files_afterwards():
    yield
    own_files.use()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The tutorial's files in an otherwise empty project, which is the working directory."""
    for path, text in ((FILE, PYTHON), ("params/mine.yaml", SUITE)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(folder, old, new, file=FILE):
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))


def runs():
    return {cell.specification.id for cell in load_suite("mine").cells}


def one_line(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


# Planning


def test_the_tutorial_does_what_it_says(tmp_path):
    project = new_project(tmp_path / "project")
    for path, text in ((FILE, PYTHON), ("params/mine.yaml", SUITE)):
        (project.path / path).parent.mkdir(exist_ok=True)
        (project.path / path).write_text(text)
    checked = succeeded(project.call(sys.executable, "-m", *CHECK.split()))
    assert "keeps every rule" in checked and "smallnet32 on digits: maps 32@16 32@16 64@8 128@4; pooled 128" in checked
    plan, models, snakemake, tables = (line.split() for line in RUN.strip().splitlines())
    assert "3 to train" in succeeded(project.call(sys.executable, "-m", *plan))
    listed = succeeded(project.call(sys.executable, "-m", *models))
    assert re.search(r"torchvision:resnet18 .* 11\.18 .* 64@8 64@4 128@2 .* 512 .* torchvision \d", listed)
    assert f"| {FILE} " in listed
    succeeded(project.call(sys.executable, "-m", *snakemake))
    table = succeeded(project.call(sys.executable, "-m", *tables))
    assert re.search(r"^\| AT +\| .* \(1/1\) .* vs KD", table, re.MULTILINE)
    records = [json.loads(path.read_text())["source"] for path in project.path.glob("results/runs/**/record.json")]
    assert [source["network_sources"] for source in records if source["row"] != "Teacher"] == [{FILE: PYTHON}] * 2
    edited(project.path, "maps.mean(dim=(2, 3))", "maps.amax(dim=(2, 3))")
    again = succeeded(project.call(sys.executable, "-m", *plan))
    assert again.count("code changed since s") == 2 and "2 to train" in again


def test_ids_are_those_of_every_release(own, monkeypatch):
    monkeypatch.setattr(libraries, "version", lambda library: f"{VERSION}+cpu")  # the build does not count
    suite = load_suite("mine")
    assert {cell.row: cell.specification.id for cell in suite.cells} == GOLDEN
    assert all(re.fullmatch(RUN_ID, run) for run in suite.runs)
    teacher, student = (next(c.specification for c in suite.cells if c.row == row) for row in ("Teacher", "KD"))
    assert teacher["student"] == {"network": "torchvision:resnet18", "version": VERSION, "weights": None}
    assert student.networks == ["smallnet16", "torchvision:resnet18"]
    require_trainable(student)


def test_only_what_the_code_does_is_in_the_digest(own):
    before = runs()
    edited(own, '"""SmallNet: three', '"""Another docstring: three')
    edited(own, "        maps = ", "        # a comment\n\n        maps = ")
    edited(own, "version = 1\n", 'version = 1\nbibtex = """@misc{me, title = {Mine}}"""\n')
    assert runs() == before
    edited(own, "maps.mean(dim=(2, 3))", "maps.amax(dim=(2, 3))")
    assert len(runs() & before) == 1  # the teacher, which is torchvision's


def test_planning_neither_runs_the_file_nor_imports_a_library(own):
    edited(own, "import torch.nn as nn\n", "import torch.nn as nn\n\nraise SystemExit(7)\n")
    code = "from distillbench.config.suite import load_suite; import sys; load_suite('mine')"
    code += "; print({'torch', 'torchvision', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('name = "SmallNet"', "title = 1", "declares no family of networks"),
        ('networks = {"smallnet16"', 'networks = {"resnet8"', "the name resnet8 is taken"),
        ('networks = {"smallnet16"', 'networks = {"RESNET8"', "the name RESNET8 is taken"),
        ('networks = {"smallnet16"', 'networks = {"small.net"', "must be a mapping of networks to arguments"),
        ("networks = {", "networks = {**{}, ", "networks must be a literal"),
        ("version = 1\n", 'version = 1\nstages = "stage1"\n', "stages must be a tuple of names of modules"),
        ("version = 1\n", "version = 1\nhead = 3\n", "head must be the name of a module"),
        ("class SmallNet(nn.Module):", "class SmallNet(nn.Module:", "line 10"),
    ],
)
def test_a_file_that_declares_badly_is_one_line(own, capsys, old, new, says):
    edited(own, old, new)
    assert main(["plan", "mine"]) == 2
    assert FILE in (line := one_line(capsys)) and says in line


def test_two_files_with_a_network_of_one_name_are_one_line(own, capsys):
    (own / "other.py").write_text(PYTHON)
    edited(own, f"[{FILE}]", f"[{FILE}, other.py]", "params/mine.yaml")
    assert main(["plan", "mine"]) == 2
    assert "network_files: other.py: the name smallnet16 is taken" in one_line(capsys)


def test_a_file_that_no_pair_uses_is_noted(own, capsys):
    edited(own, "student: smallnet16", "student: resnet8", "params/mine.yaml")
    assert main(["plan", "mine"]) == 0
    assert f"note: params/mine.yaml: network_files: {FILE}: no pair has a network of it" in capsys.readouterr().out


def test_a_file_that_moved_is_found_where_it_is_now(own):
    assert main(["plan", "mine"]) == 0
    before = runs()
    (own / FILE).rename(own / "elsewhere.py")
    edited(own, FILE, "elsewhere.py", "params/mine.yaml")
    assert main(["plan", "mine"]) == 0 and runs() == before
    sources = [json.loads(path.read_text())["source"] for path in own.glob("results/specs/**/*.json")]
    found = {source["row"]: source.get("network_files") for source in sources}
    assert found == {"Teacher": None, "KD": ["elsewhere.py"], "AT": ["elsewhere.py"]}


@pytest.mark.parametrize(
    "name, says",
    [
        ("torchvision:resnet81", "has no such network; near: torchvision:resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "has no such network"),
        ("torchvisio:resnet18", "did you mean torchvision?"),
        ("smallnet61", "did you mean smallnet16?"),
        ("wrn_16_2x", "did you mean wrn_16_2?"),
    ],
)
def test_a_network_that_is_not_there_is_one_line(own, capsys, name, says):
    edited(own, "torchvision:resnet18", name, "params/mine.yaml")
    assert main(["plan", "mine"]) == 2
    assert "params/mine.yaml: pairs[0].teacher: " in (line := one_line(capsys)) and says in line


def test_a_library_that_is_not_installed_is_one_line(own, capsys, monkeypatch):
    def missing(library):
        raise PackageNotFoundError

    monkeypatch.setattr(libraries, "version", missing)
    edited(own, "torchvision:resnet18", "timm:resnet18", "params/mine.yaml")
    assert main(["plan", "mine"]) == 2
    assert "timm is not installed; `pip install 'distillbench[timm]'`" in one_line(capsys)


@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_the_names_are_those_that_the_library_lists(library):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    listed = module.models.list_models(module=module.models) if library == "torchvision" else module.list_models()
    assert libraries.registered(library) == sorted(listed)


def test_another_version_of_the_library_is_one_line(own, monkeypatch):
    (teacher,) = (c.specification for c in load_suite("mine").cells if c.row == "Teacher")
    monkeypatch.setattr(libraries, "version", lambda library: "0.1")
    with pytest.raises(UserError, match=r"student.version: '[\d.]+' is asked for, this code does '0.1'; plan again"):
        require_trainable(teacher)
    with pytest.raises(UserError, match=r"torchvision:resnet18 is that of version [\d.]+, 0.1 is installed"):
        deployed_network(teacher)


def test_a_file_that_changed_is_neither_trained_nor_taught_by(own, capsys):
    edited(own, '"torchvision:resnet18"', "smallnet32", "params/mine.yaml")
    assert main(["plan", "mine"]) == 0 and main(["data", "digits"]) == 0
    teacher, student = (
        next(c.specification.id for c in load_suite("mine").cells if c.row == row) for row in ("Teacher", "KD")
    )
    assert main(["train", "--spec", f"results/specs/{teacher}.json", "--out", f"results/runs/{teacher}"]) == 0
    edited(own, "maps.mean(dim=(2, 3))", "maps.amax(dim=(2, 3))")
    for command in (
        ["train", "--spec", f"results/specs/{student}.json", "--out", f"results/runs/{student}"],
        ["evaluate", teacher],
    ):
        capsys.readouterr()
        assert main(command) == 2
        assert FILE in (line := one_line(capsys)) and "is not as it was when" in line
    assert not (own / "results/runs" / student).exists()


# Features


def torchvision_resnet18(size=64):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    plain = resnet18(num_classes=10)
    torch.manual_seed(0)
    return plain.double().eval(), with_features(resnet18(num_classes=10).double(), "r", size, 10).eval()


def test_maps_of_a_network_of_torchvision_are_its_stages():
    """Whose ReLUs are in place, and called twice in a block; the network's own numbers and names stay."""
    plain, network = torchvision_resnet18()
    assert weights_digest(network.state_dict()) == weights_digest(plain.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    x, expected = plain.relu(plain.bn1(plain.conv1(images))), []
    stem, x = x, plain.maxpool(x)
    for stage in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
        x = stage[0](x)
        last = stage[1]
        preact = last.bn2(last.conv2(last.relu(last.bn1(last.conv1(x))))) + x
        x = preact.clamp(min=0)
        expected.append((x, preact))
    logits, features = network(images)
    assert torch.equal(logits, plain(images))
    output = Output(logits, features)
    assert torch.equal(output.maps()[0], stem)
    for (map, preact), found, before in zip(expected, output.stages(), output.stages("preact_feats"), strict=True):
        torch.testing.assert_close(found, map)
        torch.testing.assert_close(before, preact)
    torch.testing.assert_close(output.pooled, x.mean(dim=(2, 3)))
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [w.data_ptr() for w, _ in bn_before_relu(network, 64)] == [
        layer[1].bn2.weight.data_ptr() for layer in layers
    ]
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    "name, size, maps",
    [
        ("torchvision:resnet50", 64, "64@32 256@16 512@8 1024@4 2048@2"),
        ("torchvision:densenet121", 32, "64@16 256@8 512@4 1024@2"),
        ("torchvision:shufflenet_v2_x0_5", 64, "24@32 48@8 96@4 1024@2"),
        ("torchvision:regnet_y_400mf", 32, "32@16 48@8 104@4 208@2"),
        ("torchvision:efficientnet_b0", 64, "32@32 16@32 24@16 40@8 112@4 1280@2"),
        ("torchvision:convnext_tiny", 64, "96@16 96@16 192@8 384@4 768@2"),
        ("torchvision:mobilenet_v3_small", 64, "16@32 16@16 24@8 48@4 576@2"),
        ("timm:resnet18", 64, "64@32 64@16 128@8 256@4 512@2"),
        ("timm:efficientnet_b0", 64, "32@32 16@32 24@16 40@8 112@4 1280@2"),
        ("timm:convnext_atto", 64, "40@16 40@16 80@8 160@4 320@2"),
    ],
)
def test_maps_of_other_libraries_are_the_last_of_each_size(name, size, maps):
    library = name.partition(":")[0]
    pytest.importorskip(library, reason=f"{library} is not installed")
    from distillbench.models.libraries import library_network

    output = shapes(with_features(library_network(name, 10), name, size, 10), size)
    assert " ".join(f"{map.shape[1]}@{map.shape[2]}" for map in output.maps()) == maps
    assert output.logits.shape == (2, 10) and output.pooled.dim() == 2


class Net(nn.Module):
    """Two stages behind a stem; what a case needs is in `forward`."""

    def __init__(self, forward=None, relu=None):
        super().__init__()
        self.stem, self.stage1 = self.block(3, 4, 1), self.block(4, 4, 1)
        self.stage2, self.head = self.block(4, 8, 2), nn.Linear(8, 10)
        self.case = forward

    @staticmethod
    def block(channels, out, stride):
        return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))

    def forward(self, images):
        if self.case:
            return self.case(self, images)
        return self.head(self.stage2(self.stage1(self.stem(images))).mean(dim=(2, 3)))


def hooked(forward=None, **named):
    torch.manual_seed(0)
    return with_features(Net(forward).double(), "net", 8, 10, **named)


def sizes(network):
    return [tuple(map.shape[1:3]) for map in shapes(network, 8).maps()]


def functional(self, images):
    x = torch.relu(self.stage1[1](self.stage1[0](self.stem(images))))
    return self.head(self.stage2(x).mean(dim=(2, 3)))


def overwriting(self, images):
    x = self.stage1(self.stem(images))
    y = self.stage2(x)
    x += 1
    return self.head(y.mean(dim=(2, 3))) + x.mean() * 0


def without_head(self, images):
    return self.stage2(self.stage1(self.stem(images))).mean(dim=(2, 3)) @ torch.ones(8, 10).to(images)


def without_maps(self, images):
    return self.head(images[:, :, 0].flatten(1)[:, :8])


def test_stages_that_are_named_are_those_that_a_method_gets():
    assert sizes(hooked()) == [(4, 8), (4, 8), (8, 4)]
    network = hooked(stages=("stage2",), stem="stage1.0", head="head")
    assert sizes(network) == [(4, 8), (8, 4)]
    output = Output(*network(torch.randn(2, 3, 8, 8).double()))
    (_, deepest), (_, before) = output.maps(), output.maps("preact_feats")
    assert torch.equal(deepest, before.relu()) and before.min() < 0


@pytest.mark.parametrize(
    "named, says",
    [
        ({"stages": ("stage3",)}, "net: stages: unknown module 'stage3'; did you mean stage2?"),
        ({"stages": ("head",)}, "net: stages: head gives no map"),
        ({"head": "stem"}, "net: head: stem gives no logits"),
        ({"forward": overwriting, "stages": ("stage1",)}, "net: stages: what stage1 gives is overwritten later"),
        ({"forward": lambda self, images: images.mean()}, "net: gives [] for two images, not logits [2, 10]"),
        ({"forward": lambda self, images: (self.head, 1)}, "net: gives tuple for two images"),
        ({"forward": lambda self, images: (without_maps(self, images), {"feats": []})}, "features without pooled_feat"),
        ({"forward": lambda self, images: images @ images[0, 0, :3, :3]}, "net: cannot take images of 8x8 (Runtime"),
        ({"forward": lambda self, images: nn.functional.dropout(without_maps(self, images), 0.1)},
         "net: draws random numbers in evaluation mode"),
        ({"forward": lambda self, images: (without_maps if self.training else without_head)(self, images)},
         "net: calls other modules in evaluation than in training"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_used_is_one_line(named, says):
    with pytest.raises(UserError, match=re.escape(says)):
        hooked(**named)


@pytest.mark.parametrize(
    "forward, feature, says",
    [
        (functional, "preact_feats", "the ReLU in front of stage2 is no module"),
        (overwriting, "feats", "what stage1.2 gives is overwritten later"),
        (without_head, "pooled_feat", "no linear layer gives its logits"),
        (without_maps, "feats", "it has no maps [N, D, H, W] behind a stem"),
        (without_maps, "preact_feats", "it has no maps [N, D, H, W] behind a stem"),
    ],
)
def test_what_a_network_lacks_is_said_when_it_is_asked_for(forward, feature, says):
    network = hooked(forward)
    for features in (shapes(network, 8).features, network(torch.zeros(2, 3, 8, 8).double())[1]):
        assert feature not in features
        with pytest.raises(UserError, match=re.escape(f"net has no {feature}: {says}")):
            features[feature]


def test_a_map_is_what_goes_into_the_next_stage_also_where_no_module_gives_it():
    network = hooked(functional)
    images = torch.randn(2, 3, 8, 8).double()
    x = torch.relu(network.stage1[1](network.stage1[0](network.stem(images))))
    assert torch.equal(network(images)[1]["feats"][1], x)


def test_a_network_that_draws_in_training_says_so_and_looking_at_it_draws_nothing():
    state = torch.manual_seed(0).get_state()
    Net()
    weights = torch.get_rng_state()
    assert not hooked().draws_in_training
    dropping = hooked(lambda self, images: nn.functional.dropout(without_maps(self, images), 0.1, self.training))
    assert dropping.draws_in_training
    assert torch.equal(torch.get_rng_state(), weights) and not torch.equal(weights, state)


def test_features_of_a_network_of_ones_own_may_be_its_own():
    def published(self, images):
        x = self.stem(images)
        return self.head(self.stage2(x).mean(dim=(2, 3))), {"feats": [x], "preact_feats": [x], "pooled_feat": x}

    network = hooked(published)
    assert type(network) is Net and network(torch.zeros(2, 3, 8, 8).double())[1].keys() == {
        "feats", "preact_feats", "pooled_feat",
    }  # fmt: skip


def student_and_teacher(own, keys, teacher, student="smallnet16"):
    own_files.use(networks=[FILE])
    keys = {"DISTILLER.STUDENT": student, "SOLVER.PRECISION": "fp64", **keys}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = build_network(teacher, "digits").requires_grad_(False).eval()
    learner = learner_of(specification_of(teacher=TEACHER, **keys), 64, teacher)
    learner.begin(1, 0.01)
    return learner


@pytest.mark.parametrize("method", ["KD", "AT", "OFD", "RKD", "REVIEWKD", "CRD"])
def test_steps_of_hooked_networks_can_be_replayed(own, method):
    plain, replayed = (student_and_teacher(own, {"DISTILLER.TYPE": method}, "smallnet32") for _ in range(2))
    for step in (plain.step, Replayed(replayed).step):
        for _ in range(3):
            step(16)
    assert all(map(torch.equal, plain.statics(), replayed.statics()))


PATCHES = PYTHON.replace(
    "        maps = self.stage3(self.stage2(self.stage1(self.stem(images))))\n"
    "        return self.classifier(maps.mean(dim=(2, 3)))",
    "        return self.classifier(images.flatten(1)[:, : self.classifier.in_features])",
)


@pytest.mark.parametrize(
    "method, says",
    [
        ("AT", "smallnet32 has no feats: it has no maps"),
        ("NST", "smallnet32 has no feats: it has no maps"),
        ("SP", "smallnet32 has no feats: it has no maps"),
        ("OFD", "smallnet32 has no preact_feats: it has no maps"),
        ("RKD", None),
        ("KD", None),
    ],
)
def test_a_method_that_asks_for_what_a_network_lacks_is_refused_before_the_first_step(own, method, says):
    (own / FILE).write_text(PATCHES)
    if says is None:
        return student_and_teacher(own, {"DISTILLER.TYPE": method}, "smallnet32", "resnet8").step(16)
    with pytest.raises(UserError, match=says):
        student_and_teacher(own, {"DISTILLER.TYPE": method}, "smallnet32", "resnet8")


@pytest.mark.parametrize("method", ["PKT", "RKD"])
def test_a_method_on_pooled_features_is_refused_where_there_are_none(own, method):
    edited(own, "self.classifier(maps.mean(dim=(2, 3)))", "maps.mean(dim=(2, 3)) @ self.classifier.weight.T")
    with pytest.raises(UserError, match="smallnet32 has no pooled_feat: no linear layer gives its logits"):
        student_and_teacher(own, {"DISTILLER.TYPE": method}, "smallnet32", "resnet8")


def test_ofd_is_refused_where_no_batch_normalisation_is_in_front_of_a_relu(own):
    edited(own, "nn.BatchNorm2d(out_channels)", "nn.GroupNorm(1, out_channels)")
    with pytest.raises(UserError, match="OFD: stage 1 of the teacher ends in no batch normalisation"):
        student_and_teacher(own, {"DISTILLER.TYPE": "OFD"}, "smallnet32")


def test_features_in_bf16_are_in_fp32(own):
    own_files.use(networks=[FILE])
    student = Student(build_network("smallnet16", "digits"), "bf16")
    output = student._output(torch.rand(2, 3, 16, 16))
    assert {t.dtype for t in (output.logits, output.pooled, *output.maps())} == {torch.float32}


# Networks that draw random numbers in training


@pytest.fixture
def dropping(own):
    """The tutorial's networks with dropout."""
    edited(own, "return self.classifier(maps", "return self.classifier(self.dropout(maps")
    edited(own, "maps.mean(dim=(2, 3)))", "maps.mean(dim=(2, 3))))")
    edited(own, "        self.classifier = ", "        self.dropout = nn.Dropout(0.5)\n        self.classifier = ")
    own_files.use(networks=[FILE])
    return own


def dropping_learner(masks=None, **keys):
    """One on 64 generated images; masks: gets what the dropout of each micro-batch keeps."""
    learner = learner_of(
        specification_of(**{"DISTILLER.STUDENT": "smallnet16", "SOLVER.PRECISION": "fp64", **keys}), 64
    )
    learner.begin(1, 0.01)
    if masks is not None:
        learner.student.dropout.register_forward_hook(lambda layer, inputs, output: masks.append(output != 0))
    return learner


def test_what_a_network_draws_in_a_step_is_a_function_of_seed_epoch_and_position(dropping):
    """And of nothing outside; nor does anything outside depend on it."""
    masks, again, resumed = [], [], []
    torch.manual_seed(7)
    state = torch.get_rng_state()
    learner = dropping_learner(masks)
    for epoch in (1, 2):
        learner.begin(epoch, 0.01)
        learner.step(16)
        learner.step(16)
    assert torch.equal(torch.get_rng_state(), state)
    features = torch.ones(16, 64, dtype=torch.float64)
    expected = []
    for place in ((1, 0), (1, 16), (2, 0), (2, 16)):
        torch.manual_seed(stream_seed(0, "step", *place))
        expected.append(nn.functional.dropout(features, 0.5) != 0)
    assert all((mask <= kept).all() for mask, kept in zip(masks, expected, strict=True)), "a feature may be 0 itself"
    assert not any(torch.equal(one, other) for one in expected for other in expected if one is not other)
    dropping_learner(again).step(16)
    late = dropping_learner(resumed)
    late.begin(2, 0.01, position=16)
    late.step(16)
    assert torch.equal(again[0], masks[0]) and (resumed[0] <= expected[3]).all() and resumed[0].any()


def test_micro_batches_draw_numbers_of_their_own(dropping):
    masks = []
    dropping_learner(masks, **{"SOLVER.BATCH_SIZE": 32, "SOLVER.BATCH_STATISTICS": 8}).step(32)
    for number, mask in enumerate(masks):
        torch.manual_seed(stream_seed(0, "step", 1, 8 * number))
        assert (mask <= (nn.functional.dropout(torch.ones(8, 64, dtype=torch.float64), 0.5) != 0)).all()
    assert len(masks) == 4 and mask.any()


def test_a_network_that_draws_keeps_every_rule_and_is_trained_eagerly(dropping, capsys):
    assert main(["check", FILE]) == 0
    assert "BROKEN" not in capsys.readouterr().out
    learner = dropping_learner()
    learner.feed.device = torch.device("cuda")
    assert drive(learner).why == "the student draws random numbers in a step (dropout, stochastic depth)"
    with pytest.raises(UserError, match=r"^--driver graph: the student draws random numbers in a step"):
        drive(learner, "graph")


def test_a_teacher_that_draws_in_training_draws_nothing(dropping):
    learner = student_and_teacher(dropping, {"DISTILLER.TYPE": "KD"}, "smallnet32", "resnet8")
    batch = learner.feed.batch(8)
    first, second = (learner.callables[1](batch)[0].logits for _ in range(2))
    assert torch.equal(first, second) and not learner.draws
    learner.step(16)


# The rules


@pytest.mark.parametrize(
    "old, new, rule, says",
    [
        ("self.classifier = ", "self.unused = nn.Linear(2, 2)\n        self.classifier = ",
         contract.every_parameter_has_a_gradient, "unused.weight, unused.bias has none"),
        ("return SmallNet(num_classes, width)",
         "import torch\n    torch.manual_seed(0)\n    return SmallNet(num_classes, width)",
         contract.starts_from_its_seed, "networks of two seeds are the same"),
        ("return SmallNet(num_classes, width)",
         "import torch\n    torch.manual_seed(torch.seed())\n    return SmallNet(num_classes, width)",
         contract.starts_from_its_seed, "two networks of one seed differ"),
        ("        maps = ", "        self.classifier.bias.data += 1\n        maps = ",
         contract.stays_what_it_is_when_looked_at, "a pass in evaluation mode changes it"),
        ("version = 1\n", 'version = 1\nstages = ("stage3", "stage1")\n',
         contract.gives_its_features, "name the stages from the first to the deepest"),
    ],
    ids=["unused", "same weights", "random weights", "moves", "order"],
)  # fmt: skip
def test_the_contract_names_what_is_broken(own, old, new, rule, says):
    edited(own, old, new)
    own_files.use(networks=[FILE])
    with pytest.raises(Broken, match=says):
        rule({"DISTILLER.TYPE": "NONE", "DATASET.TYPE": "digits", "DISTILLER.STUDENT": "smallnet16"})


def test_check_reports_what_is_broken_and_what_is_lacking(own, capsys):
    (own / FILE).write_text(PATCHES)
    assert main(["check", FILE]) == 1
    out = capsys.readouterr().out
    assert "smallnet16 on digits: pooled 64; no feats: it has no maps" in out
    assert "BROKEN  smallnet16: the gradient of the cross entropy reaches every parameter" in out
    assert main(["check", FILE, "--dataset", "cifar100"]) == 1
    assert "smallnet16 on cifar100: pooled 64" in capsys.readouterr().out


def test_own_networks_are_there_for_every_dataset(own):
    own_files.use(networks=[FILE])
    assert all("smallnet16" in components.networks(dataset) for dataset in components.datasets())
