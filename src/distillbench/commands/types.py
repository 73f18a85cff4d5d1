"""The kinds of arguments: what each accepts, what its help says, what TAB offers.

Help and TAB import nothing heavy, and of a project read no more than names of files and, for rows, those of one suite.
"""

import click

from distillbench.environment import as_text
from distillbench.errors import UserError, one_of


class Text(click.ParamType):
    """A text that is not empty. A kind of text says in `checked` what it accepts, in `offered` what TAB completes."""

    name, help = "text", ""

    def convert(self, value, parameter, context):
        if value == "":
            raise UserError(f"{parameter.name}: is empty; perhaps a variable of the shell is not set")
        return value if context.resilient_parsing else self.checked(value)

    def checked(self, value):
        """The value as the command gets it. Raises UserError."""
        return value

    def offered(self, context, incomplete):
        """The values that there are; those that do not begin as typed are left out."""
        return ()

    def shell_complete(self, context, parameter, incomplete):
        from click.shell_completion import CompletionItem

        try:
            return [CompletionItem(v) for v in self.offered(context, incomplete) if v.startswith(incomplete)]
        except Exception:  # of whatever is damaged here: the command will say it, TAB offers nothing
            return []


class SuiteName(Text):
    """The name of a suite that exists."""

    name, help = "suite", "name of a file params/SUITE.yaml"

    def checked(self, value):
        from distillbench.config.suite_file import require_suite

        require_suite(value)
        return value

    def offered(self, context, incomplete):
        from distillbench.config.suite_file import suite_names

        return suite_names()


class RunName(Text):
    """What names a run that is here; the command gets its id."""

    name, help = "run", "directory, id or a unique beginning of the id or hash of a run"

    def checked(self, value):
        from distillbench.store import Store

        return Store().find(value)

    def offered(self, context, incomplete):
        """Of each run its id, or its directory or hash where that is what was begun."""
        from distillbench.config.specification import run_ids

        for run in run_ids("results/runs"):
            names = (run, f"results/runs/{run}", run.rpartition("-")[2])
            yield from [name for name in names if name.startswith(incomplete)][:1]


class PlannedRun(RunName):
    """A run that is here, or that planning a suite has written down."""

    help = "id of a planned run, or what names one that is here"

    def checked(self, value):
        from distillbench.store import Store

        return value if Store().planned(value).exists() else super().checked(value)


class CellName(Text):
    """A cell of the table of the suite that stands before it; TAB offers the suite's rows."""

    name, help = "cell", "ROW/PAIR or ROW/PAIR/sSEED; ROW where there is one pair"

    def checked(self, value):
        return as_text(value)

    def offered(self, context, incomplete):
        from distillbench.config.suite_file import row_names

        return row_names(context.params["suite"])


class Patterns(CellName):
    """The cells that patterns between commas match."""

    name, help = "patterns", "a part: ROW, ROW/PAIR or ROW/PAIR/sSEED, comma-separated, * and ? allowed"

    def offered(self, context, incomplete):
        before, comma, _ = incomplete.rpartition(",")
        return [f"{before}{comma}{row}" for row in super().offered(context, incomplete)]


class Device(Text):
    """Where to compute. Whether it is here, only torch can say, when it is used."""

    name, help = "device", "cpu, cuda, cuda:1, ...; auto takes CUDA if there is one (default)"

    def offered(self, context, incomplete):
        return ("auto", "cpu", "cuda")


class DatasetName(Text):
    """A dataset that is declared."""

    name = "name"

    def __init__(self, help="name of the dataset"):
        self.help = help

    def checked(self, value):
        from distillbench.config import components

        if value not in components.datasets():
            raise UserError(one_of(value, components.datasets(), "dataset"))
        return value

    def offered(self, context, incomplete):
        from distillbench.config import components

        return sorted(components.datasets())


class File(Text):
    """A path, which the shell itself completes."""

    name = shell_type = "file"

    def __init__(self, help):
        self.help = help

    def shell_complete(self, context, parameter, incomplete):
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self.shell_type)]


class Folder(File):
    name, shell_type = "folder", "dir"


def argument(name, kind, **options):
    """A positional argument; its type describes it."""
    return click.argument(name, type=kind, **options)


def option(name, kind, **options):
    """An option with a value of a type, which describes it, too."""
    return click.option(name, type=kind, help=kind.help, **options)


suite = argument("suite", SuiteName(), default="demo")
only = option("--only", Patterns())
run = argument("run", RunName())
device = option("--device", Device(), default="auto")
