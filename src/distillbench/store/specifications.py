"""Specifications on disk: read once, and compared by all but the code that they name."""

import os
from functools import cache

from distillbench.config.specification import Specification, read_specification
from distillbench.errors import UserError


def read_once(path):
    """The specification in a file, read once as long as the file does not change; None where there is no such file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(path, status.st_mtime_ns, status.st_size)


@cache
def _read(path, *_changes):
    return read_specification(path)


def by_all_but_code(folder):
    """{digest of all but versions and sources: [ids]} of the runs in a folder."""
    found = {}
    for path in sorted(folder.glob("*/spec.json")):
        try:
            specification = read_once(path)
        except UserError:  # what looks at that run says so
            continue
        found.setdefault(digest_without_code(specification), []).append(specification.id)
    return found


def digest_without_code(specification):
    return Specification(_without_code(specification.data)).digest


def _without_code(value):
    if not isinstance(value, dict):
        return value
    return {key: _without_code(entry) for key, entry in value.items() if key not in ("version", "source_sha256")}
