"""Which runs need not be read again: nothing of them was missing or stale, and their files are as they were then."""

import hashlib
import os
from pathlib import Path

from distillbench.errors import UserError
from distillbench.files import read_json, to_json, write_atomically

RULES = 1  # raised when a run that was settled may not be so any more by what `Store.stale` says


class Settled:
    """results/settled.json: {run: digest of size, time of change and place on the disk of each of its files}.

    It saves time and says nothing else: without it, or where it is damaged, everything is read.
    """

    def __init__(self, path):
        self.path, self.noted = Path(path), None

    def holds(self, run, seen):
        """Whether a run was settled when its files were as they are now. seen: of `look`."""
        return self._noted().get(run) == seen

    def note(self, run, seen):
        self._noted()[run] = seen

    def save(self):
        """Write down what was noted, where that is possible."""
        try:
            if self._noted() != self._read():
                write_atomically(self.path, to_json(self.noted))
        except OSError:  # of somebody who only looks
            pass

    def _noted(self):
        if self.noted is None:
            self.noted = self._read()
        return self.noted

    def _read(self):
        try:
            content = read_json(self.path)
        except UserError:
            return {}
        return content if isinstance(content, dict) else {}


def look(files):
    """A digest of how files lie on the disk, and of the rules by which they are judged."""
    return hashlib.sha256(repr([RULES, *map(_look, files)]).encode()).hexdigest()


def _look(file):
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev
