"""The logit table of a finished run: what its students look up in place of asking it."""

import torch

from distillbench.config.implemented import require_predictable
from distillbench.data.augment import augmentation_of
from distillbench.engine.device import prepare_device
from distillbench.engine.feed import Split
from distillbench.engine.run import require_images
from distillbench.engine.table import content_of, write_table
from distillbench.engine.weights import load_run
from distillbench.errors import UserError
from distillbench.store.tables import Key, has_views, header_of, problem_of, read_header


def tabulate(run, checkpoint, images, path, device="auto", report=print):
    """Make the table of a finished run's logits, in IEEE fp32 whatever it was trained in, or verify the one there is.

    run: the run's directory; checkpoint: "last" or "best"; images: `data.Images` of its dataset; path: of the table.
    Raises UserError if its views cannot be counted, or as `write_table` and `load_run` do.
    """
    specification, network, digest = load_run(run, checkpoint, images)
    require_predictable(specification)
    require_images(specification, images)
    if not has_views(specification):
        name = specification["dataset"]["name"]
        raise UserError(f"{specification.id}: the views of {name} are not finitely many; no table can hold them")
    exact = {**specification.data, "precision": "fp32"}
    device = prepare_device(exact, device)
    header = header_of(specification, Key(specification.id, checkpoint), digest)
    if problem := problem_of(path, header):
        if path.exists():
            report(f"{path}: {problem}; made again")
    elif _is_as_written(path):
        return report(f"{path}: is there, with the digest that it names")
    else:
        report(f"{path}: its numbers are not those that it was written with; made again")
    split = Split.put(*images.training, exact, device)
    network = network.requires_grad_(False).to(device=device, memory_format=torch.channels_last).eval()
    write_table(path, network, split, augmentation_of(specification["views"]["augmentation"]), header, report)


def _is_as_written(path):
    with open(path, "rb") as file:
        return content_of(file) == read_header(path)["content"]
