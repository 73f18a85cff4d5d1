"""Files that are either whole or absent."""

import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

from distillbench.errors import UserError


@contextmanager
def naming(path):
    """An OSError that leaves this block names a file: that of a write to a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def writing(path):
    """A file to write bytes to, which takes the place of `path` where the block ends well: aside, fsync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path, content):
    """Write `content` (text, as UTF-8, or bytes) so that `path` never holds a part of it."""
    if isinstance(content, str):
        content = content.encode(errors="replace")  # a file's name may hold bytes that are no UTF-8
    with writing(path) as file:
        file.write(content)


def move(path, target):
    """Move a file so that `target` is always whole: the old one or the new one, also on another disk."""
    path, target = Path(path), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(target, path.read_bytes())
        path.unlink()


def write_if_changed(path, text):
    """Like `write_atomically`, but leaves a file with the same text (and its time) alone."""
    path = Path(path)
    if not path.exists() or path.read_bytes() != text.encode(errors="replace"):
        write_atomically(path, text)


def to_json(value):
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers of thousands of digits
        raise UserError(f"{path}: not readable as JSON ({error}); restore or remove it") from None


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
