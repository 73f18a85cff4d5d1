# What the rules share: the suite, and functions from wildcards to files. No rules.
import atexit
import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from distillbench import warm
from distillbench.command_lines import config_texts, handed_on
from distillbench.config.specification import RUN_ID
from distillbench.config.views import is_streamed
from distillbench.environment import as_text, collect_seldom, gpu_jobs, name_user, workers_asked
from distillbench.errors import UserError, one_line
from distillbench.loggers import require_imports
from distillbench.planning import plan_suite
from distillbench.planning.tables import plan_tables, read_planned, replaced, require_mode, write_planned
from distillbench.reporting.figure_names import figure_names
from distillbench.store import LookingStore, Store
from distillbench.store.layout import CHECKPOINTS, RUN_FILES, finished, parts, weights_file
from distillbench.store.tables import Key, key_of, replaces_teacher, table_path
from snakemake.io import _IOFile
from snakemake.persistence import FileBackupMixin

name_user()  # Snakemake, DVC and what else jobs start ask for it
collect_seldom()
# Popped: the warm process of another workflow, perhaps of another allocation, is not for the jobs of this one.
WARM = os.environ.pop(warm.VARIABLE, None) != "never"
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
    TABLE, WORKERS = require_mode(CONFIG.get("table", "auto")), workers_asked(CONFIG.get("workers"))
    ONLY = ONLY if ONLY is None else as_text(ONLY)
    workflow.config_settings.config_args = handed_on(workflow.config_settings.config_args)
    # Jobs parse this file again, perhaps after an edit of params/: only the main process writes.
    PLAN = plan_suite(SUITE, ONLY, write=workflow.is_main_process)
    # Outputs cannot depend on a run, but the runs of a suite have one task, one dataset and one protocol.
    ANY_RUN = next(iter(PLAN.runs.values()))
    PARTS, STORE = parts(ANY_RUN), Store(planned=PLAN.runs)
    if workflow.is_main_process:
        TABLES = plan_tables(PLAN, LookingStore(planned=PLAN.runs), TABLE)
        for line in replaced(TABLES, STORE):
            print(f"distillbench: {line}", file=sys.stderr)
        atexit.register(STORE.settled.save)
        require_whole_suite(sys.argv[1:])
        if "gpu_slots" in CONFIG:
            gpus = workflow.global_resources.get("gpu")
            workflow.register_resource("gpu", gpu_jobs(CONFIG["gpu_slots"], gpus.value if gpus else 0))
        require_imports(PLAN.loggers(*STORE.untrained(PLAN.logged)))
    else:
        TABLES = read_planned(SUITE, STORE.results)
except (UserError, OSError) as error:  # OSError: a full disk, a tree that cannot be written
    print(f"distillbench: {one_line(error)}", file=sys.stderr)
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


assert (
    _IOFile.protected and FileBackupMixin.backup_output and FileBackupMixin.restore_output
), "another Snakemake"
_IOFile.protected = never_protected
FileBackupMixin.backup_output, FileBackupMixin.restore_output = back_up_nothing, is_there


wildcard_constraints:
    run=RUN_ID,
    checkpoint="|".join(CHECKPOINTS),
    # Tables are made of PLAN's runs: those of no other suite, and of none if PLAN is a part (nothing fits "(?!)").
    suite="(?!)" if ONLY else re.escape(SUITE),


# What makes metrics of predictions: inputs of every run that has any.
CODE = [str(PACKAGE / "tasks" / ANY_RUN["task"] / name) for name in ("metrics.py", "predictions.py")]


def specified(run):
    """The specification of a run; of one that was planned before params/ was edited, as it was written down then."""
    return PLAN.runs.get(run) or STORE.specification(run)


def evaluations(run, part):
    """The files of a part of a run's evaluation, one a checkpoint."""
    return [f"{STORE.runs}/{run}/{name}" for name in part.files]


def all_metrics():
    return [path for run in PLAN.runs for path in evaluations(run, PARTS.metrics)]


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


def again(run):
    """Whether a run is to be trained though it is finished: -R train, -F, or -R, -f and a file of its training.

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
        or any(f"{STORE.runs}/{run}/{name}" in forced for name in RUN_FILES)
    )


def again_option(wildcards):
    """For a job on another machine, which makes itself anew from other arguments, it is in the environment."""
    forced = os.environ.get("DISTILLBENCH_AGAIN", "").split()
    if workflow.is_main_process:
        if not again(wildcards.run):
            return ""
        os.environ.update(DISTILLBENCH_AGAIN=" ".join({*forced, wildcards.run}))
    return "--again" if workflow.is_main_process or wildcards.run in forced else ""


@cache
def missing(run):
    """What is to be made of a run, see `Store.missing`; of one that is damaged, only what is not here."""
    try:
        return STORE.missing(run)
    except UserError as error:  # the run's own job fails, those of others do not
        print(f"distillbench: {one_line(error)}", file=sys.stderr)
        return STORE.absent(run)


def renewed(run):
    """Whether predictions that are here are made again, as they are of other weights or have no ranks."""
    return "predictions" in missing(run) and "predictions" not in STORE.absent(run)


def made_before(files):
    """Inputs that have to be there; their times make nothing stale."""
    return [ancient(str(file)) for file in files]


def training_files(run):
    """What a training is made from: specification, images, and the teacher."""
    specification = specified(run)
    files = [STORE.planned(run), f"results/data/{specification['dataset']['name']}.npz"]
    return files + (teacher_files(key_of(specification), True) if specification.teacher_id else [])


def logits_of_teacher(run):
    """The table that a training looks up in, if one is planned; one that is there and another than is meant is made again.

    Never ancient(): Snakemake forgets the training then, when it makes the table again.
    """
    table = TABLES.get(key_of(specified(run))) if replaces_teacher(specified(run)) else None
    if not (table and table.used):
        return []
    path = str(table_path(STORE.results, table.key))
    if workflow.is_main_process and (table.problem or again(table.key.run)):
        workflow.dag.forcefiles.add(path)
    return [path]


def table_input(wildcards):
    """The teacher's weights and the images."""
    run, checkpoint = wildcards.run, wildcards.checkpoint
    images = f"results/data/{specified(run)['dataset']['name']}.npz"
    if again(run):
        return [images, *(f"{STORE.runs}/{run}/{name}" for name in RUN_FILES)]
    return made_before([images, *teacher_files(Key(run, checkpoint), True)])


def teacher_files(teacher, weights):
    """A teacher that is whole. weights: whether its weights are needed: if they did not come with it, it trains again."""
    run, checkpoint = teacher
    files = evaluations(run, PARTS.metrics)
    needed = [STORE.run(run) / name for name in ("spec.json", "record.json", weights_file(checkpoint))]
    weights = weights or not PARTS.predictions.here(STORE.run(run))  # to predict with
    if weights and PARTS.metrics.here(STORE.run(run)) and not all(path.exists() for path in needed):
        files += needed
    return files


def training_input(wildcards):
    """Nothing for a finished run: then a missing or newer teacher cannot make it train again."""
    run = wildcards.run
    if again(run):
        return [str(file) for file in training_files(run)] + logits_of_teacher(run)
    return [] if finished(STORE.run(run)) else made_before(training_files(run)) + logits_of_teacher(run)


def run_input(wildcards):
    """What the missing parts of a run are made from; of one that is whole the code of the metrics, which may change.

    Parts that are stale, or that a teacher made again makes stale, are made again whatever the files' times, which say
    nothing of files that came from elsewhere.
    """
    run, specification = wildcards.run, specified(wildcards.run)
    teacher, parts, directory = specification.teacher_id, missing(run), STORE.run(run)
    follows = bool(teacher) and (again(teacher) or renewed(teacher))
    images = f"results/data/{specification['dataset']['name']}.npz"
    if again(run):
        taught = teacher_files(key_of(specification), True) if teacher else []
        return [images, *(str(file) for file in (*(directory / name for name in RUN_FILES), *taught)), *CODE]
    if PARTS.metrics.here(directory) and (parts or follows):
        workflow.dag.forcefiles.update(evaluations(run, PARTS.metrics))
    files, predicted = [], all(PARTS.predictions.here(STORE.run(each)) for each in (run, teacher or run))
    if "training" in parts:
        files = training_files(run)
    elif parts or follows:
        files = [images] if "predictions" in parts or not predicted else []
        files += teacher_files(key_of(specification), False) if teacher else []
    files = [str(file) for file in files] if follows else made_before(files)
    files += logits_of_teacher(run) if "training" in parts else []
    return [*files, *CODE] if files or predicted else []


def urgency(wildcards):
    """Priority of a run: every cell has one run before any has two, and what is trained is in the tables at once."""
    rounds = PLAN.rounds
    if "training" not in missing(wildcards.run):
        return 1000
    return max(rounds.values()) + 1 - rounds[wildcards.run] if wildcards.run in rounds else 0


def run_threads(wildcards):
    """The threads of the step and, where images are decoded while it goes on, the workers that were asked for."""
    specification = specified(wildcards.run)
    streamed = is_streamed(specification["views"]["augmentation"])
    return specification["threads"] + (WORKERS or 0) * streamed


def run_device(wildcards, resources):
    """Never what a machine happens to have: a profile gives GPUs to the rules, or the job runs on the CPU."""
    return "cuda" if resources.gpu else "cpu"


def log_option(wildcards):
    return " ".join(f"--log {name}" for name in PLAN.loggers(wildcards.run))


def table_option(wildcards):
    return "--table never" if TABLE == "never" else ""


def workers_option(wildcards):
    return "" if WORKERS is None else f"--workers {WORKERS}"


def write_down_tables():
    """At the start of a workflow that holds Snakemake's lock, never of a dry run: its jobs on other machines read it."""
    try:
        write_planned(TABLES, SUITE, STORE.results)
    except OSError as error:
        print(f"distillbench: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def keep_warm():
    """Start a process that forks the jobs that import torch, where two or more run on this machine, in its Python."""
    jobs = [
        job
        for job in workflow.dag.needrun_jobs()
        if job.rule.name in ("run", "train", "table") and job.threads == 1
    ]
    local = workflow.is_main_process and workflow.local_exec and not workflow.touch
    ours = local and not workflow.deployment_settings.deployment_method
    if not (WARM and ours and sys.platform == "linux" and len(jobs) > 1):
        return
    # Where it cannot be started jobs run by themselves. (ValueError: a variable that is not text)
    with suppress(OSError, ValueError, subprocess.CalledProcessError):
        variables = shell("env -0", read=True, threads=1, resources=jobs[0].resources)
        warm.start(dict(line.split("=", 1) for line in variables.split("\0") if line))


def write_partial_reports():
    """After a failure: tables and page from the runs that are there, with the reason in the cell."""
    folder = f"reports/{SUITE}"
    command = [sys.executable, "-m", "distillbench", "report", "--partial", "--out", folder, "--", SUITE]
    if subprocess.run(command).returncode == 0:
        print(f"partial reports: {folder}/tables/partial-main.md, {folder}/partial.html", file=sys.stderr)
