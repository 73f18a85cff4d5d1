"""The paper folder, to \\input into a LaTeX document: tables, figures, a macro a number, the bibliography."""

import hashlib
import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from distillbench.errors import UserError
from distillbench.files import write_atomically
from distillbench.reporting.details import COLUMNS
from distillbench.reporting.evidence import NO_REFERENCE, citation_key, figure_files, gather, other_tables, references
from distillbench.reporting.statistics import standard_deviation
from distillbench.reporting.tables import METRIC, POOLED, mean, tex, to_latex

MISSING = r"\textsf{??}"
UNITS = (
    *("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"),
    *("Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen"),
)
TENS = ("Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def write_paper(table, details, index, store, folder, out, partial=False):
    """Write the folder `out`. details: of `build_details`; folder: where the suite's tables/ and figures/ lie."""
    folder, out, runs = Path(folder), Path(out), gather(index, store)
    tables = {"main": to_latex(table)}
    for path in other_tables(folder, "tex", partial):
        tables[path.stem.removeprefix("partial-")] = path.read_text(encoding="utf-8", errors="replace")
    figures = figure_files(table, folder / "figures", index, runs, partial)
    entries = bibliography(runs)
    numbers = macros(table, details)
    files = {f"{name}.tex": fitted(text, f"{table.suite}-{name}") for name, text in tables.items()}
    files["numbers.tex"] = definitions(table, numbers, runs)
    files["references.bib"] = "\n\n".join([*entries.values(), ""])
    files["example.tex"] = example(table, numbers, tables, figures, entries)
    for name, content in files.items():
        write_atomically(out / name, content)
    for name, _, path in figures:
        write_atomically(out / f"{name}.pdf", path.with_suffix(".pdf").read_bytes())


def fitted(text, label):
    """A table that shrinks where it is wider than the text, has a label, and minus signs in place of hyphens."""
    text = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", text)
    text = text.replace(r"\begin{tabular}", FIT + "\n" + r"\begin{tabular}")
    text = text.replace(r"\end{tabular}", r"\end{tabular}}").replace("booktabs}", "booktabs,graphicx}")
    return text.replace(r"\end{table}", rf"\label{{tab:{label}}}" + "\n" + r"\end{table}")


# Numbers


def words(text):
    """A text in letters alone: "resnet20" is ResnetTwenty, "GKD.K=-0.5" is GKDKMinusZeroPointFive."""
    text = re.sub(r"(?<![\w.])-(?=\d)", " Minus ", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " Point ", text)
    text = re.sub(r"[0-9]+", lambda found: f" {_spelled(found[0])} ", text)
    return "".join(word[0].upper() + word[1:] for word in re.findall("[A-Za-z]+", text))


def _spelled(digits):
    number = int(digits)
    if str(number) != digits or number > 99:
        return "".join(UNITS[int(digit)] for digit in digits)
    return UNITS[number] if number < 20 else TENS[number // 10 - 2] + (UNITS[number % 10] if number % 10 else "")


def macros(table, details):
    """{macro's name: (text, what it is)} of every number of both tables.

    Where two numbers would have one name (rows A+B and AB), both names end in letters made from row and pair:
    a new row can then rename a macro, which LaTeX reports, and never give it another row's number.
    """
    found = [("Runs", "", str(table.runs), "runs planned"), ("RunsFinished", "", str(table.finished), "runs finished")]

    def add(row, pair, values):
        for name, text, what in values:
            found.append((words(row) + words(pair) + name, f"{row}, {pair}", text, f"{row}, {pair}: {what}"))

    for (row, pair), entry in table.entries.items():
        last, best = list(entry.last.values()), list(entry.best.values())
        values = [
            ("TopOne", _number(mean(last)), "top-1 after the last epoch, mean"),
            ("TopOneSd", _number(standard_deviation(last)), "top-1 after the last epoch, standard deviation"),
            ("TopOneN", str(len(last)), "finished runs"),
            ("BestTopOne", _number(mean(best)), "top-1 of the best epoch (optimistic), mean"),
        ]
        add(row, pair, values)
        if entry.control:
            add(row, pair, _interval(entry.difference, entry.control))
    for row, difference in table.pooled.items():
        add(row, POOLED, _interval(difference, table.entries[row, table.pairs[0]].control))
    for line in details.to_dict("records"):
        add(line["row"], line["pair"], _details(line))
    counts = Counter(name for name, *_ in found)
    return {
        f"db{words(table.suite)}{name}{_letters(place) if counts[name] > 1 else ''}": (text, what)
        for name, place, text, what in found
    }


def _interval(interval, control):
    n, middle, low, high = interval
    return [
        ("Difference", _number(middle, "+"), f"difference to {control}, mean"),
        ("DifferenceLow", _number(low, "+"), f"difference to {control}, lower end of the 95 % interval"),
        ("DifferenceHigh", _number(high, "+"), f"difference to {control}, upper end of the 95 % interval"),
        ("DifferenceN", str(n), f"difference to {control}, seeds"),
    ]


def _details(line):
    """The numbers that the main table has not."""
    values = []
    for name, (heading, form) in COLUMNS.items():
        if name == METRIC:
            continue
        for ending, what in (("", "mean"), ("_sd", "standard deviation")):
            value = line[name + ending]
            text = MISSING if pd.isna(value) else form.format(value)
            values.append((words(name + ending), text, f"{heading}, {what}"))
    return values


def _number(value, sign=""):
    if math.isnan(value):
        return MISSING
    return rf"\ensuremath{{{value:+.2f}}}" if sign else f"{value:.2f}"


def _letters(text):
    return "".join(chr(ord("A") + byte % 26) for byte in hashlib.sha256(text.encode()).digest()[:4])


def definitions(table, numbers, runs):
    """The text of numbers.tex: a macro a line, and below them which keys of references.bib a row cites."""
    lines = [f"% The numbers of suite {table.suite}, rounded as in its tables; {MISSING} where there is none."]
    lines.append(f"% {_line(table.coverage)}")
    if table.banner:
        lines.append(f"% {table.banner}")
    lines += [rf"\newcommand{{\{name}}}{{{text}}}% {_line(what)}" for name, (text, what) in numbers.items()]
    lines.append("% What the rows use, by key in references.bib.")
    cited = {row: references(run.specification) for run in runs for row in run.rows}
    for row, used in cited.items():
        keys = [f"{what}: {citation_key(entry) if entry else NO_REFERENCE}" for what, entry in used.items()]
        lines.append(f"% {_line(row)}: {_line('; '.join(keys))}")
    return "\n".join([*lines, ""])


def _line(text):
    return " ".join(text.split())


def bibliography(runs):
    """{citation key: entry} of the methods, trainers and datasets that runs use."""
    found = {}
    for entry in (entry for run in runs for entry in references(run.specification).values() if entry):
        if found.setdefault(citation_key(entry), entry) != entry:
            raise UserError(f"bibtex: two different entries have the key {citation_key(entry)}; rename one")
    return found


# Example


def example(table, numbers, tables, figures, entries):
    """A complete document that uses every file of the folder."""
    name = tex(table.suite)
    text = [
        "% pdflatex example && bibtex example && pdflatex example && pdflatex example",
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
        r"\usepackage[a4paper,landscape,margin=2cm]{geometry}",
        r"\usepackage{booktabs,graphicx,url}",
        r"\input{numbers}",
        r"\begin{document}",
        rf"\section*{{Suite {name}}}",
    ]
    if table.banner:
        text.append(rf"\textbf{{{tex(table.banner)}}}" + "\n")
    places = ", ".join(rf"\ref{{tab:{table.suite}-{table_name}}}" for table_name in tables)
    text.append(f"Tables: {places}.")
    if entries:
        text.append(rf"References: \cite{{{','.join(entries)}}}.")
    text += [rf"\input{{{table_name}}}" for table_name in tables]
    for figure, caption, _ in figures:
        text += [
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[width=\linewidth,height=0.75\textheight,keepaspectratio]{{{figure}}}",
            rf"\caption{{{tex(caption)}}}",
            r"\end{figure}",
        ]
    text += [r"\subsection*{Numbers}", r"\begingroup\footnotesize\raggedright\setlength{\parindent}{0pt}"]
    text += [
        rf"{tex(_line(what))} \hfill \{macro}\\ \texttt{{\string\{macro}}}\par\smallskip"
        for macro, (_, what) in numbers.items()
    ]
    text.append(r"\endgroup")
    if entries:
        text += [r"\bibliographystyle{plain}", r"\bibliography{references}"]
    return "\n".join([*text, r"\end{document}", ""])
