"""Downloading a published archive: gone on with where it broke off, compared with its digest, in place all at once."""

import errno
import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from distillbench.data.copies import VARIABLE, md5_of
from distillbench.errors import UserError

ATTEMPTS, WAIT, TIMEOUT = 5, 2.0, 60.0  # attempts that bring nothing, seconds between attempts, and without an answer
BLOCK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)


def download(url, md5, path):
    """Bring an archive to its path, where no part of it is ever seen; returns the path.

    What an earlier attempt left beside it, .NAME.part, is gone on with where the server can. Raises UserError where it
    cannot be reached, has something else, or another process is at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    print(f"{url} -> {path}", flush=True)
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{part}: another process is downloading it; wait for that one") from None
        _fill(url, file, path)
        if (found := md5_of(part)) != md5:
            part.unlink()
            raise UserError(f"{url}: has the MD5 {found}, published is {md5}; {_by_hand(path, 'from elsewhere')}")
        os.fsync(file.fileno())
        os.replace(part, path)
    return path


def _fill(url, file, path):
    """Append what is missing, in several attempts; each that brings something is followed by as many again."""
    failures = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            if _receive(url, file):
                return
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                failures = ATTEMPTS
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in FULL:
                raise UserError(f"{path.parent}: {error.strerror}; make room, it goes on from there") from None
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 1 if file.seek(0, os.SEEK_END) > before else failures + 1
        if failures >= ATTEMPTS:
            if not file.tell():
                os.unlink(file.name)
            raise UserError(f"{url}: {problem}; {_by_hand(path)}") from None
        time.sleep(WAIT)


def _receive(url, file):
    """Append what a file lacks, or write it anew where the server sends all of it; whether it is whole then."""
    here = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # there is nothing behind these bytes
            raise
        if not error.headers.get("Content-Range", "").endswith(f"/{here}"):
            file.truncate(0)
            return False
        return True
    with answer:
        going_on = re.match(rf"bytes {here}-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if here and not (answer.status == 206 and going_on):
            file.truncate(0)
            here = 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        shown = {"unit": "B", "unit_scale": True, "disable": None, "initial": here, "total": total}
        with tqdm(desc="downloading", **shown) as bar:
            while content := answer.read(BLOCK):
                bar.update(file.write(content))
        file.flush()
        return total is None or file.tell() == total


def _by_hand(path, where=""):
    how = f"download {path.name}{f' {where}' if where else ''} by hand into {path.parent}/"
    return f"{how} or a folder that {VARIABLE} names"
