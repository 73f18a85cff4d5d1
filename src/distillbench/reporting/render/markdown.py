"""Markdown: a page with title, banner, one table whose columns are aligned, legend and notes."""

from distillbench.reporting.render.text import footnotes, lone, text, title


def render(sheet):
    sheet = sheet.shown
    banner = [f"**{sheet.banner}**"] if sheet.banner else []
    return "\n\n".join([f"# {sheet.title}", *banner, _table(sheet), sheet.legend, *footnotes(sheet)]) + "\n"


def _table(sheet):
    lines = [[text(sheet, *place) for place in zip(sheet.columns, line.cells, strict=True)] for line in sheet.lines]
    header, *lines = ([cell.replace("|", r"\|") for cell in line] for line in (_header(sheet), *lines))
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        for line in [header, ["-" * width for width in widths], *lines]
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _header(sheet):
    """In one line: a group's name takes the place of its first heading."""
    header = []
    for group, (first, *others) in sheet.groups:
        header += [group, *map(title, others)] if others else [lone(first)]
    return header
