# What the rules share: the suite, and functions from wildcards to files. No rules.
import subprocess
import sys
from pathlib import Path

from distillbench.config.specification import RUN_ID
from distillbench.environment import as_text, name_user
from distillbench.errors import UserError
from distillbench.evaluation import CHECKPOINTS, evaluation_directory
from distillbench.loggers import require_imports
from distillbench.planning import plan_suite
from distillbench.reporting.index import figure_names
from distillbench.store import RUN_FILES, Store
from snakemake.io import _IOFile

name_user()  # Snakemake, DVC and what else jobs start ask for it
STORE = Store()
PACKAGE = Path("src/distillbench")
REPORTING = [str(path) for path in sorted((PACKAGE / "reporting").glob("*")) if path.is_file()]

try:
    for key in config:
        if key not in ("suite", "only"):
            raise UserError(f"--config {key}=...: unknown; valid: suite=NAME, only=ROW")
    SUITE = str(config.get("suite", "demo"))  # Snakemake reads suite=7 as a number
    ONLY = as_text(str(config["only"])) if "only" in config else None
    # Jobs parse this file again, perhaps after an edit of params/: only the main process writes.
    PLAN = plan_suite(SUITE, ONLY, write=workflow.is_main_process)
    if workflow.is_main_process:
        require_imports(PLAN.loggers(*STORE.untrained(PLAN.runs)))
except (UserError, OSError) as error:  # OSError: a full disk, a tree that cannot be written
    print(f"distillbench: {error}", file=sys.stderr)
    sys.exit(2)

SEEDS = sorted({cell.seed for cell in PLAN.cells})


async def never_protected(file):
    """DVC makes what it recorded read-only. Snakemake takes that for outputs marked as protected(), which it refuses to
    make anew, and no option says otherwise. No rule marks any, and every file is replaced, never written into.
    """
    return False


_IOFile.protected = never_protected


wildcard_constraints:
    run=RUN_ID,
    suite="[A-Za-z0-9_-]+",


def evaluation(run, name):
    """The files NAME of a run's evaluations, one a checkpoint."""
    return [str(evaluation_directory(STORE.run(run), c) / name) for c in CHECKPOINTS]


def all_metrics():
    return [path for run in PLAN.runs for path in evaluation(run, "metrics.json")]


def reports():
    """The suite's tables, figures, page and paper folder; a part of a suite (only=) has none."""
    if ONLY:
        return []
    return [
        *table_files(SUITE),
        *figure_files(SUITE),
        f"reports/{SUITE}/index.html",
        f"reports/{SUITE}/paper",
    ]


def collected(suite):
    return [f"results/suites/{suite}/{name}.csv" for name in ("index", "metrics", "costs")]


def table_files(suite):
    return [
        f"reports/{suite}/tables/main.json",
        *(
            f"reports/{suite}/tables/{name}.{ending}"
            for name in ("main", "details")
            for ending in ("csv", "md", "tex")
        ),
    ]


def figure_files(suite):
    """What is drawn follows from the rows. suite: its name, or the wildcard."""
    return [
        f"reports/{suite}/figures/{name}.{ending}" for name in figure_names(PLAN) for ending in ("pdf", "png")
    ]


def present(paths):
    return all(Path(path).exists() for path in paths)


def training_input(wildcards):
    """Nothing for a finished run: then a missing or newer teacher cannot make it train again."""
    directory = STORE.run(wildcards.run)
    if present(directory / name for name in RUN_FILES):
        return []
    specification = STORE.specification(wildcards.run)
    files = [STORE.planned(wildcards.run), f"results/data/{specification['dataset']['name']}.npz"]
    if specification.teacher_id:
        teacher = STORE.run(specification.teacher_id)
        weights = f"model.{specification['teacher']['checkpoint']}.pt"
        files += [teacher / "spec.json", teacher / "record.json", teacher / weights]
    return [ancient(str(file)) for file in files]


def prediction_input(wildcards):
    """Nothing where the predictions are there, so that they serve without checkpoints."""
    if present(evaluation(wildcards.run, "predictions.npz")):
        return []
    directory, dataset = STORE.run(wildcards.run), wildcards.run.partition("/")[0]
    files = [directory / name for name in RUN_FILES]
    return [ancient(str(file)) for file in (*files, f"results/data/{dataset}.npz")]


def metrics_input(wildcards):
    """The predictions, the teacher's too, and the code of the metrics; nothing where only the metrics were pulled."""
    predictions = evaluation(wildcards.run, "predictions.npz")
    teacher = STORE.specification(wildcards.run).teacher_id
    if teacher:
        predictions += evaluation(teacher, "predictions.npz")
    if present(evaluation(wildcards.run, "metrics.json")) and not present(predictions):
        return []
    return [*(ancient(path) for path in predictions), str(PACKAGE / "evaluation/metrics.py")]


def seed_major(wildcards):
    """Priority of a run: every cell has one run before any has two."""
    seed = STORE.specification(wildcards.run)["seed"]
    return len(SEEDS) - SEEDS.index(seed) if seed in SEEDS else 0


def run_threads(wildcards):
    return STORE.specification(wildcards.run)["threads"]


def write_partial_reports():
    """After a failure: tables and page from the runs that are there, with the reason in the cell."""
    folder = f"reports/{SUITE}"
    command = [sys.executable, "-m", "distillbench", "report", SUITE, "--partial", "--out", folder]
    if subprocess.run(command).returncode == 0:
        print(f"partial reports: {folder}/tables/partial-main.md, {folder}/partial.html", file=sys.stderr)
