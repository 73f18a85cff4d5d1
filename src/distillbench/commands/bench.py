"""The commands that time: the engine, and what feeds it."""

import os
import sys

import click

from distillbench.benchmark import PAIRS
from distillbench.commands.base import command
from distillbench.commands.types import File, Folder, device, option
from distillbench.errors import UserError

DEFAULT = f"{PAIRS['cpu']}; on a GPU {PAIRS['cuda']}"


@command("bench")
@click.option("--pairs", metavar="PAIRS", help=f"TEACHER:STUDENT, comma-separated (default: {DEFAULT})")
@click.option("--methods", metavar="METHODS", default="KD", help="as KD,DKD,KD+GKD,KD+DOT (default: KD)")
@device
@click.option("--quick", is_flag=True, help="less of everything: two minutes on two cores")
@click.option("--rounds", type=click.IntRange(1), help="how often each rung is timed (default: 6; quick: 2)")
@option("--upstream", Folder("checkout of mdistiller, timed as a rung of its own"))
@option("--data", Folder("folder that holds cifar-100-python (default: generated images)"))
@option("--json", File("file for the numbers, with the environment"))
def bench(pairs, methods, device, quick, rounds, upstream, data, json):
    """Time a training step on CIFAR-100's shapes: a plain loop, the engine, and each change between them.

    Rungs whose losses are not those of the plain loop have no number, and the exit code is 1.
    """
    from distillbench.benchmark import bench as benchmark
    from distillbench.benchmark.environment import environment
    from distillbench.benchmark.results import Result, as_json, as_text
    from distillbench.benchmark.upstream import checkout

    found = benchmark.device_of(device)
    size = (benchmark.QUICK if quick else benchmark.FULL)[found.type]
    size = size._replace(rounds=rounds or size.rounds)
    pairs, methods = _pairs(pairs or PAIRS[found.type]), _words("--methods", methods)
    _require_writable(json, "charged_to")
    results = []
    for climbed in benchmark.bench(pairs, methods, found, size, upstream and checkout(upstream, found), data, _say):
        results.append(Result(climbed))
        if json:  # before the text, whose reader may be gone
            _write(json, as_json(results, environment(found)))
        print(f"{as_text(results[-1])}\n", flush=True)
    return 1 if any(result.failed for result in results) else 0


@command("bench data")
@option("--from", Folder("folder with images of ImageNet (default: generated JPEGs of 500x375)"))
@click.option("--images", type=click.IntRange(1), help="with --from: so many of the folder's files (default: 200)")
@click.option("--rounds", type=click.IntRange(1), default=6, help="how often each way is timed (default: 6)")
@option("--json", File("file for the numbers, with the environment"))
def bench_data(images, rounds, json, **options):
    """Time the way of ImageNet's images from their files: images a second and core.

    By torchvision's transforms on Pillow, and as they are streamed. If these are other images, they have no number, and
    the exit code is 1.
    """
    import torch

    from distillbench.benchmark.environment import environment
    from distillbench.benchmark.loading import bench_loading
    from distillbench.benchmark.results import loading_as_json, loading_as_text

    _require_writable(json, "ways")
    if images and not options["from"]:
        raise UserError("--images: counts files of a folder; add --from FOLDER or leave it out")
    loaded = bench_loading(options["from"], images or 200, rounds, _say)
    if json:
        _write(json, loading_as_json(loaded, {**environment(torch.device("cpu")), "threads": 1}))
    print(loading_as_text(loaded), flush=True)
    return 1 if any(measured.reason for measured in loaded.measured) else 0


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _words(name, text):
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"{name}: {text!r}: a name is empty; write them with commas between")
    return list(dict.fromkeys(words))


def _pairs(text):
    pairs = [tuple(word.split(":")) for word in _words("--pairs", text)]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise UserError(f"--pairs: {':'.join(pair)!r} is not TEACHER:STUDENT")
    return pairs


def _require_writable(path, key):
    """Raises UserError where something else than the numbers of such a benchmark, which have the key, is in the way."""
    from distillbench.files import read_json

    if path and os.path.lexists(path):
        try:
            written_here = key in read_json(path)
        except (UserError, TypeError):
            written_here = False
        if not written_here:
            raise UserError(f"{path}: is not a benchmark's; nothing is overwritten: choose another --json")


def _write(path, content):
    from distillbench.files import to_json, write_atomically

    write_atomically(path, to_json(content))


COMMANDS = (bench, bench_data)
