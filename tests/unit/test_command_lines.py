"""Command lines that are handed out do what they say for every name, and Snakemake's --config is read as typed."""

import shlex

import pytest
import stores
import yaml
from project import parsed
from snakemake.cli import parse_config
from snakemake_interface_executor_plugins.utils import format_cli_arg

from distillbench.command_lines import command, config_texts, exactly, handed_on, workflow
from distillbench.commands import main
from distillbench.config.suite import load_suite
from distillbench.errors import UserError

SUITES = ["007", "7", "1e5", "2026_11", "true", "True", "null", "on", "-x", "0x10", "inf", "_", "small"]
ROWS = ["007", "7", "1e5", "null", "-x", "--", "KD GKD", "it's", '"q"', "'", "#1", "a#b", "=", "a=b: c", "[x]", "[!x]"]
ROWS += ["K*", "K?", "{a: 1}", "a\\b", "$HOME", "`id`", "!1", "- x", "%", "&a", "*a", "λ", "~", "...", "a;b|c>d", "{x}"]
HEAD = "dataset: digits\nseeds: [0, 1]\npairs: [{teacher: resnet8, student: resnet8}]\nmethods:\n"


def suite_of(rows):

    types = {row: {"DISTILLER.TYPE": "NONE", "SOLVER.LR": 0.01 * (i + 1)} for i, row in enumerate(rows)}
    return HEAD + "".join(f"  {line}\n" for line in yaml.safe_dump(types, allow_unicode=True).splitlines())


def as_snakemake_reads(line):
    """{key: text} of a line from its shell through Snakemake to the workflow."""
    entries = shlex.split(line)[shlex.split(line).index("--config") + 1 :]
    return config_texts(parse_config(entries), entries)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_is_the_one_that_was_typed(suite):
    for entry in (f"suite={suite}", f'suite="{suite}"', f"suite='{suite}'"):
        assert config_texts(parse_config([entry]), [entry]) == {"suite": suite}
    assert as_snakemake_reads(workflow(suite)) == {"suite": suite}


def test_a_part_is_what_its_line_says_and_nothing_else(tmp_path):
    stores.new_project(tmp_path, suite_of(ROWS), "rows")
    suite = load_suite("rows", tmp_path)
    assert {cell.row for cell in suite.cells} == {"Teacher", *ROWS}
    for cell in suite.cells:
        texts = as_snakemake_reads(workflow("rows", cell.name))
        assert [c.name for c in suite.only(texts["only"]).cells] == [cell.name], cell.name
        assert [c.name for c in suite.only(exactly(cell.name)).cells] == [cell.name]


@pytest.mark.parametrize("name", [*SUITES, *ROWS])
def test_a_command_hands_on_its_arguments_as_they_are(name):
    words = shlex.split(command("explain", name, f"{name}/a-b/s0"))
    assert words[0] == "distillbench" and parsed(words[1:]) == {"suite": name, "cell": (f"{name}/a-b/s0",)}


@pytest.mark.parametrize("row", ["007", "-x", "it's", "#1", '"q"', "K*"])
def test_explain_hands_out_a_line_that_means_the_cell(tmp_path, monkeypatch, capsys, row):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, suite_of([row, "K1"]), "007")
    words = shlex.split(command("explain", "007", f"{row}/resnet8-resnet8/s1"))
    assert main(words[1:]) == 0
    (line,) = (text.split(None, 1)[1] for text in capsys.readouterr().out.splitlines() if "  workflow  " in text)
    texts = as_snakemake_reads(line)
    assert texts["suite"] == "007"
    assert [cell.name for cell in load_suite("007").only(texts["only"]).cells] == [f"{row}/resnet8-resnet8/s1"]


@pytest.mark.parametrize("text", [*ROWS, "it's \\ $HOME `x`", "'\"'", "\\'"])
def test_jobs_that_snakemake_starts_get_the_same_texts(text):
    entries = [f"only={text}", "suite=007"]
    assert shlex.split(format_cli_arg("--config", handed_on(entries))) == ["--config", *entries]


@pytest.mark.parametrize(
    "config, says",
    [({"suite": 7}, "suite: 7 in a config file is not text"), ({"only": ["a"]}, "only: "), ({"suit": "a"}, "unknown")],
)
def test_a_configuration_that_is_no_text_is_refused(config, says):
    with pytest.raises(UserError, match=says):
        config_texts(config, [])


@pytest.mark.parametrize("words", [["plan", "007", "--only", ""], ["export", "007", "--only", "", "--out", "a.tar"]])
def test_an_empty_part_is_not_the_whole_suite(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, stores.SUITE, "007")
    assert main(words) == 2
    assert "only: is empty" in capsys.readouterr().err
    with pytest.raises(UserError, match="only=: matches no run"):
        load_suite("007").only("")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x07"])
def test_a_row_with_a_control_character_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="a row's name is text"):
        stores.new_project(tmp_path, suite_of([name]))


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--spec", "s.json", "--out", ""],
        ["tables", "small", "--out", ""],
        ["tables", ""],
        ["parity", ""],
        ["evaluate", ""],
        ["explain", "small", ""],
        ["data", ""],
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_a_variable_that_is_not_set(tmp_path, monkeypatch, capsys, words):
    """It would mean the working directory, or any run."""
    stores.new_project(tmp_path)
    stores.finish_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = stores.files(tmp_path)
    assert main(words) == 2
    assert "is empty; perhaps a variable of the shell is not set" in capsys.readouterr().err
    assert stores.files(tmp_path) == before


@pytest.mark.parametrize("name", ["smal", "../suites/small", "small.yaml", "."])
@pytest.mark.parametrize("command", ["tables", "figures", "report", "collect --out X", "tables --out X"])
def test_a_suite_that_is_none_is_named_by_every_command(tmp_path, monkeypatch, capsys, command, name):
    stores.new_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    command, *options = command.split()
    assert main([command, name, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distillbench: suite={name}: unknown suite") and not (tmp_path / "X").exists()


@pytest.mark.parametrize("text", ["KD'", "'KD", '"KD', "'", "it's 'so'"])
def test_a_quote_that_is_part_of_a_text_stays(text):
    entry = f"only={text}"
    assert config_texts({"only": "whatever YAML reads"}, [entry]) == {"only": text}
