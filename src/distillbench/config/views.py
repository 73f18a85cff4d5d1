"""How many views of an image an augmentation may give. Planning asks, without torch."""

ORDER = 1  # raised when an augmentation numbers its views otherwise, see data/augment.py


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
