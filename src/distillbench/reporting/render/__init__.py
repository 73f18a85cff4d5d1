"""Sheets as text, one format each: `render(sheet)` of every module. What people read in all of them is in `text`."""

from distillbench.reporting.render import csv, json, latex, markdown

FORMATS = {
    "main": {"csv": csv, "json": json, "md": markdown, "tex": latex},
    "details": {"csv": csv, "md": markdown, "tex": latex},
}


def files(sheets):
    """{file name: text} of a suite's tables."""
    return {
        f"{sheet.name}.{ending}": module.render(sheet)
        for sheet in sheets
        for ending, module in FORMATS[sheet.name].items()
    }
