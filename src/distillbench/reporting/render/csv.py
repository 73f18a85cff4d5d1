r"""CSV: one line a row, or a row and group, a column a field of the values, numbers in full."""

import csv
import io
from math import isnan


def render(sheet):
    named = list(dict.fromkeys(name for column in sheet.columns if column.group for name in _names(column)))
    header = [name for column in sheet.columns if not column.group for name in _names(column)]
    header += [sheet.grouping, *named] if named else []
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for record in sheet.records():
        writer.writerow(
            {
                name: field
                for column, cell in record.values()
                if cell
                for name, field in zip(_names(column), _fields(cell.value), strict=True)
            }
        )
    return text.getvalue()


def _names(column):
    return column.fields or (column.key,)


def _fields(value):
    """The texts of what a value is made of, in its order; "" for a number that there is not."""
    if isinstance(value, tuple):
        return [text for field in value for text in _fields(field)]
    return [("" if isnan(value) else repr(float(value))) if isinstance(value, float) else str(value)]
