"""Published copies of datasets: archives or their unpacked folders, under their official names, where people keep them.

They are looked for in the folders that the environment variable `DISTILLBENCH_DATA` names, as PATH does, and in the
project's folder `data`, in this order. Nothing is ever extracted, moved or written there.
"""

import hashlib
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from distillbench.errors import UserError

VARIABLE, FOLDER = "DISTILLBENCH_DATA", "data"
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


class Published(NamedTuple):
    """Under what names a dataset is published. files: {name of a file in the folder: its MD5}, as far as known.

    archive, url: None for one that is used as a folder alone, and never downloaded.
    """

    archive: str | None
    folder: str
    url: str | None
    files: dict[str, str]


class Copy:
    """The files of an archive or folder, read one by one, each under its name within the published folder."""

    def __init__(self, path, members, read):
        """members: {name: what `read` takes for the content}."""
        self.path, self.members, self._read = Path(path), members, read
        self.md5s, self.verified, self._digests = {}, "", {}

    def where(self, name):
        return f"{self.path}: {name}" if self.path.is_file() else str(self.path / name)

    def read(self, name):
        """The content of a file. Raises UserError where it is missing or damaged."""
        if name not in self.members:
            raise UserError(f"{self.where(name)}: is missing; get the data set again")
        try:
            content = self._read(self.members[name])
        except DAMAGED as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error}); get the data set again") from None
        if name in self.md5s and hashlib.md5(content).hexdigest() != self.md5s[name]:
            raise UserError(f"{self.where(name)}: is not the published file (its MD5 differs); get the data set again")
        self._digests[name] = hashlib.sha256(content).hexdigest()
        return content

    @property
    def digest(self):
        """SHA-256 over names and contents of all files that were read, in the order of their names."""
        lines = (f"{digest} {name}\n" for name, digest in sorted(self._digests.items()))
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def folders():
    """The folders where data sets are looked for. Raises UserError for one that is named and not there."""
    named = [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    for folder in named:
        if not folder.is_dir():
            raise UserError(f"{VARIABLE}: {folder}: no such folder; correct the variable or make the folder")
    return [*named, Path(FOLDER)]


def find(declared, published):
    """The first copy of a dataset in the first folder that has one, or None; one of one's own goes by its own name."""
    names = (declared["name"],) if declared["files_sha256"] else (published.archive, published.folder)
    paths = (folder / name for folder in folders() for name in names if name)
    return next((path for path in paths if path.exists()), None)


def place():
    """The first of the folders that can be written to, for what is downloaded."""
    return next(folder for folder in folders() if folder == Path(FOLDER) or os.access(folder, os.W_OK))


def verified_copy(declared, published, path):
    """The copy of a dataset at a path, with how far it is `verified`.

    An archive is compared as a whole, the files of a folder when they are read, as far as their digests are known.
    Raises UserError where there is none, or another than is published.
    """
    path = Path(path)
    if path.is_dir():
        copy = open_folder(path, published)
        copy.md5s = {} if declared["files_sha256"] else published.files
        known = copy.md5s or declared["files_sha256"]
        copy.verified = "every file" if known else "names, counts and sizes, not against the archive"
        return copy
    if declared["files_sha256"]:
        raise UserError(f"{path}: no such folder; name that of {declared['name']}")
    if (found := md5_of(path)) != declared["md5"]:
        differ = f"has the MD5 {found}, published is {declared['md5']}"
        raise UserError(f"{path}: {differ}: damaged, or not all of it; remove it and get it again")
    copy = _open_archive(path, published)
    copy.verified = "archive"
    return copy


def open_folder(path, published):
    """The `Copy` in a folder, whose files may lie in a folder of the official name within."""
    path = Path(path)
    root = path / published.folder if (path / published.folder).is_dir() else path
    paths = (Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return Copy(root, {path.relative_to(root).as_posix(): path for path in paths}, Path.read_bytes)


def _open_archive(path, published):
    try:
        return _zip(path, published) if zipfile.is_zipfile(path) else _tar(path, published)
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an archive ({error}); get it again") from None


def _zip(path, published):
    archive, begin = zipfile.ZipFile(path), f"{published.folder}/"
    files = (member for member in archive.infolist() if not member.is_dir() and member.filename.startswith(begin))
    return Copy(path, {member.filename.removeprefix(begin): member for member in files}, archive.read)


def _tar(path, published):
    """A compressed tar file is read once, from its beginning to its end, and kept in memory."""
    begin = f"{published.folder}/"
    with tarfile.open(path) as archive:
        files = (member for member in archive if member.isreg() and member.name.startswith(begin))
        contents = {member.name.removeprefix(begin): archive.extractfile(member).read() for member in files}
    return Copy(path, contents, bytes)


def md5_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:  # there is none, for one
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); name an archive or folder") from None
