"""The environment that a person starts a command in, as far as it must not matter: terminal, locale, user."""

import atexit
import gc
import getpass
import os
import sys
import tempfile
from pathlib import Path


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

    By default Python looks through all of it again and again, for a third of the time that a short job takes.
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
