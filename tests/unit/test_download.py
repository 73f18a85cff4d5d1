"""Downloads from a server on this machine that breaks off, starts over, or has something else."""

import fcntl
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from published import publish

from distillbench import data
from distillbench.commands import main
from distillbench.data import cifar100, copies, downloads
from distillbench.data.downloads import download
from distillbench.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; after `server.breaks` bytes an answer breaks off, as often as that is listed."""

    def do_GET(self):
        server, begin = self.server, 0
        server.asked.append(self.headers.get("Range"))
        if server.status:
            return self.send_error(server.status)
        if server.ranges and self.headers.get("Range"):
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if begin >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                return self.end_headers()
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        end = begin + server.breaks.pop(0) if server.breaks else None
        self.wfile.write(server.content[begin:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "WAIT", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.breaks, server.status, server.ranges, server.asked = CONTENT, [], None, True, []
    server.url = f"http://127.0.0.1:{server.server_port}/set.tar.gz"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def files():
    return sorted(path.name for path in Path("sets").iterdir())


def test_an_archive_is_brought_whole(server):
    assert download(server.url, MD5, "sets/set.tar.gz") == Path("sets/set.tar.gz")
    assert Path("sets/set.tar.gz").read_bytes() == CONTENT and files() == ["set.tar.gz"]
    assert server.asked == [None]


def test_a_broken_connection_is_gone_on_with_where_it_broke_off(server):
    server.breaks = [100_000, 50_000, 0]
    download(server.url, MD5, "sets/set.tar.gz")
    assert Path("sets/set.tar.gz").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_what_an_earlier_process_left_is_gone_on_with(server):
    Path("sets").mkdir()
    Path("sets/.set.tar.gz.part").write_bytes(CONTENT[:200_000])
    download(server.url, MD5, "sets/set.tar.gz")
    assert Path("sets/set.tar.gz").read_bytes() == CONTENT and files() == ["set.tar.gz"]
    assert server.asked == ["bytes=200000-"]


@pytest.mark.parametrize("left", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_all_or_more_than_all_ends_in_the_archive(server, left):
    Path("sets").mkdir()
    Path("sets/.set.tar.gz.part").write_bytes((CONTENT + b"x")[:left])
    download(server.url, MD5, "sets/set.tar.gz")
    assert Path("sets/set.tar.gz").read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_sends_all_again(server):
    server.ranges, server.breaks = False, [100_000]
    download(server.url, MD5, "sets/set.tar.gz")
    assert Path("sets/set.tar.gz").read_bytes() == CONTENT and server.asked == [None, "bytes=100000-"]


def test_after_attempts_that_bring_nothing_it_stops_and_says_what_to_do(server):
    server.breaks = [100_000] + [0] * 20
    with pytest.raises(UserError, match=r"broke off; download set.tar.gz by hand into sets/ or a folder that DISTILL"):
        download(server.url, MD5, "sets/set.tar.gz")
    assert len(server.asked) == 1 + downloads.ATTEMPTS - 1
    assert files() == [".set.tar.gz.part"] and Path("sets/.set.tar.gz.part").stat().st_size == 100_000
    server.breaks = []
    download(server.url, MD5, "sets/set.tar.gz")
    assert files() == ["set.tar.gz"]


def test_other_bytes_than_are_published_are_never_in_place(server):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(UserError, match=rf"has the MD5 .*, published is {MD5}; download set.tar.gz from elsewhere"):
        download(server.url, MD5, "sets/set.tar.gz")
    assert files() == []


@pytest.mark.parametrize("status, times", [(404, 1), (403, 1), (503, 5), (429, 5)])
def test_a_server_that_refuses_is_named_with_what_it_said(server, status, times):
    server.status = status
    with pytest.raises(UserError, match=rf"{server.url}: {status} .*; download set.tar.gz by hand") as error:
        download(server.url, MD5, "sets/set.tar.gz")
    assert "\n" not in str(error.value) and len(server.asked) == times and files() == []


def test_no_network_is_one_line(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"Connection refused.*; download set.tar.gz by hand into sets/"):
        download(server.url, MD5, "sets/set.tar.gz")


def test_a_full_disk_is_said_at_once(server):
    with open("/dev/full", "ab", buffering=0) as full, pytest.raises(UserError, match="sets: No space left on device"):
        downloads._fill(server.url, full, Path("sets/set.tar.gz"))
    assert len(server.asked) == 1


def test_two_processes_do_not_write_to_one_file(server):
    Path("sets").mkdir()
    with open("sets/.set.tar.gz.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            download(server.url, MD5, "sets/set.tar.gz")
    assert server.asked == []


# The command


@pytest.fixture
def published(server, monkeypatch):
    """The archive of a small CIFAR-100 on the server."""
    archive, _ = publish("cifar100", "there", monkeypatch)
    server.content = archive.read_bytes()
    monkeypatch.setattr(cifar100, "published", cifar100.published._replace(url=server.url))
    monkeypatch.delenv(copies.VARIABLE, raising=False)
    return archive.name


def test_what_is_nowhere_is_downloaded_once_and_prepared(server, published):
    assert main(["data", "cifar100"]) == main(["data", "cifar100"]) == 0
    assert Path("data", published).read_bytes() == server.content and len(server.asked) == 1
    assert data.load("cifar100", data.data_path("cifar100")).source["verified"] == "archive"


def test_it_is_put_into_the_first_folder_that_can_be_written_to(server, published, monkeypatch):
    for name in ("sets", "more"):
        Path(name).mkdir()
    monkeypatch.setenv(copies.VARIABLE, "sets:more")
    monkeypatch.setattr(copies.os, "access", lambda path, mode: str(path) != "sets")
    assert main(["data", "cifar100"]) == 0
    assert files() == [] and [path.name for path in Path("more").iterdir()] == [published]


def test_nothing_is_downloaded_where_a_copy_is_damaged(server, published, capsys):
    Path("data").mkdir()
    Path("data", published).write_bytes(b"half")
    assert main(["data", "cifar100"]) == 2 and server.asked == []
    assert "has the MD5" in capsys.readouterr().err
