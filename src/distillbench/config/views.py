"""How many views of an image an augmentation may give, and of what images. Planning asks, without torch."""

ORDER = 1  # raised when an augmentation numbers its views otherwise, see data/augment.py


def is_streamed(augmentation):
    """Whether the images are of any size and stay in their files, which a run reads again in every epoch."""
    return _kind_and_options(augmentation)[0] == "resized_crop_flip"


def view_count(augmentation):
    """How many different views of an image there are, or None where they are not finitely many.

    augmentation: as a dataset declares it.
    """
    kind, options = _kind_and_options(augmentation)
    if kind != "crop_flip":
        return None
    return (2 * options["crop_padding"] + 1) ** 2 * (2 if options["flip"] else 1)


def view_order(augmentation):
    """What tells which view has which number: a mapping for the header of a table."""
    kind, options = _kind_and_options(augmentation)
    return {"kind": kind, **options, "order": ORDER}


def _kind_and_options(augmentation):
    options = dict(augmentation)
    return options.pop("kind", "crop_flip"), options
