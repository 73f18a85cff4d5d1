"""LaTeX: a booktabs table, complete with caption."""

import re

from distillbench.reporting.render.text import footnotes, text, title

MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # a hyphen that is a sign
ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash ",
        **{c: "\\" + c for c in "&%$#_{}"},
        "±": r"$\pm$",
        "−": "$-$",
        "~": r"\~{}",
        "^": r"\^{}",
    }
)
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def render(sheet, label=""):
    """With a label, as a paper has it: labelled, shrunk where it is wider than the text, and with minus signs."""
    sheet, write = sheet.shown, (lambda plain: tex(MINUS.sub("−", plain))) if label else tex
    notes = (f"{note}." for note in footnotes(sheet))
    caption = " ".join(filter(None, [sheet.banner, f"Suite {sheet.suite}.", sheet.legend, *notes]))
    aligned = "".join(column.align[0] for column in sheet.columns)
    tabular = "\n".join(
        [
            rf"\begin{{tabular}}{{{aligned}}}",
            r"  \toprule",
            *_header(sheet, write),
            r"  \midrule",
            *(_line(sheet, line, write) for line in sheet.lines),
            r"  \bottomrule",
            r"\end{tabular}",
        ]
    )
    return "\n".join(
        [
            rf"% needs \usepackage{{booktabs{',graphicx' if label else ''}}}",
            r"\begin{table}",
            r"\centering",
            f"{FIT}\n{tabular}}}" if label else tabular,
            rf"\caption{{{write(caption)}}}",
            *([rf"\label{{{label}}}"] if label else []),
            r"\end{table}",
            "",
        ]
    )


def _header(sheet, write):
    """The names of the groups, where there are any, and the headings."""
    names = " & ".join(write(column.short or title(column)) for column in sheet.columns)
    if not any(group for group, _ in sheet.groups):
        return [rf"  {names} \\"]
    spans = (rf"\multicolumn{{{len(c)}}}{{c}}{{{write(g)}}}" if len(c) > 1 else write(g) for g, c in sheet.groups)
    return [rf"  {' & '.join(spans).lstrip()} \\", rf"  {names} \\"]


def _line(sheet, line, write):
    cells = (write(text(sheet, *place)) for place in zip(sheet.columns, line.cells, strict=True))
    return (
        rf"  {{}} {' & '.join(cells)} \\"  # without {} a line that begins with [ would be an argument of the \\ above
    )


def tex(plain):
    return plain.translate(ESCAPED)
