"""Experiment loggers beside history.csv, off by default: TensorBoard and Weights & Biases, one key each."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from distillbench.config.schema import LOGGERS as KEYS
from distillbench.errors import UserError

IMPORTS = {"tensorboard": "from torch.utils.tensorboard import SummaryWriter", "wandb": "from wandb import init"}


def require(packages):
    """Raises UserError, with the line that helps, for a package that is not installed."""
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a mere folder of that name, such as earlier runs leave
            raise UserError(
                f"{KEYS[package]} is true and {package} is not installed; `pip install {package}` or set it to false"
            )


def require_imports(packages):
    """The same, also for a package that is there and cannot be imported. Takes the seconds that the imports take."""
    require(packages)
    for package in packages:  # in a process that begins as a job's does, and so that planning does not import torch
        command = [sys.executable, "-c", IMPORTS[package]]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise UserError(
                f"{KEYS[package]} is true and {package} cannot be imported ({reason:.200}); repair it (`pip install"
                f" --force-reinstall {package}`, or rename what has its name here) or set it to false"
            )


@contextmanager
def open_loggers(packages, specification, folder):
    """A context with a function that logs a line of history.csv to each package; closed even if training fails.

    folder: for the files of both. Weights & Biases heeds its own settings (WANDB_MODE, WANDB_ENTITY, ...).
    Raises UserError if one is not installed or cannot be opened (no login, say).
    """
    require(packages)
    with ExitStack() as stack:
        writers = []
        for package in packages:
            try:
                write, close = OPEN[package](specification, Path(folder))
            except Exception as error:  # whatever the package raises
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"{KEYS[package]} is true and {package} cannot be opened ({reason:.200})") from error
            stack.callback(close)
            writers.append(write)
        yield lambda row: [write(row) for write in writers]


def _tensorboard(specification, folder):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder / "tensorboard" / specification.id)

    def write(row):
        for name, value in row.items():
            writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])

    return write, writer.close


def _wandb(specification, folder):
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project="distillbench",
        id=specification.digest[:12],
        name=specification.id,
        config=specification.data,
        resume="allow",
        dir=folder,
    )
    return lambda row: run.log(row, step=row["epoch"]), run.finish


OPEN = {"tensorboard": _tensorboard, "wandb": _wandb}
