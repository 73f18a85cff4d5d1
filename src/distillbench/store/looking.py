"""A store for lists of runs: what cannot be read stops none of the others."""

import os

from distillbench.config.specification import read_specification
from distillbench.errors import UserError
from distillbench.store.runs import Store


class LookingStore(Store):
    """A store for lists of runs: what cannot be read stops none of the others.

    It counts as not here, and the line that says why is in `problems`, {run: [line]}.
    """

    def __init__(self, root=".", planned=()):
        super().__init__(root, planned)
        self.problems = {}

    def ids(self):
        """Of what can be looked into."""
        folders = [self.runs, *(folder for depth in range(1, 5) for folder in self.runs.glob("/".join("*" * depth)))]
        for folder in folders:
            if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
                self.problems[str(folder)] = [f"{folder}: cannot be read (permission denied)"]
        return super().ids()

    @property
    def told(self):
        """All lines."""
        return [line for lines in self.problems.values() for line in lines]

    def attempt(self, run_id, read, default=None):
        try:
            return read()
        except (UserError, OSError) as error:
            told = str(error) if isinstance(error, UserError) else f"{error.filename}: {error.strerror}"
            lines = self.problems.setdefault(run_id, [])
            if told not in lines:
                lines.append(told)
            return default

    def record(self, run_id):
        return self.attempt(run_id, lambda: Store.record(self, run_id))

    def predicted(self, run_id, checkpoint):
        return self.attempt(run_id, lambda: Store.predicted(self, run_id, checkpoint), {})

    def _metrics_file(self, run_id, checkpoint):
        return self.attempt(run_id, lambda: Store._metrics_file(self, run_id, checkpoint))

    def specification(self, run_id):
        """As planned, where that of the run is damaged."""
        planned = self.known.get(run_id)
        if (self.run(run_id) / "spec.json").exists() and (planned or self.planned(run_id).exists()):
            found = self.attempt(run_id, lambda: Store.specification(self, run_id))
            return found or planned or read_specification(self.planned(run_id))
        return Store.specification(self, run_id)

    def state(self, run_id):
        """As ever, or (damaged, the first problem), or (in part, what is missing)."""
        found = self.attempt(run_id, lambda: Store.state(self, run_id)) if self.specified(run_id) else None
        if run_id in self.problems:
            return "damaged", self.problems[run_id][0]
        return found or ("in part", "has no spec.json; pull or restore it, or plan a suite that has the run")

    def older(self, run_id):
        return self._known(run_id, Store.older) or ""

    def other_realisation(self, run_id):
        return self._known(run_id, Store.other_realisation)

    def warnings(self, run_id):
        return self._known(run_id, Store.warnings) or []

    def _known(self, run_id, tell):
        """What there is to tell of a run whose specification can be read; `state` says why it cannot."""
        try:
            return tell(self, run_id)
        except UserError:
            return None
