"""The command line. The workflow's rules and people use the same commands.

A module a group of commands; a command is a function with its arguments above it, and imports what it needs inside,
so that help and completion take no longer than Python and click do.
"""

import os
import sys
from contextlib import suppress

import click

from distillbench import __version__
from distillbench.commands import bench, components, runs, sharing, suites
from distillbench.commands.base import HELP, Commands
from distillbench.environment import collect_seldom, prepare
from distillbench.errors import RunFailed, UserError, one_line

NAME, COMPLETE = "distillbench", "_DISTILLBENCH_COMPLETE"  # a variable that click's shell functions set
EPILOG = """\
A suite is a file params/SUITE.yaml; a run is named by its directory, its id or a unique beginning of either or of its
hash. docs/concepts.md says how TAB completes them. Typical use:

\b
  distillbench plan demo                 what would be trained, and why
  snakemake --profile profiles/local     do it (suite demo; --config suite=NAME for another)
  distillbench status demo               how far it is
  distillbench tables demo               the table, as far as it goes
"""

program = Commands(
    NAME,
    {
        "Suites": suites.COMMANDS,
        "Runs": runs.COMMANDS,
        "Sharing": sharing.COMMANDS,
        "Methods and data": components.COMMANDS,
        "Speed": bench.COMMANDS,
    },
    help="A reproducible benchmark pipeline for knowledge distillation.",
    epilog=EPILOG,
    context_settings=HELP,
)
click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")(program)


def main(arguments=None):
    """Run a command; returns the exit code: 2 for bad input, 1 for a run that failed, 130 for an interrupt.

    A command that goes on past damaged runs returns the lines on them: they come last, with code 2.
    """
    prepare()
    collect_seldom()
    if instruction := os.environ.get(COMPLETE):
        return _complete(instruction)
    try:
        result = _invoke(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
        return _tell(result) if isinstance(result, list) else result or 0
    except click.UsageError as error:
        return _refuse(_line(error), 2)
    except UserError as error:
        return _refuse(error, 2)
    except RunFailed as error:
        return _refuse(error, 1)
    except BrokenPipeError:
        _discard_output()
        return 0
    except OSError as error:  # a path that is a directory, or below a file; a full disk
        _refuse(error, 2)
        _discard_output()
        return 2
    except KeyboardInterrupt:
        return 130


def _invoke(arguments):
    """What the command returns. Not click's own `main`, which has other exit codes and ends the process."""
    try:
        with program.make_context(NAME, arguments) as context:
            return program.invoke(context)
    except click.exceptions.Exit as end:  # of --help and --version
        return end.exit_code


def _complete(instruction):
    """Answer the shell; whatever goes wrong, a person who pressed TAB reads nothing of it."""
    from click.shell_completion import shell_complete

    with suppress(Exception):
        return shell_complete(program, {}, NAME, COMPLETE, instruction)
    return 1


def _line(error):
    """What click refuses, in one line with the help that says what is right."""
    text = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx else NAME
    return f"{text[:1].lower()}{text[1:]}; see `{command} --help`"


def _refuse(error, code):
    print(f"distillbench: {one_line(error)}", file=sys.stderr)
    return code


def _discard_output():
    """Python writes what stdout still holds once more when it ends, and complains where that cannot be written."""
    with suppress(OSError, ValueError):  # a stand-in without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(problems):
    """Print the lines on what was damaged among things that were not; the exit code."""
    for line in dict.fromkeys(problems):
        print(f"distillbench: {one_line(line)}", file=sys.stderr)
    return 2 if problems else 0
