"""Who may change a run: one process at a time, whatever it does to it (train, evaluate, replace, delete).

The claim is an advisory lock on a file in the run's work directory; the system lifts it when the process ends, however
that happens. A claim that ends badly leaves its reason beside it, in failure.json.
"""

import fcntl
import os
import socket
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from distillbench.errors import RunFailed, UserError
from distillbench.files import to_json, write_atomically
from distillbench.store.layout import FAILURE, LOCK

PATIENCE = 2.0  # seconds before a wait is announced: a look at the lock takes an instant
_held = set()


@contextmanager
def claim(work, wait=True, report=print):
    """Hold a run for the time of the context; within one process a claim may be taken again.

    work: the run's work directory, made where missing and removed at the end if nothing is left in it;
    wait: whether to wait for another process to end, announced with one call of `report`.
    Raises UserError if another process has the run and `wait` is false.
    """
    work = Path(work)
    key = work.absolute()
    if key in _held:
        yield
        return
    lock = _take(work, wait, report)
    _held.add(key)
    try:
        (work / FAILURE).unlink(missing_ok=True)
        yield
    except Exception as error:
        _leave_reason(work, error)
        raise
    finally:
        _held.remove(key)
        _tidy(work, lock)
        lock.close()


def claimed(work):
    """Whether a process holds the run whose work directory this is."""
    try:
        with open(Path(work) / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _take(work, wait, report):
    """The open lock file. A file that its holder removed while this process waited for it is no lock: begin anew."""
    deadline, announced = time.monotonic() + PATIENCE, False
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = open(work / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (the claim closes it)
        except (FileNotFoundError, FileExistsError):  # the folder was removed since, or while it was looked at
            broken = (path for path in (work, *work.parents) if path.is_symlink() and not path.exists())
            if (work.exists() and not work.is_dir()) or any(broken):
                raise
            continue
        while not (mine := _try(lock)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not mine:
            lock.seek(0)
            owner = lock.read() or "another process"
            if not wait:
                lock.close()
                raise UserError(f"{work}: {owner} works on this run; wait for it or stop it")
            if not announced:
                report(f"{work}: {owner} works on this run; waiting for it")
                announced = True
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(lock, work / LOCK):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            return lock
        lock.close()


def _try(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _leave_reason(work, error):
    reason = next(iter(str(error).splitlines()), "").strip()
    if not isinstance(error, (UserError, RunFailed, OSError)):
        reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
    try:
        write_atomically(work / FAILURE, to_json({"reason": reason}))
    except OSError as problem:  # a full disk: the error itself matters more
        print(f"distillbench: {work}: the reason cannot be left there ({problem})", file=sys.stderr)


def _tidy(work, lock):
    """Remove the lock, and the directory if nothing else is in it; who waits for a lock that is gone begins anew."""
    with suppress(OSError):  # removed by whoever held the run, or filled by somebody else
        if _is_at(lock, work / LOCK):
            (work / LOCK).unlink()
            work.rmdir()
