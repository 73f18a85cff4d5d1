"""Planning a suite: expand it and freeze what it consists of. Shared by the workflow's parsing and the command line."""

from distillbench.config.suite import load_suite
from distillbench.errors import UserError
from distillbench.files import read_json, to_json, write_atomically
from distillbench.store import Store
from distillbench.store.claim import claim
from distillbench.store.index import index_path, write_index
from distillbench.store.layout import FINISHED
from distillbench.store.place import bring

PLACES = ("method_file", "network_files", "stage")  # of the "source" of a specification's file


def plan_suite(name, only=None, root=".", write=True):
    """The suite, or the part of it that `only` names; writes what is missing of specifications and index.

    Only ignored files are written, each run's specification once (an id never gets another content), so that a
    job that waits in a queue trains what was planned even if params/ is edited meanwhile. A finished run that was
    killed on its way to its place is brought there.
    """
    suite, store = load_suite(name, root), Store(root)
    if write:
        sources = suite.sources()
        for run, specification in suite.runs.items():
            path = store.planned(run)
            if _places(path) != [sources[run].get(name) for name in PLACES]:
                write_atomically(path, to_json({**specification.as_file(), "source": sources[run]}))
        write_index(suite, index_path(name, root))
        for run in suite.runs:
            if (store.work(run) / FINISHED).exists() and not store.running(run):
                with claim(store.work(run), report=str):
                    bring(store.work(run), store.run(run))
    return suite if only is None else suite.only(only)


def plan_where_possible(name, only=None, root="."):
    """(suite, ""), or, where nothing can be written, (suite, why): for commands that mainly read."""
    try:
        return plan_suite(name, only, root), ""
    except OSError as error:
        return plan_suite(name, only, root, write=False), str(error)


def _places(path):
    """Where a planned run's own method and networks were, and where it reads images: the same source may have moved
    since, which makes no other run. None of a file that is missing or damaged.
    """
    try:
        source = read_json(path)["source"] or {}
        return [source.get(name) for name in PLACES]
    except (UserError, KeyError, TypeError, AttributeError):
        return None
