"""A published YAML, named by a row, is trained as its repository does; what could be meant otherwise is said.

Keys and numbers of files of github.com/megvii-research/mdistiller (a08d46f) and github.com/snw2021/GKD (97b4d08).
"""

import pytest
import yaml

from distillbench.commands import main
from distillbench.config.suite import load_suite

SGD = "LR_DECAY_RATE: 0.1, MOMENTUM: 0.9, TYPE: SGD"
CIFAR = "SOLVER: {BATCH_SIZE: 64, EPOCHS: 240, LR: 0.05, LR_DECAY_STAGES: [150, 180, 210], WEIGHT_DECAY: 0.0005, " + SGD
IMAGENET = "SOLVER: {BATCH_SIZE: 256, EPOCHS: 100, LR: 0.1, LR_DECAY_STAGES: [30, 60, 90], WEIGHT_DECAY: 0.0001, " + SGD
SAME = 'TEACHER: "resnet32x4", STUDENT: "resnet8x4"'
FILES = {
    "ofd.yaml": f'EXPERIMENT: {{NAME: "", TAG: "ofd,res32x4,res8x4", PROJECT: "cifar100_baselines"}}\n'
    f'DISTILLER: {{TYPE: "OFD", {SAME}}}\n{CIFAR}}}\n',
    "kd.yaml": f'DISTILLER: {{TYPE: "KD", {SAME}}}\n{CIFAR}}}\n',
    "crd.yaml": f'DISTILLER: {{TYPE: "CRD", {SAME}}}\n{CIFAR}, TRAINER: "crd"}}\n',
    "dot_gkd.yaml": 'DISTILLER: {TYPE: "GradientKD", TEACHER: "vgg13", STUDENT: "vgg8"}\n'
    f'{CIFAR}, TRAINER: "dot", DOT: {{DELTA: 0.075}}}}\n',
    "reviewkd.yaml": 'DATASET: {TYPE: "imagenet", NUM_WORKERS: 32, TEST: {BATCH_SIZE: 128}}\n'
    'DISTILLER: {TYPE: "REVIEWKD", TEACHER: "ResNet34", STUDENT: "ResNet18"}\n'
    f"{IMAGENET}}}\n"
    "LOG: {TENSORBOARD_FREQ: 50, SAVE_CHECKPOINT_FREQ: 10}\n"
    "REVIEWKD: {CE_WEIGHT: 1.0, REVIEWKD_WEIGHT: 1.0, WARMUP_EPOCHS: 1, SHAPES: [1,7,14,28,56],\n"
    "  OUT_SHAPES: [1,7,14,28,56], IN_CHANNELS: [64,128,256,512,512], OUT_CHANNELS: [64,128,256,512,512],\n"
    "  STU_PREACT: True}\n",
    "paper.yaml": f'DISTILLER: {{TYPE: "OFD", {SAME}}}\nOFD: {{OFFICIAL: paper}}\n',
    "empty.yaml": "{}\n",
    "misspelt.yaml": 'DISTILLER: {TYPE: "KD"}\nSOLVER: {EPOCH: 240}\n',
    "fork.yaml": 'EXPERIMENT: {LOGIT_STAND: True}\nDISTILLER: {TYPE: "KD"}\n',
    "trainers.yaml": 'DISTILLER: {TYPE: "KD"}\nSOLVER: {TRAINER: [crd]}\n',
    "doubled.yaml": 'DISTILLER: {TYPE: "KD"}\nDISTILLER: {TYPE: "AT"}\n',
}
PAIR = {"teacher": "resnet32x4", "student": "resnet8x4"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project(rows, section=...) writes a suite beside the published files and returns the working folder."""
    (tmp_path / "configs").mkdir()
    for name, text in FILES.items():
        (tmp_path / "configs" / name).write_text(text)
    monkeypatch.chdir(tmp_path)

    def write(rows, **sections):
        content = {"dataset": "cifar100", "seeds": [0], "pairs": [PAIR], "methods": rows, **sections}
        (tmp_path / "params").mkdir(exist_ok=True)
        (tmp_path / "params/it.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return tmp_path

    return write


def cells(folder):
    """{row: `Cell`} of a suite's students."""
    return {cell.row: cell for cell in load_suite("it", folder).cells if cell.role != "teacher"}


def test_a_file_is_what_its_keys_are_in_a_row(project):
    """And the method is that of mdistiller's code; what the row says beats both."""
    solver = {"LR_DECAY_STAGES": [150, 180, 210], "WEIGHT_DECAY": 5e-4}
    written = {"DISTILLER.TYPE": "OFD", "SOLVER": solver}
    rows = {
        "published": {"published": "configs/ofd.yaml"},
        "written": {**written, "OFD.OFFICIAL": "mdistiller"},
        "paper": {"published": "configs/ofd.yaml", "OFD.OFFICIAL": "paper"},
        "written paper": written,
        "shorter": {"published": "configs/ofd.yaml", "SOLVER.EPOCHS": 100},
        "DOT": {"published": "configs/dot_gkd.yaml"},
        "CRD": {"published": "configs/crd.yaml"},
    }
    found = {row: cell.specification for row, cell in cells(project(rows)).items()}
    assert found["published"].id == found["written"].id != found["paper"].id == found["written paper"].id
    assert found["shorter"]["schedule"] == {**found["published"]["schedule"], "EPOCHS": 100}
    assert found["DOT"].method_label == "kd+gkd+dot" and found["DOT"].parameters("method")["WARMUP"] == 20
    assert found["CRD"].method_label == "crd" and found["CRD"].parameters("method")["NCE.K"] == 16384


def test_a_file_beats_base_and_pair(project):
    low = {"SOLVER.EPOCHS": 3, "SOLVER.THREADS": 2, "OFD.OFFICIAL": "paper"}
    rows = {"OFD": {"published": "configs/ofd.yaml"}}
    (cell,) = cells(project(rows, base=low, pairs=[{**PAIR, "SOLVER.LR": 0.01}])).values()
    specification = cell.specification
    assert [specification["schedule"][key] for key in ("EPOCHS", "LR")] == [240, 0.05]
    assert specification["threads"] == 2 and specification.parameters("method")["OFFICIAL"] == "mdistiller"


def test_a_row_has_the_file_of_the_row_that_it_is_like(project):
    """Unless it names one; and every key that either writes beats the file."""
    rows = {
        "OFD": {"published": "configs/ofd.yaml", "SOLVER.LR": 0.02},
        "half": {"like": "OFD", "OFD.LOSS.FEAT_WEIGHT": 5e-4},
        "KD": {"like": "OFD", "published": "configs/kd.yaml", "DEFAULTS": "gkd"},
    }
    found = {row: cell.specification for row, cell in cells(project(rows)).items()}
    assert found["half"].parameters("method") == {
        **found["OFD"].parameters("method"),
        "LOSS.FEAT_WEIGHT": 5e-4,
    }
    assert {specification["schedule"]["LR"] for specification in found.values()} == {0.02}
    assert found["KD"].parameters("method")["TEMPERATURE"] == 1 and found["KD"]["schedule"]["EPOCHS"] == 240


def test_a_file_with_another_optimizer_above_it_gives_what_this_reads(project):
    rows = {"AdamW": {"published": "configs/kd.yaml", "SOLVER": {"TYPE": "AdamW", "LR": 1e-3, "SCHEDULE": "cosine"}}}
    (cell,) = cells(project(rows)).values()
    schedule = cell.specification["schedule"]
    assert schedule["WEIGHT_DECAY"] == 5e-4 and not {"MOMENTUM", "LR_DECAY_STAGES"} & schedule.keys()


def test_keys_that_a_file_has_read_are_swept(project):
    folder = project({"DOT": {"published": "configs/dot_gkd.yaml"}}, sweep={"SOLVER.DOT.DELTA": [0.05, 0.075]})
    assert len(cells(folder)) == 2


def notes(capsys):
    assert main(["plan", "it"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]


def test_the_papers_method_is_named_where_the_code_has_another(project, capsys):
    project({"OFD": {"published": "configs/ofd.yaml"}})
    code = "as the code of configs/ofd.yaml has it (OFD.OFFICIAL: mdistiller)"
    assert notes(capsys) == [f"note: OFD: {code}; the paper's method: OFD.OFFICIAL: paper"]
    project({"OFD": {"published": "configs/ofd.yaml", "OFD.OFFICIAL": "paper"}}, base={"SOLVER.EPOCHS": 5})
    assert notes(capsys) == []
    sweep = {"OFD.OFFICIAL": ["paper", "mdistiller"]}
    project({"OFD": {"published": "configs/ofd.yaml"}}, sweep=sweep, protocol="published")
    assert notes(capsys) == []
    project({"CRD": {"published": "configs/crd.yaml"}})
    assert notes(capsys) == []
    folder = project({"OFD": {"published": "configs/paper.yaml"}})
    assert notes(capsys) == []
    assert cells(folder)["OFD"].specification.parameters("method")["OFFICIAL"] == "paper"


def test_networks_and_data_of_a_file_count_less_than_the_suites(project, capsys):
    other = {"teacher": "vgg13", "student": "vgg8"}
    project({"CRD": {"published": "configs/crd.yaml"}}, pairs=[PAIR, other])
    line = "note: CRD: configs/crd.yaml is for cifar100, resnet32x4, resnet8x4; dataset and pairs of the suite count"
    assert notes(capsys) == [line]
    project({"CRD": {"published": "configs/crd.yaml"}}, dataset="digits")
    assert notes(capsys) == [line]


def test_defaults_that_two_repositories_have_otherwise_are_pointed_out(project, capsys):
    """Whose file it is, it does not say."""
    project({"KD": {"published": "configs/kd.yaml"}})
    open_keys = "KD.TEMPERATURE, KD.LOSS.CE_WEIGHT, KD.LOSS.KD_WEIGHT, KD.WARMUP"
    line = f"note: KD: {open_keys}: mdistiller's defaults; for a file of the GKD repository write DEFAULTS: gkd"
    assert notes(capsys) == [line]
    project({"KD": {"published": "configs/kd.yaml", "DEFAULTS": "gkd"}})
    assert notes(capsys) == []
    project({"GKD": {"published": "configs/dot_gkd.yaml", "control": "OFD"}, "OFD": {"DISTILLER.TYPE": "OFD"}})
    assert not any("DEFAULTS" in note for note in notes(capsys))


def test_shapes_in_a_file_are_read_and_noted(project, capsys):
    pair = {"teacher": "ResNet34", "student": "ResNet18"}
    project({"REVIEWKD": {"published": "configs/reviewkd.yaml"}}, dataset="imagenet", pairs=[pair])
    assert [note.split(" is ")[0] for note in notes(capsys)][:4] == [
        "note: REVIEWKD: REVIEWKD.SHAPES [1, 7, 14, 28, 56]",
        "note: REVIEWKD: REVIEWKD.OUT_SHAPES [1, 7, 14, 28, 56]",
        "note: REVIEWKD: REVIEWKD.IN_CHANNELS [64, 128, 256, 512, 512]",
        "note: REVIEWKD: REVIEWKD.OUT_CHANNELS [64, 128, 256, 512, 512]",
    ]


@pytest.mark.parametrize(
    "file, says",
    [
        ("configs/absent.yaml", "methods.it.published: configs/absent.yaml: no such file"),
        ("configs/misspelt.yaml", "configs/misspelt.yaml: SOLVER.EPOCH: unknown key 'SOLVER.EPOCH'; did you mean"),
        ("configs/fork.yaml", "configs/fork.yaml: EXPERIMENT.LOGIT_STAND: unknown key"),
        ("configs/trainers.yaml", "configs/trainers.yaml: SOLVER.TRAINER: ['crd'] is not valid here, expected base"),
        ("configs/doubled.yaml", "configs/doubled.yaml, line 2: the key 'DISTILLER' stands twice"),
        ("configs/reviewkd.yaml", "configs/reviewkd.yaml is for imagenet, this suite for cifar100; write a file for"),
        ("configs/empty.yaml", "methods.it: DISTILLER.TYPE is missing"),
        (["configs/ofd.yaml"], "['configs/ofd.yaml'] is not valid here, expected a file"),
        ("", "'' is not valid here, expected a file"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(project, capsys, file, says):
    project({"it": {"published": file}})
    assert main(["plan", "it"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: params/it.yaml: methods.it") or "params/it.yaml: methods.it" in err
    assert len(err.splitlines()) == 1 and says in err
