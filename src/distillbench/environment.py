"""The environment that a person starts a command in, as far as it must not matter: terminal, locale, user."""

import atexit
import gc
import getpass
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from distillbench.errors import UserError

MPS = "nvidia-cuda-mps-control"


def prepare():
    """For the commands: what they print never fails on what a terminal or a locale cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not a notebook's
            stream.reconfigure(errors="replace")
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdecimal():  # numpy and matplotlib read it, and fail
        del os.environ["SOURCE_DATE_EPOCH"]
    name_user()


def collect_seldom():
    """Look for cycles of garbage seldom, and not at the end: what imports make stays, and goes with the process.

    By default Python looks through all of it again and again, for a fifth of the time that a short job takes. Steps and
    evaluations leave no cycles.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def name_user():
    """Name and home for a user of whom the system knows neither (a container's mere uid): libraries ask for both."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def as_text(argument):
    """An argument of the command line as UTF-8 whatever the locale. (Files' names have to stay as they came.)"""
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def gpu_jobs(slots, gpus):
    """How many jobs at a time a machine's GPUs have with so many slots each.

    slots: a text; gpus: as many as the profile has. Raises UserError where there is none, or where jobs would only take
    turns on it, as no MPS daemon answers.
    """
    if not slots.isdecimal() or int(slots) < 1:
        raise UserError(f"gpu_slots={slots}: is no number of jobs from 1 on")
    if not gpus:
        raise UserError(f"gpu_slots={slots}: the profile has no GPU (resources: gpu); take --profile profiles/gpu")
    if int(slots) > 1 and (problem := mps_problem()):
        remedy = f"start it with `{MPS} -d` or leave gpu_slots out: without it jobs only take turns on a GPU"
        raise UserError(f"gpu_slots={slots}: no MPS daemon answers ({problem}); {remedy}")
    return gpus * int(slots)


def workers_asked(text):
    """The number of processes that decode images for a job that `workers=` asks for, or None. Raises UserError."""
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"workers={text}: is no number of processes from 0 on")
    return int(text)


def mps_problem():
    """Why jobs cannot compute on a GPU at the same time, or ""."""
    question = "get_default_active_thread_percentage\n"  # every daemon knows it, also before it has a server
    options = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": 20}
    try:
        answer = subprocess.run([MPS], input=question, check=False, **options)
        float(answer.stdout)
    except OSError as error:
        return f"{MPS}: {error.strerror}"
    except subprocess.TimeoutExpired as error:
        return str(error)
    except ValueError:
        said = (answer.stdout + answer.stderr).split()
        return " ".join(said)[:200] or f"{MPS} says nothing"
    return ""
