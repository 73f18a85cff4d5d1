"""The suite's second table: calibration, likeness to the teacher and cost, a line a row and pair."""

import pandas as pd

from distillbench.reporting.collect import COSTS
from distillbench.reporting.statistics import standard_deviation
from distillbench.reporting.tables import ROLES, markdown, tex

COLUMNS = {  # name of the metric or cost: (heading, format)
    "top1": ("top-1 (%)", "{:.2f}"),
    "top5": ("top-5 (%)", "{:.2f}"),
    "nll": ("NLL", "{:.4f}"),
    "brier": ("Brier", "{:.4f}"),
    "ece": ("ECE (%)", "{:.2f}"),
    "agreement": ("agreement (%)", "{:.2f}"),
    "kl_to_teacher": ("KL to teacher", "{:.4f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "multiply_adds": ("multiply-adds", "{:,.0f}"),
    "seconds": ("training (s)", "{:.1f}"),
    "images_per_second": ("images/s", "{:.0f}"),
}
LEGEND = (
    "Test split, after the last epoch, mean ± standard deviation over runs, one a seed. NLL and KL(teacher || student)"
    " in nats at temperature 1; Brier score summed over classes (0 to 2); ECE with 15 bins of equal width; agreement:"
    " share of images for which student and teacher predict the same class. Parameters and multiply-adds (of the"
    " convolutions and linear layers, for one image) are the network's; training time and training images per second"
    " include the test after each epoch, and are comparable only where machines were the same and equally busy."
)


def build_details(index, metrics, costs):
    """A frame with row, pair, n and the mean and sd of every column of `COLUMNS` over the runs of a cell."""
    last = metrics[metrics["checkpoint"] == "last"].pivot(index="run", columns="metric", values="value")
    values = last.join(costs.set_index("run")[COSTS], how="outer").reindex(columns=list(COLUMNS))
    lines = []
    order = sorted(index.itertuples(), key=lambda cell: ROLES.index(cell.role))
    for row, pair in dict.fromkeys((cell.row, cell.pair) for cell in order):
        runs = [c.run for c in order if (c.row, c.pair) == (row, pair) and c.run in values.index]
        line = {"row": row, "pair": pair, "n": sum(run in last.index for run in runs)}
        for name in COLUMNS:
            found = values.loc[runs, name].dropna().astype(float)
            line |= {name: found.mean() if len(found) else None, f"{name}_sd": standard_deviation(found)}
        lines.append(line)
    return pd.DataFrame(lines)


def grid(details):
    """(header, lines) as people read it."""
    header = ["method", "pair", "n", *(heading for heading, _ in COLUMNS.values())]
    lines = [
        [line["row"], line["pair"], str(line["n"]), *(_cell(line, name, form) for name, (_, form) in COLUMNS.items())]
        for line in details.to_dict("records")
    ]
    return header, lines


def _cell(line, name, form):
    if pd.isna(line[name]):
        return "-"
    constant = pd.isna(line[f"{name}_sd"]) or name in ("parameters", "multiply_adds")
    return form.format(line[name]) + ("" if constant else f" ± {form.format(line[f'{name}_sd'])}")


def to_csv(table, details):
    return details.to_csv(index=False, lineterminator="\n")


def to_markdown(table, details):
    return f"# Details of suite {table.suite}\n\n{markdown(*grid(details))}\n\n{LEGEND} {table.coverage}\n"


def to_latex(table, details):
    """A booktabs table, complete with caption; wide."""
    header, lines = grid(details)
    head, *body = ("  " + " & ".join(map(tex, line)) + r" \\" for line in (header, *lines))
    rows, caption = "\n".join(body), f"Suite {table.suite}. {LEGEND} {table.coverage}"
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}\n  \\toprule\n{head}\n  \\midrule\n{rows}\n"
        f"  \\bottomrule\n\\end{{tabular}}\n\\caption{{{tex(caption)}}}\n\\end{{table}}\n"
    )


FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
