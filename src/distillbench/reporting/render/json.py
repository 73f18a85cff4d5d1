"""JSON: the outcomes of a table, numbers in full; the metrics that DVC compares."""

import json
from math import isnan

from distillbench.reporting.sheet import Outcome


def render(sheet):
    """{row: {group: {metric: mean, "sd": deviation, "n": runs}}}, null where there is no number."""
    content = {line.name: {} for line in sheet.lines}
    for record in sheet.records():
        row, group, metric = (record[key][1].value.text for key in ("row", sheet.grouping, "metric"))
        for outcome in (cell.value for _, cell in record.values() if cell and isinstance(cell.value, Outcome)):
            numbers = {metric: outcome.spread.mean, "sd": outcome.spread.sd}
            content[row][group] = {k: None if isnan(v) else v for k, v in numbers.items()} | {"n": outcome.finished}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
