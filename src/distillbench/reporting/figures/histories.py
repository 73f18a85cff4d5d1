"""The histories of a cell's runs: of all figures that come from them."""

from distillbench.reporting.collect import shown


def histories_here(results):
    """For a title: how many runs' histories the figure is drawn from, where some are not here."""
    evaluated = set(shown(results.metrics, results.scope).index.get_level_values("run")) & set(results.index["run"])
    here = evaluated & results.histories.keys()
    return "" if here == evaluated else f" (history.csv of {len(here)} of {len(evaluated)} runs)"


def frames(results, row, pair):
    """The histories of a cell's runs, one a seed."""
    cells = results.index[(results.index["row"] == row) & (results.index["pair"] == pair)]
    return [results.histories[run] for run in cells["run"] if run in results.histories]


def _columns(frame, name):
    return [f"train_{name}_{i}" for i in range(sum(c.removeprefix(f"train_{name}_").isdigit() for c in frame))]


def vectors(results, row, pair, name):
    """Mean over a cell's runs, a line an epoch that was observed, a column a class; None where none observed it."""
    found = [frame[_columns(frame, name)] for frame in frames(results, row, pair) if _columns(frame, name)]
    return (sum(found) / len(found)).dropna() if found else None


def mean_vector(results, row, pair, name):
    """Mean over a cell's runs and epochs, as an array; None where none observed it."""
    frame = vectors(results, row, pair, name)
    return None if frame is None else frame.mean(axis=0).to_numpy()


def rows_with(results, name):
    """The rows of which some run observed a vector."""
    table = results.table
    return [row for row in table.rows if any(vectors(results, row, pair, name) is not None for pair in table.pairs)]
