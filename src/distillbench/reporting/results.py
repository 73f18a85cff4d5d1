"""A suite's results as tables and figures read them."""

import functools
import io
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from distillbench.command_lines import workflow
from distillbench.config.suite_file import require_suite
from distillbench.errors import UserError
from distillbench.planning import plan_suite
from distillbench.reporting import collect
from distillbench.reporting.sheets.details import details_sheet
from distillbench.reporting.sheets.main import main_sheet, summary_sheet
from distillbench.reporting.tables import build_table
from distillbench.store import LookingStore, Store
from distillbench.store.index import index_path, index_text


@dataclass(frozen=True)
class Results:
    """index, metrics, costs: frames as in results/suites/SUITE; failures: {run: reason}; scope: of what is shown."""

    suite: str
    store: Store
    index: pd.DataFrame
    metrics: pd.DataFrame
    costs: pd.DataFrame
    failures: dict
    scope: collect.Scope

    @cached_property
    def table(self):
        return build_table(self.suite, self.index, self.metrics, self.scope, self.failures)

    @cached_property
    def main(self):
        return main_sheet(self.table)

    @cached_property
    def summary(self):
        return summary_sheet(self.table)

    @cached_property
    def details(self):
        return details_sheet(self.table, self.index, self.metrics, self.costs)

    @cached_property
    def histories(self):
        """{run: history.csv as a frame by epoch} of the runs whose history is here."""
        paths = {run: self.store.run(run) / "history.csv" for run in dict.fromkeys(self.index["run"])}
        columns = ("epoch", "lr", *self.scope.curves)
        found = {
            run: self.store.attempt(run, functools.partial(collect.read_csv, path, columns))
            for run, path in paths.items()
            if path.exists()
        }
        return {run: frame.set_index("epoch") for run, frame in found.items() if frame is not None}

    @property
    def problems(self):
        """Lines on what is damaged among partial results; among complete ones nothing may be."""
        return list(self.store.told)


def read_results(suite, partial=False, root="."):
    """The results that the workflow collected, or, if partial, those of the runs that are there now.

    Raises UserError if they are not collected yet, or not those of all runs.
    """
    if partial:
        planned = plan_suite(suite, root=root, write=False)
        store, index = LookingStore(root, planned.runs), collect.read_index(io.StringIO(index_text(planned)))
        scope, (metrics, costs) = collect.scope(index, store), collect.collect(index, store)
        failures = collect.failures(index, store, metrics, scope)
        return Results(suite, store, index, metrics, costs, failures, scope)
    require_suite(suite, root)
    store, path = Store(root), index_path(suite, root)
    for file in (path, *collect.files(path.parent)):
        if not file.exists():
            remedy = f"`{workflow(suite)}` makes it, --partial does without"
            raise UserError(f"{file}: no such file; {remedy}")
    metrics, costs = map(collect.read_csv, collect.files(path.parent), (collect.METRICS, ["run", *collect.COSTS]))
    index = collect.read_index(path)
    scope = collect.scope(index, store, metrics)
    collect.require_complete(suite, index, metrics, scope, ", --partial does without")
    return Results(suite, store, index, metrics, costs, {}, scope)
