"""Folders that commands write to: each call knows its own files again and touches nothing of anybody else's."""

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from distillbench.errors import UserError
from distillbench.files import read_json, sha256_of, to_json, write_atomically

# {"schema": 1, "files": {name below the folder: {"by": command, "sha256": digest}}}
SCHEMA = 1
KEPT = ("runs", "specs", "work", "data", "logs", "written")  # in results/: of no command's --out
RECORD = ".distillbench.json"  # of a user's folder, in it; those of the workflow's folders lie in results/written


@contextmanager
def output(folder, by, workflow, partial=False):
    """A temporary folder; at the end its files take the place of what the same command left in `folder` earlier.

    by: the command with its suite, "tables demo"; workflow: the folder that the workflow has for it; partial: whether
    only partial files are made, so that the complete ones stay.

    Deleted is what an earlier call wrote, is unchanged and is not written now. Replaced is that too, and in the
    workflow's folder, but not behind a link, whatever has the name of a file that is written. Raises UserError, and
    changes nothing, where another file is in the way.
    """
    with tempfile.TemporaryDirectory() as stage:
        yield Path(stage)
        paths = sorted(path for path in Path(stage).rglob("*") if path.is_file())
        contents = {path.relative_to(stage).as_posix(): path.read_bytes() for path in paths}
    folder, renewed = Path(folder), os.path.abspath(folder) == os.path.abspath(workflow)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; choose another --out")
    if any(Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(f"results/{name}")) for name in KEPT):
        raise UserError(f"{folder}: is a folder of runs and what they are made from; choose another --out")
    record = Path("results/written", f"{by.replace(' ', '-')}.json") if renewed else folder / RECORD
    entries = read_record(record, renewed)
    mine = {name for name, entry in entries.items() if entry["by"] == by and digest(folder / name) == entry["sha256"]}
    for name, content in contents.items():
        require_place(folder, name)
        allowed = name in mine or (
            renewed and not any(place.is_symlink() for place in (folder, *between(folder, name)))
        )
        if not allowed and digest(folder / name) != hashlib.sha256(content).hexdigest():
            require_absent(folder / name, entries.get(name, {}).get("by", by), by)
    written, outdated = {}, {name for name in mine - contents.keys() if name.startswith("partial") or not partial}
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
            written[name] = {"by": by, "sha256": hashlib.sha256(content).hexdigest()}
        for name in outdated:
            (folder / name).unlink()
            remove_empty(folder, name)
    finally:
        others = {name: e for name, e in read_record(record, renewed).items() if os.path.lexists(folder / name)}
        write_atomically(record, to_json({"schema": SCHEMA, "files": others | written}))


def read_record(path, renewed):
    """{name: entry} of the files that commands wrote to a folder, {} where there is no record.

    Raises UserError where it is damaged or another version's, unless the folder is renewed anyway.
    """
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json(path)
        entries = {name: {"by": entry["by"], "sha256": entry["sha256"]} for name, entry in content["files"].items()}
        if content["schema"] == SCHEMA:
            return {name: entry for name, entry in entries.items() if is_below(name)}
    except (UserError, KeyError, TypeError, AttributeError):
        pass
    if renewed:
        return {}
    raise UserError(f"{path}: not a record of this version; remove it, or choose another --out")


def is_below(name):
    """Whether a name stays in its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def digest(path):
    """Of a plain file that can be read, else None."""
    try:
        return sha256_of(path) if path.is_file() and not path.is_symlink() else None
    except OSError:
        return None


def between(folder, name):
    """The folders between a file and `folder`, the innermost first."""
    return list((folder / name).parents)[: len(PurePosixPath(name).parts) - 1]


def require_absent(path, owner, by):
    """Raises UserError if anything is at a path where nothing may be replaced."""
    if os.path.lexists(path):
        whose = f"is of `distillbench {owner}`" if owner != by else f"is not what an earlier `distillbench {by}` left"
        raise UserError(f"{path}: {whose}; nothing is overwritten: move it away or choose another --out")


def require_place(folder, name):
    """Raises UserError where a folder is in a file's place or the other way round."""
    for path in between(folder, name):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path}: is a file where a folder is needed; move it away or choose another --out")
    if (folder / name).is_dir() and not (folder / name).is_symlink():
        raise UserError(f"{folder / name}: is a folder where a file is needed; move it away or choose another --out")


def remove_empty(folder, name):
    """Remove the folders that a deleted file leaves empty, up to `folder`."""
    for parent in between(folder, name):
        try:
            parent.rmdir()
        except OSError:
            return
