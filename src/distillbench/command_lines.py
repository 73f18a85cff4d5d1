"""Command lines that people paste into a shell, and the texts that they gave to Snakemake's --config."""

import re
import shlex

from distillbench.errors import UserError

# Of the workflow.
CONFIG = {"suite": "NAME", "only": "ROW", "table": "auto|always|never", "gpu_slots": "N", "workers": "N"}


def command(name, *arguments, options=()):
    """`distillbench NAME OPTIONS ARGUMENTS`; an argument may begin with a hyphen."""
    words = [*options, *(["--"] if any(str(a).startswith("-") for a in arguments) else []), *arguments]
    return shlex.join(map(str, ["distillbench", name, *words]))


def workflow(suite, only=None):
    """The call of Snakemake for a suite, or for a cell of it; only: its name, ROW/PAIR or ROW/PAIR/sSEED."""
    config = [f"suite={suite}", *([] if only is None else [f"only={exactly(only)}"])]
    return shlex.join(["snakemake", "--profile", "profiles/local", "--config", *config])


def exactly(name):
    """The pattern that matches nothing but `name`, for --only and for only=.

    Snakemake strips quotes from both ends of a value and cannot read one that begins with #: they stand in brackets.
    """
    return re.sub(r"""[*?\[#'"]""", r"[\g<0>]", name)


def config_texts(config, entries):
    """{key: text} of the workflow's configuration, keys of `CONFIG`.

    config: Snakemake's, in which `--config suite=007` is the number 7; entries: the KEY=VALUE of the command line as
    they were typed. Raises UserError for another key, or for a value in a config file that is not text.
    """
    typed = {key: _unquoted(value) for key, _, value in (entry.partition("=") for entry in entries)}
    texts = {key: typed.get(key, value) for key, value in config.items()}
    for key, value in texts.items():
        if key not in CONFIG:
            valid = ", ".join(f"{name}={what}" for name, what in CONFIG.items())
            raise UserError(f"--config {key}=...: unknown; valid: {valid}")
        if not isinstance(value, str):
            raise UserError(f'{key}: {value!r} in a config file is not text; write {key}: "..." in quotes')
    return texts


def _unquoted(text):
    """Quotes that the shell left around a text are no part of it; one of its own, as in KD', is."""
    return re.sub(r"""(?s)^(["'])(.*)\1$""", r"\2", text)


def handed_on(entries):
    """The same entries in a shell's quotes: Snakemake gives its jobs others only Python's, which change \\ and '."""
    return ["'" + entry.replace("'", "'\"'\"'") + "'" for entry in entries]
