"""A method in a file of the user's own: the tutorial's commands, and what goes wrong with such files."""

import json
import re
import shutil
import sys
from contextlib import nullcontext

import pytest
from project import new_project, succeeded
from standins import ROOT

from distillbench.checks import method as contract
from distillbench.commands import main
from distillbench.config import components, own_files
from distillbench.config.implemented import require_trainable
from distillbench.config.suite import load_suite
from distillbench.engine.weights import deployed_network
from distillbench.errors import UserError
from distillbench.methods import method_class
from distillbench.models import build_network

TUTORIAL = (ROOT / "docs" / "own-method.md").read_text()
PYTHON, CHECK, SUITE, RUN = re.findall(r"```\w+\n(.*?)```", TUTORIAL, re.DOTALL)
FILE = "my_methods/softkd.py"


@pytest.fixture(autouse=True)
def no_own_methods_afterwards():
    yield
    own_files.use([])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The tutorial's files in an otherwise empty project, which is the working directory."""
    for path, text in ((FILE, PYTHON), ("params/mine.yaml", SUITE)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(folder, old, new):
    text = (folder / FILE).read_text()
    assert text.count(old) == 1
    (folder / FILE).write_text(text.replace(old, new))


def runs_of(row):
    return {c.specification.id for c in load_suite("mine").cells if c.row == row}


def test_the_tutorial_does_what_it_says(tmp_path):
    project = new_project(tmp_path / "project")
    for path, text in ((FILE, PYTHON), ("params/mine.yaml", SUITE)):
        (project.path / path).parent.mkdir(exist_ok=True)
        (project.path / path).write_text(text)
    assert "keeps every rule" in succeeded(project.call(sys.executable, "-m", *CHECK.split()))
    plan, snakemake, tables = (line.split() for line in RUN.strip().splitlines())
    assert "7 to train" in succeeded(project.call(sys.executable, "-m", *plan))
    succeeded(project.call(sys.executable, "-m", *snakemake))
    table = succeeded(project.call(sys.executable, "-m", *tables))
    assert re.search(r"^\| SoftKD +\| .* \(2/2\) .* vs KD", table, re.MULTILINE)
    assert re.search(r"^\| SoftKD\+GKD +\| .* \(2/2\) .* vs SoftKD", table, re.MULTILINE)
    records = [json.loads(path.read_text())["source"] for path in project.path.glob("results/runs/**/record.json")]
    assert [source["method_source"] for source in records if source["row"] == "SoftKD"] == [PYTHON, PYTHON]

    edited(project.path, "return (right * each).mean()", "return (right * each).sum() / right.sum().clamp(min=1)")
    plan_again = succeeded(project.call(sys.executable, "-m", *plan))
    assert plan_again.count("code changed since s") == 4 and "4 to train" in plan_again
    assert len(project.plan("suite=mine")["run"]) == 4
    (project.path / FILE).write_text(PYTHON)
    assert not {"train", "run"} & set(project.plan("suite=mine"))


def test_only_what_the_code_does_is_in_the_digest(own):
    before = runs_of("SoftKD")
    edited(own, '"""SoftKD: KD that leaves', '"""Another docstring that leaves')
    edited(own, "        right = ", "        # a comment\n\n        right = ")
    edited(own, "    version = 1\n", '    version = 1\n    bibtex = """@misc{me, title = {Mine}}"""\n')
    assert runs_of("SoftKD") == before
    edited(own, "* temperature**2", "* temperature**3")
    assert not runs_of("SoftKD") & before
    assert not runs_of("SoftKD+GKD") & runs_of("SoftKD")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"TEMPERATURE": Key(4.0,', '"TEMPERATURE": Key(5.0,'),
        ("right = (logits_teacher", "wrong = (logits_teacher"),
        ("power=2", "power=3"),
        ("dim=1)\n        soft =", "dim=True)\n        soft ="),
    ],
    ids=["a key's default", "a name", "a function's default", "a value's type"],
)
def test_every_change_of_what_is_computed_changes_the_digest(own, old, new):
    edited(own, "logits_teacher, target):", "logits_teacher, target, power=2):")
    before = own_files.read(FILE)["sha256"]
    edited(own, old, new)
    assert own_files.read(FILE)["sha256"] != before


def test_only_the_reference_itself_is_left_out_of_the_digest(own):
    edited(own, "        right = ", "        bibtex = 1\n        right = bibtex * ")
    before = runs_of("SoftKD")
    edited(own, "bibtex = 1", "bibtex = 2")
    assert not runs_of("SoftKD") & before


def test_a_file_that_moved_is_found_where_it_is_now(own):
    assert main(["plan", "mine"]) == 0
    before = runs_of("SoftKD")
    (own / FILE).rename(own / "elsewhere.py")
    (own / "params/mine.yaml").write_text(SUITE.replace(FILE, "elsewhere.py"))
    assert main(["plan", "mine"]) == 0 and runs_of("SoftKD") == before
    for run in before:
        assert json.loads((own / f"results/specs/{run}.json").read_text())["source"]["method_file"] == "elsewhere.py"


def test_a_logit_method_with_other_losses_observes_nothing(own, capsys):
    edited(
        own,
        "    def distillation_loss",
        "    def losses(self, student, teacher, batch, schedule):\n"
        '        own = {"ce": F.cross_entropy(student.logits, batch.target)}\n'
        '        return own | {"soft": self.distillation_loss(student.logits, teacher.logits, batch.target)}\n\n'
        "    def distillation_loss",
    )
    own_files.use([FILE])
    for rule in contract.RULES:
        rule({"DISTILLER.TYPE": "SoftKD"})


def test_a_file_that_no_row_uses_is_noted(own, capsys):
    (own / "params/mine.yaml").write_text("\n".join(line for line in SUITE.splitlines() if "  SoftKD" not in line))
    assert main(["plan", "mine"]) == 0
    assert f"note: params/mine.yaml: method_files: {FILE}: no row is of type SoftKD" in capsys.readouterr().out


def test_an_edit_changes_no_run_of_another_method(own):
    before = runs_of("KD")
    edited(own, "* temperature**2", "* temperature**3")
    assert runs_of("KD") == before


def test_a_run_that_was_planned_before_an_edit_is_not_trained_with_the_edited_file(own, capsys):
    assert main(["plan", "mine"]) == 0
    suite = load_suite("mine")
    run = next(c.specification.id for c in suite.cells if c.row == "SoftKD")
    teacher = next(c.specification.id for c in suite.cells if c.role == "teacher")
    assert main(["data", "digits"]) == 0
    for name in (teacher, run):
        if name == run:
            edited(own, "* temperature**2", "* temperature**3")
        capsys.readouterr()
        code = main(["train", "--spec", f"results/specs/{name}.json", "--out", f"results/runs/{name}"])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 1 and FILE in lines[0] and "plan the suite again" in lines[0]
    assert not (own / "results/runs" / run).exists()


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('name = "SoftKD"', 'name = "KD"', "the name KD is taken"),
        ('name = "SoftKD"', 'name = "SOLVER"', "the name SOLVER is taken"),
        ('name = "SoftKD"', 'name = "Soft KD"', "letters, digits and _"),
        ('name = "SoftKD"', "title = 1", "declares no method"),
        ('teacher = "logits"', 'teacher = str("logits")', "teacher must be a literal"),
        ('teacher = "logits"', 'teacher: str = str("logits")', "teacher must be a literal"),
        ('teacher = "logits"', 'teacher = "all"', "teacher must be none, logits or network"),
        ('teacher = "logits"', 'needs = tuple(["teacher_logits"])', "needs must be a literal"),
        ('teacher = "logits"', 'needs = "teacher_logits"', "needs must be one of"),
        ('teacher = "logits"', 'needs = ("teacher",)', "needs must be one of"),
        ("version = 1", 'version = 1\n    needs = ("teacher_logits",)', "needs says what teacher says, too; remove it"),
        ("version = 1", "version = 1\n    capturable = 0", "capturable must be True or False"),
        ("version = 1", 'version = 1\n    node = "SOLVER.MINE"', "the node SOLVER.MINE is taken"),
        ("version = 1", 'version = 1\n    node = "GKD"', "the node GKD is taken"),
        ("version = 1", 'version = 1\n    node = "KD"', "methods/kd.py; write the same Key(...) in both"),
        ('temperature = "TEMPERATURE"', 'temperature = "T"', "temperature must be the name of one of its keys"),
        ("version = 1", "version = {1}", "version must be a positive integer"),
        ("version = 1", 'version = 1\n    views = "2"', "views must be a positive integer"),
        ("version = 1", "version = 1\n    bibtex = 3", "bibtex must be a text"),
        ('Key(1.0, "weight of the cross entropy", minimum=0)', "1.0", "keys must be a mapping"),
        ('Key(1.0, "weight of the cross entropy", minimum=0)', 'Key({1}, "")', "key CE_WEIGHT: the default must be"),
        ("Key(1.0,", "Key(-1.0,", "key CE_WEIGHT: the default: -1.0 is out of range"),
        ('"CE_WEIGHT": Key', '"WARMUP.X": Key', "no node of another key"),
        ("above=0", "abov=0", "Key(...)"),
        ("class SoftKD(LogitMethod):", "class SoftKD(LogitMethod:", "line 9"),
    ],
)
def test_a_file_that_declares_badly_is_one_line(own, capsys, old, new, says):
    edited(own, old, new)
    for command in (["plan", "mine"], ["check", FILE]):
        assert main(command) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and FILE in lines[0] and says in lines[0]


def test_a_declaration_outside_a_class_is_one_line(own, capsys):
    (own / FILE).write_text('name = "SoftKD"\nversion = 1\n')
    assert main(["check", FILE]) == 2
    assert "declares no method" in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["teacher: str = 'logits'", "needs = ('teacher_logits',)"])
def test_what_is_needed_of_the_teacher_is_read_in_both_spellings(own, spelling):
    edited(own, 'teacher = "logits"', spelling)
    own_files.use([FILE])
    assert method_class("SoftKD").teacher == components.methods()["SoftKD"]["teacher"] == "logits"


def test_a_method_reads_the_keys_of_another_with_those_of_its_own(own):
    """A row of it is planned with the node's keys, and its specification, taken back to keys, is trained."""
    key = 'Key(4.0, "softens both distributions", above=0, gkd=1.0)'
    edited(own, 'Key(4.0, "softens both distributions", above=0)', key)
    edited(own, "version = 1", 'version = 1\n    node = "KD"')
    edited(own, '"WARMUP": Key(0, "epochs over which the distillation loss grows; 0: none", minimum=0),', "")
    suite = SUITE.replace("{DISTILLER.TYPE: SoftKD,", "{DISTILLER.TYPE: SoftKD, KD: {TEMPERATURE: 3, CE_WEIGHT: 2},")
    (own / "params/mine.yaml").write_text(suite)
    (cell, *_) = (cell for cell in load_suite("mine").cells if cell.row == "SoftKD")
    assert cell.specification["method"]["parameters"] == {"TEMPERATURE": 3.0, "CE_WEIGHT": 2.0}
    require_trainable(cell.specification)


def test_a_missing_file_is_one_line(own, capsys):
    (own / FILE).unlink()
    assert main(["plan", "mine"]) == 2
    assert f"params/mine.yaml: method_files: {FILE}: no such file" in capsys.readouterr().err


def test_a_file_is_not_executed_for_planning(own):
    edited(own, "import torch.nn.functional as F", "import torch.nn.functional as F\n\nraise SystemExit(7)")
    assert main(["plan", "mine"]) == 0


@pytest.mark.parametrize(
    "old, new, rule, says",
    [
        ("return (right * each).mean()", "return right * each", contract.gives_finite_losses, "0-d tensor"),
        ("return (right * each).mean()", "return each.mean().detach()", contract.gives_finite_losses, "a gradient"),
        ("(right * each).mean()", "(right * each).mean() + (each - each).mean().sqrt()", contract.gives_finite_losses,
         "the gradient of student.*not finite"),
        ("(right * each).mean()", "each.mean() if right.sum() else each.sum()", contract.waits_for_no_device, "item"),
        ("(right * each).mean()", "F.dropout(each).mean()", contract.is_a_function_of_the_seed, "one seed differ"),
        ("(right * each).mean()", "1e6 * each.mean()", contract.learns, "signs and weights"),
        ("        temperature = ", "        self.n = 1 + getattr(self, 'n', 0)\n        temperature = self.n * ",
         contract.resumes, "keep what changes in buffers"),
    ],
    ids=["not a mean", "no gradient", "infinite gradient", "read back", "random", "diverges", "state not saved"],
)  # fmt: skip
def test_the_contract_names_what_is_broken(own, old, new, rule, says):
    edited(own, old, new)
    own_files.use([FILE])
    with pytest.raises(contract.Broken, match=says):
        rule({"DISTILLER.TYPE": "SoftKD"})


DEPLOYED = """
    def deployed(self, student):
        class Louder(torch.nn.Module):
            def forward(self, images):
                logits, features = self.student(images)
                return self.factor * logits, features

        louder = Louder()
        louder.student, louder.factor = student, FACTOR
        return louder

    def distillation_loss"""


@pytest.mark.parametrize("factor, right", [("1.0", True), ("float(torch.randint(2**20, ()))", False)])
def test_a_network_that_loads_as_another_one_is_noticed(own, factor, right):
    edited(own, "    def distillation_loss", DEPLOYED.replace("FACTOR", factor).removeprefix("\n"))
    edited(own, "import torch.nn.functional as F", "import torch\nimport torch.nn.functional as F")
    own_files.use([FILE])
    with nullcontext() if right else pytest.raises(contract.Broken, match="its logits differ"):
        contract.leaves_what_can_be_loaded({"DISTILLER.TYPE": "SoftKD"})


LOSSES_ALONE = """    def losses(self, *arguments):
        return {}

    def distillation_loss"""


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("    def distillation_loss", "    def forward(self, x):\n        return x\n\n    def distillation_loss",
         "SoftKD.forward is called with (self, student, teacher, batch, schedule); give yours another name"),
        ("(LogitMethod)", "(Method)", "SoftKD has a temperature and is no LogitMethod"),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_call_is_one_line(own, capsys, old, new, says):
    edited(own, old, new)
    edited(own, "import LogitMethod", "import LogitMethod, Method")
    if "(Method)" in new:
        edited(own, "    def distillation_loss", LOSSES_ALONE)
    code = main(["check", FILE])
    out, err = capsys.readouterr()
    assert says in out + err and code in (1, 2) and "Traceback" not in out + err


def test_a_student_is_loaded_also_where_its_method_cannot_be_imported_any_more(own):
    edited(own, "import torch.nn.functional as F", "import not_here\nimport torch.nn.functional as F")
    specification = next(c.specification for c in load_suite("mine").cells if c.row == "SoftKD")
    assert deployed_network(specification).state_dict().keys() == build_network("resnet8", "digits").state_dict().keys()


STEPS = {  # of a method that cannot be replayed
    "a number of Python": """
        self.steps = getattr(self, "steps", 0) + 1
        return (right * each).mean() / self.steps""",
    "a tensor that is replaced": """
        self.mean = 0.9 * getattr(self, "mean", each.detach().mean()) + 0.1 * each.detach().mean()
        return (right * each).mean() * (1 + self.mean)""",
    "a branch on data": """
        return (right * each).mean() * (2 if target[0].item() % 2 else 1)""",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_cannot_be_replayed_is_noticed_unless_the_method_says_so(own, step):
    edited(own, "        return (right * each).mean()", STEPS[step].lstrip("\n"))
    own_files.use([FILE])
    with pytest.raises(contract.Broken, match=r"write to buffers in place.*or declare `capturable = False`"):
        contract.can_be_replayed({"DISTILLER.TYPE": "SoftKD"})
    edited(own, "    version = 1\n", "    version = 1\n    capturable = False\n")
    own_files.use([FILE])
    contract.can_be_replayed({"DISTILLER.TYPE": "SoftKD"})


def with_method(own, function):
    edited(own, "    def distillation_loss", f"    def {function}\n\n    def distillation_loss")


LOSSES = "losses(self, student, teacher, batch, schedule):\n        return {}"
OBSERVATIONS = "observations(self, student, teacher, batch, losses):\n        return {}"


@pytest.mark.parametrize(
    "function, says",
    [
        (OBSERVATIONS.format('{"loss_extra": losses["ce"]}'), "SoftKD: an observation is called loss_extra"),
        (OBSERVATIONS.format('{"loss": losses["ce"]}'), "SoftKD: an observation is called loss"),
        (OBSERVATIONS.format('{"each": batch.target.double()}'), "SoftKD: the observation each has"),
        (OBSERVATIONS.format('{"wide": batch.target[:, None]}'), "SoftKD: the observation 'wide' must be"),
        (OBSERVATIONS.format('{"a\\nb": losses["ce"]}'), "SoftKD: the observation 'a\\nb' must be"),
        (LOSSES.format('{"": student.logits.mean()}'), "SoftKD: the loss '' must be"),
        (LOSSES.format('{"a\\tb": student.logits.mean()}'), "SoftKD: the loss 'a\\tb' must be"),
        ('schedule(self, epoch):\n        return {"warmup": 1.0, "late": 1.0} if epoch > 50 else {"warmup": 1.0}',
         "SoftKD: schedule(1000000) gives warmup, late"),
    ],
    ids=["of the losses", "the sum's", "of each sample", "two dimensions", "line break", "no name", "tab", "schedule"],
)  # fmt: skip
def test_the_contract_notices_numbers_that_history_could_not_hold(own, function, says):
    with_method(own, function)
    own_files.use([FILE])
    with pytest.raises(UserError, match=re.escape(says)):
        contract.names_its_numbers({"DISTILLER.TYPE": "SoftKD"})


def test_check_reports_a_name_that_is_taken_as_broken(own, capsys):
    with_method(own, OBSERVATIONS.format('{"loss_extra": losses["ce"]}'))
    assert main(["check", FILE]) == 1
    out, err = capsys.readouterr()
    assert "BROKEN  SoftKD: losses and observations have columns" in out and err == ""
    assert "an observation is called loss_extra" in out and f"{FILE}: SoftKD breaks" in out


def test_check_reports_an_error_in_the_method_as_broken(own, capsys):
    edited(own, "return (right * each).mean()", "return undefined")
    assert main(["check", FILE]) == 1
    assert "BROKEN  SoftKD+GKD: " in (out := capsys.readouterr().out) and "NameError" in out and "breaks" in out


def test_an_inherited_declaration_is_refused(own, capsys):
    edited(own, '    teacher = "logits"\n', "")
    edited(
        own,
        "class SoftKD(LogitMethod):",
        'class Base(LogitMethod):\n    teacher = "logits"\n\n\nclass SoftKD(Base):',
    )
    assert main(["check", FILE]) == 2
    assert "inherits or computes its teacher" in capsys.readouterr().err


def test_the_digest_is_the_same_on_every_python():
    """Of a file with decorators, f-strings, type parameters' absence and annotations: an old and a new syntax tree."""
    import ast

    text = (
        "class A:\n    'doc'\n    x: int = 1\n\n    @property\n    def f(self, *, y=2.0):\n        return f'{y!r:>4}'\n"
    )
    expected = own_files.source_digest(ast.parse(text))
    newer = ast.parse(text)
    for node in ast.walk(newer):  # Python 3.12 added an empty field to these
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            node.type_params = []
            node._fields = (*[f for f in node._fields if f != "type_params"], "type_params")
    assert own_files.source_digest(newer) == expected
    assert expected == "1221079c4768893afb7e9e18f9aea6209f55067ae7ffced0cb78b358e187ce29"


def test_packaged_methods_have_no_digest_of_their_source(own):
    assert all("sha256" not in declared for declared in components.packaged_methods().values())
    with pytest.raises(UserError, match="declares no method"):
        own_files.read(shutil.copy(ROOT / "src/distillbench/methods/base.py", own / "base.py"))
