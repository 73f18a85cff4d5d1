# What the rules share: the suite, and functions from wildcards to files. No rules.
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from distillbench.command_lines import config_texts, handed_on
from distillbench.config.specification import RUN_ID
from distillbench.environment import as_text, name_user
from distillbench.errors import UserError
from distillbench.evaluation import CHECKPOINTS, evaluation_directory
from distillbench.loggers import require_imports
from distillbench.planning import plan_suite
from distillbench.reporting.index import figure_names
from distillbench.store import RUN_FILES, Store, finished
from snakemake.io import _IOFile
from snakemake.persistence import FileBackupMixin

name_user()  # Snakemake, DVC and what else jobs start ask for it
STORE = Store()
PACKAGE = Path("src/distillbench")
REPORTING = [str(p) for p in sorted((PACKAGE / "reporting").rglob("*")) if p.is_file() and p.suffix != ".pyc"]


OF_A_SUITE = r"reports/([\w-]+)/(?:index\.html|(?:tables|figures|paper)\b.*)|results/suites/([\w-]+)/\w+\.csv"


def require_whole_suite(arguments):
    """Raises UserError for a file, asked for by name, of another suite or of one of which only a part is made.

    Without it Snakemake finds no rule, and says no more: the targets are not known when it reads this file.
    """
    for argument in arguments:
        if not (found := re.fullmatch(OF_A_SUITE, os.path.relpath(argument or "."))):
            continue
        suite = found[1] or found[2]
        if suite != SUITE:
            raise UserError(f"{argument}: is made with --config suite={suite}; this is suite {SUITE}")
        if ONLY:
            raise UserError(f"{argument}: is made of the whole suite, never of a part; leave out only={ONLY}")


try:
    CONFIG = config_texts(config, workflow.config_settings.config_args)
    SUITE, ONLY = CONFIG.get("suite", "demo"), CONFIG.get("only")
    ONLY = ONLY if ONLY is None else as_text(ONLY)
    workflow.config_settings.config_args = handed_on(workflow.config_settings.config_args)
    # Jobs parse this file again, perhaps after an edit of params/: only the main process writes.
    PLAN = plan_suite(SUITE, ONLY, write=workflow.is_main_process)
    if workflow.is_main_process:
        require_whole_suite(sys.argv[1:])
        require_imports(PLAN.loggers(*STORE.untrained(PLAN.runs)))
except (UserError, OSError) as error:  # OSError: a full disk, a tree that cannot be written
    print(f"distillbench: {error}", file=sys.stderr)
    sys.exit(2)


# DVC makes what it recorded read-only. Snakemake takes that for outputs marked as protected(), which it refuses to make
# anew, and after a failed job it copies the backup of an update() output into the file, or into the cache behind it. No
# option says otherwise. But no rule marks outputs as protected, and commands replace files, whole, never write into
# them: what is there after a failure is what should be there.
async def never_protected(file):
    return False


def back_up_nothing(persistence, path):
    pass


def is_there(persistence, path):
    return path.exists()


_IOFile.protected = never_protected
FileBackupMixin.backup_output, FileBackupMixin.restore_output = back_up_nothing, is_there


wildcard_constraints:
    run=RUN_ID,
    # Tables are made of PLAN's runs: those of no other suite, and of none if PLAN is a part (nothing fits "(?!)").
    suite="(?!)" if ONLY else re.escape(SUITE),


def specified(run):
    """The specification of a run; of one that was planned before params/ was edited, as it was written down then."""
    return PLAN.runs.get(run) or STORE.specification(run)


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
        *paper_files(SUITE),
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


def paper_files(suite):
    """One by one: Snakemake empties a folder that it is to make, with what else is in it."""
    tex = ("main", "details", "numbers", "example")
    names = [
        *(f"{name}.tex" for name in tex),
        "references.bib",
        *(f"{name}.pdf" for name in figure_names(PLAN)),
    ]
    return [f"reports/{suite}/paper/{name}" for name in names]


def present(paths):
    return all(Path(path).exists() for path in paths)


def again(*runs):
    """Whether one of these runs is to be trained though it is finished: -R train, -F, or -R, -f and a file of the run.

    Asked while jobs are made, as Snakemake knows its arguments only then.
    """
    settings = workflow.dag_settings
    if settings is None:  # --lint and its like
        return False
    forced = {
        os.path.normpath(name)
        for name in (*settings.forcerun, *(settings.targets if settings.forcetargets else ()))
    }
    return (
        settings.forceall
        or "train" in forced
        or any(str(STORE.run(run) / name) in forced for run in runs for name in RUN_FILES)
    )


def again_option(wildcards):
    """For a job on another machine, which makes itself anew from other arguments, it is in the environment."""
    if not workflow.is_main_process:
        return os.environ.get("DISTILLBENCH_AGAIN", "")
    if not again(wildcards.run):
        return ""
    os.environ.update(DISTILLBENCH_AGAIN="--again")
    return "--again"


def made_before(files, renew):
    """Inputs that have to be there; their times make nothing stale, unless the job runs anyhow."""
    return [str(file) if renew else ancient(str(file)) for file in files]


def training_input(wildcards):
    """Nothing for a finished run: then a missing or newer teacher cannot make it train again."""
    run = wildcards.run
    if finished(STORE.run(run)) and not again(run):
        return []
    specification = specified(run)
    files = [STORE.planned(run), f"results/data/{specification['dataset']['name']}.npz"]
    if specification.teacher_id:
        teacher = STORE.run(specification.teacher_id)
        weights = f"model.{specification['teacher']['checkpoint']}.pt"
        files += [teacher / "spec.json", teacher / "record.json", teacher / weights]
    return made_before(files, again(run))


def prediction_input(wildcards):
    """Nothing where the predictions are there and of these weights, so that they serve without checkpoints."""
    run = wildcards.run
    renew = again(run) or renewed(run, "predictions.npz")
    if present(evaluation(run, "predictions.npz")) and not renew:
        return []
    dataset = run.partition("/")[0]
    return made_before([*(STORE.run(run) / name for name in RUN_FILES), f"results/data/{dataset}.npz"], renew)


def metrics_input(wildcards):
    """The predictions, the teacher's too, and the code of the metrics; nothing where only the metrics were pulled."""
    run, teacher = wildcards.run, specified(wildcards.run).teacher_id
    runs = [run, teacher] if teacher else [run]
    predictions = [path for each in runs for path in evaluation(each, "predictions.npz")]
    here = present(evaluation(run, "metrics.json"))
    if here and not present(predictions) and not again(*runs):
        return []
    stale = ((run, "metrics.json"), *((each, "predictions.npz") for each in runs))
    predicted = "predict" in workflow.dag_settings.forcerun
    renew = again(*runs) or predicted or (here and renewed(run, "metrics.json", *stale))
    return [*made_before(predictions, renew), str(PACKAGE / "evaluation/metrics.py")]


def renewed(run, name, *origins):
    """Whether the files NAME of a run's evaluations, or one of `origins`, (run, name) each, were made from something
    else than is here now and can be renewed. Then their job runs whatever the files' times, which say nothing of files
    that came from elsewhere.
    """
    renew = any(is_stale(*file) for file in origins or ((run, name),))
    if renew:
        workflow.dag.forcefiles.update(evaluation(run, name))
    return renew


@cache
def is_stale(run, name):
    try:
        found = {file for file, _ in STORE.stale(run)}
    except UserError as error:  # the run's own jobs fail, those of others do not
        print(f"distillbench: {error}", file=sys.stderr)
        return False
    return name in found and ("predictions.npz" not in found or finished(STORE.run(run)))


def seed_major(wildcards):
    """Priority of a run: every cell has one run before any has two."""
    rounds = PLAN.rounds
    return max(rounds.values()) + 1 - rounds[wildcards.run] if wildcards.run in rounds else 0


def run_threads(wildcards):
    return specified(wildcards.run)["threads"]


def run_device(wildcards, resources):
    """Never what a machine happens to have: a profile gives GPUs to the rules, or the job runs on the CPU."""
    return "cuda" if resources.gpu else "cpu"


def write_partial_reports():
    """After a failure: tables and page from the runs that are there, with the reason in the cell."""
    folder = f"reports/{SUITE}"
    command = [sys.executable, "-m", "distillbench", "report", "--partial", "--out", folder, "--", SUITE]
    if subprocess.run(command).returncode == 0:
        print(f"partial reports: {folder}/tables/partial-main.md, {folder}/partial.html", file=sys.stderr)
