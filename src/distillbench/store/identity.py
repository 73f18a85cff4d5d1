"""What tells predictions from others, without numpy: planning asks it of every run."""

import ast
import hashlib
import os
import zipfile
import zlib
from functools import cache

TEXTS = {"weights_sha256": "weights_sha256.npy", "ranked_in": "precision.npy"}
BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, SyntaxError, KeyError, RuntimeError)


def identity(path):
    """{"weights_sha256", "ranked_in", "fingerprint"} of a predictions.npz; without numpy, for planning.

    The first two are texts in it, None for one that it has not; the last is a digest of the names, sizes and checksums
    of all its arrays. Raises ValueError if the file is not one.
    """
    status = os.stat(path)
    return dict(_identity(path, status.st_mtime_ns, status.st_size))


@cache
def _identity(path, *_changes):
    return identity_of(path)


def identity_of(file):
    """The same of a path or an open file, without a look at what is known of it."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted((member.filename, member.file_size, member.CRC) for member in archive.infolist())
            present = {name for name, *_ in members}
            texts = [_text(archive.read(name)) if name in present else None for name in TEXTS.values()]
    except BROKEN as error:
        raise ValueError(f"not predictions ({error})") from None
    return {**dict(zip(TEXTS, texts, strict=True)), "fingerprint": hashlib.sha256(repr(members).encode()).hexdigest()}


def _text(content):
    """The text of an array of numpy's file format, version 1, that holds one."""
    start = 10 + int.from_bytes(content[8:10], "little")
    kind = ast.literal_eval(content[10:start].decode("latin-1"))["descr"]
    if not kind.startswith("<U"):
        raise ValueError(f"{kind} where a text belongs")
    return content[start:].decode("utf-32-le").rstrip("\0")
