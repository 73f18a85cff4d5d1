"""The paper folder, to \\input into a LaTeX document: tables, figures, a macro a number, the bibliography."""

import hashlib
import math
import re
from collections import Counter
from pathlib import Path

from distillbench.errors import UserError
from distillbench.files import write_atomically
from distillbench.reporting.evidence import NO_REFERENCE, citation_key, figure_files, gather, references
from distillbench.reporting.render import latex
from distillbench.reporting.render.latex import tex
from distillbench.reporting.render.text import title
from distillbench.reporting.sheet import Difference, Number, Outcome, Spread

MISSING = r"\textsf{??}"
UNITS = (
    *("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"),
    *("Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen"),
)
TENS = ("Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")
END = "end of the 95 % interval"


def write_paper(results, folder, out, partial=False):
    """Write the folder `out` from `results.Results`. folder: the suite's, with figures/."""
    out, runs = Path(out), gather(results)
    sheets = results.main, results.details
    figures = figure_files(results, folder, runs, partial)
    entries = bibliography(runs)
    numbers = macros(results.table, *sheets)
    files = {f"{sheet.name}.tex": latex.render(sheet, _label(sheet)) for sheet in sheets}
    files["numbers.tex"] = definitions(results.table, numbers, runs)
    files["references.bib"] = "\n\n".join([*entries.values(), ""])
    files["example.tex"] = example(results.table, numbers, sheets, figures, entries)
    for name, content in files.items():
        write_atomically(out / name, content)
    for name, _, path in figures:
        write_atomically(out / f"{name}.pdf", path.with_suffix(".pdf").read_bytes())


def _label(sheet):
    return f"tab:{sheet.suite}-{sheet.name}"


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


def macros(table, main, details):
    """{macro's name: (text, what it is)} of every number of both sheets.

    Where two numbers would have one name (rows A+B and AB), both names end in letters made from row and pair:
    a new row can then rename a macro, which LaTeX reports, and never give it another row's number.
    """
    compared = table.scope.compared.heading
    named = {  # column of the main table: (name in a macro, what it is)
        "last": (words(compared), f"{compared} after the last epoch"),
        "best": (f"Best{words(compared)}", f"{compared} of the best epoch (optimistic)"),
        "difference": ("Difference", "difference"),
    }

    def is_new(column):
        """Whether people are shown a column, and the main table has not shown it before."""
        return column.shown and column.key != table.scope.headline

    found = [("Runs", "", str(table.runs), "runs planned"), ("RunsFinished", "", str(table.finished), "runs finished")]
    for record in (*main.records(), *details.records()):
        row, pair = (record[key][1].value.text for key in ("row", "pair"))
        for column, cell in record.values():
            for name, text, what in _numbers(column, cell.value, named) if cell and is_new(column) else ():
                found.append((words(row) + words(pair) + name, f"{row}, {pair}", text, f"{row}, {pair}: {what}"))
    counts = Counter(name for name, *_ in found)
    return {
        f"db{words(table.suite)}{name}{_letters(place) if counts[name] > 1 else ''}": (text, what)
        for name, place, text, what in found
    }


def _numbers(column, value, named):
    """[(end of the macro's name, text, what it is)] of a cell; none of texts and of what is counted elsewhere.

    named: {column's key: (name in a macro, what it is)} where they do not follow from the column.
    """
    name, what = named.get(column.key) or (words(column.key), title(column))
    match value:
        case Outcome(finished, _, _, spread):
            return [*_numbers(column, spread, named), (f"{name}N", str(finished), "finished runs")]
        case Spread(mean, sd):
            numbers = ("", mean, "mean"), ("Sd", sd, "standard deviation")
            return [(name + end, _number(number, column.form), f"{what}, {of}") for end, number, of in numbers]
        case Number(mean):
            return [(name, _number(mean, column.form), f"{what}, mean")]
        case Difference(control, (n, mean, low, high)):
            numbers = ("", mean, "mean"), ("Low", low, f"lower {END}"), ("High", high, f"upper {END}")
            what, form = f"{what} to {control}", f"+{column.form}"
            signed = [(name + end, _number(number, form), f"{what}, {of}") for end, number, of in numbers]
            return [*signed, (f"{name}N", str(n), f"{what}, seeds")]
    return []


def _number(value, form):
    if math.isnan(value):
        return MISSING
    return rf"\ensuremath{{{value:{form}}}}" if form[0] == "+" else format(value, form)


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


def example(table, numbers, sheets, figures, entries):
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
    places = ", ".join(rf"\ref{{{_label(sheet)}}}" for sheet in sheets)
    text.append(f"Tables: {places}.")
    if entries:
        text.append(rf"References: \cite{{{','.join(entries)}}}.")
    text += [rf"\input{{{sheet.name}}}" for sheet in sheets]
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
