"""A params file with a fault: exit code 2 and one line that names the file, the key and the remedy."""

import copy
import os
import re
import subprocess
import sys

import pytest
import yaml
from standins import ROOT

from distillbench.commands import main
from distillbench.config import components
from distillbench.config.keys import Key
from distillbench.config.schema import all_keys
from distillbench.config.suite import load_suite
from distillbench.config.suite_sections import _short
from distillbench.config.yaml_file import read_yaml
from distillbench.errors import UserError, one_line

DEMO = yaml.safe_load((ROOT / "params" / "demo.yaml").read_text(encoding="utf-8"))
REMEDIES = ("did you mean", "valid:", "expected", "must be", "must increase", "remove", "write", "needs", "save")
REMEDIES += ("circle:", "a row's name is", "use base")  # these say what is to be changed
KEYS = sorted(all_keys())
SECTION_KEYS = ("DATASET.TYPE", "DISTILLER.TEACHER", "DISTILLER.STUDENT")  # set by other sections
OUT_OF_RANGE = {
    key: bound
    for key, schema in all_keys().items()
    for bound in [
        schema.minimum - 1 if schema.minimum is not None else None,
        schema.above,
        schema.maximum + 1 if schema.maximum is not None else None,
    ]
    if bound is not None
}


def write(folder, content, name="bad"):
    """Write a params file (bytes, text or a mapping) and return the project's folder."""
    path = folder / "params" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        content = yaml.safe_dump(content, sort_keys=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def changed(**sections):
    """The demo with other sections; None leaves one out."""
    content = copy.deepcopy(DEMO) | sections
    return {section: value for section, value in content.items() if value is not None}


def with_rows(**rows):
    return changed(methods={name.replace("_", "-"): row for name, row in rows.items()})


def check_line(code, out, err, *parts):
    assert (code, out) == (2, "")
    assert err.endswith("\n") and len(err.splitlines()) == 1, err
    assert "Traceback" not in err
    for part in ("params/bad.yaml", *parts):
        assert part in err
    assert any(remedy in err for remedy in REMEDIES), f"no remedy: {err}"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused(content, *parts): `plan bad` ends as it should for a fault, with these parts in its line."""

    def check(content, *parts):
        monkeypatch.chdir(write(tmp_path, content))
        code = main(["plan", "bad"])
        out, err = capsys.readouterr()
        check_line(code, out, err, *parts)
        assert not (tmp_path / "results").exists()
        return err

    return check


def ids(folder, content, row=None):
    """Run ids of the students of a suite, or of one row."""
    suite = load_suite("bad", write(folder, content))
    return [c.specification.id for c in suite.cells if c.role != "teacher" and row in (None, c.row)]


def one_row(row, **sections):
    """A suite of one row and one pair."""
    return changed(methods={"row": row}, pairs=[{"teacher": "resnet20", "student": "resnet8"}], **sections)


def wrong_value(key):
    schema = all_keys()[key]
    if isinstance(schema.default, str) and not schema.choices:
        return 7
    return [True] if schema.choices else "several"


# Every key of the schema


@pytest.mark.parametrize("key", KEYS)
def test_unknown_key_is_refused(refused, key):
    refused(changed(base={f"{key}_X": 1}), f"base.{key}_X", "unknown key")


@pytest.mark.parametrize("key", KEYS)
def test_misspelt_key_gets_a_suggestion(refused, key):
    node, dot, leaf = key.rpartition(".")
    misspelt = node + dot + leaf[:-1] if len(leaf) > 1 else key[1:]
    refused(changed(base={misspelt: all_keys()[key].default}), f"base.{misspelt}", "did you mean")


@pytest.mark.parametrize("key", KEYS)
def test_wrong_type_is_refused(refused, key):
    refused(changed(base={key: wrong_value(key)}), f"base.{key}", "expected")


@pytest.mark.parametrize("key", [key for key in KEYS if all_keys()[key].choices])
def test_unknown_choice_is_refused(refused, key):
    refused(changed(base={key: "zzz"}), f"base.{key}", "valid:")


@pytest.mark.parametrize("key", sorted(OUT_OF_RANGE))
def test_out_of_range_is_refused(refused, key):
    value = OUT_OF_RANGE[key]
    value = [value] if isinstance(all_keys()[key].default, (list, tuple)) else value
    refused(changed(base={key: value}), f"base.{key}", "must be")


@pytest.mark.parametrize("key", SECTION_KEYS)
def test_key_of_another_section_is_refused(refused, key):
    refused(changed(base={key: "digits"}), f"base.{key}", "is set by")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, ""])
def test_what_is_no_number_is_refused(refused, value):
    refused(changed(base={"SOLVER.LR": value}), "base.SOLVER.LR", "expected number")


def test_stages_must_increase(refused):
    refused(changed(base={"SOLVER.LR_DECAY_STAGES": [5, 3]}), "base.SOLVER.LR_DECAY_STAGES", "must increase")


# Missing


@pytest.mark.parametrize("section", ["dataset", "seeds", "pairs", "methods"])
def test_missing_section_is_named(refused, section):
    refused(changed(**{section: None}), f": {section}: is missing")


def test_missing_method_type_is_named(refused):
    refused(with_rows(KD={"KD.TEMPERATURE": 4}), "methods.KD", "DISTILLER.TYPE is missing")


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_missing_network_is_named(refused, side):
    pair = {"teacher": "resnet20", "student": "resnet8"}
    del pair[side]
    refused(changed(pairs=[pair]), f"pairs[0].{side}", "is missing")


# Names and sections


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (changed(method={}), ("method", "did you mean methods?")),
        (changed(dataset="digit"), ("dataset", "did you mean digits?")),
        (changed(pairs=[{"teacher": "resnet21", "student": "resnet8"}]), ("pairs[0].teacher", "did you mean")),
        (changed(pairs=[{"teacher": "resnet20", "student": "resnt8"}]), ("pairs[0].student", "did you mean")),
        (changed(pairs=[DEMO["pairs"][0]] * 2), ("pairs", "expected")),
        (with_rows(KD={"DISTILLER.TYPE": "KDD"}), ("methods.KD.DISTILLER.TYPE", "did you mean KD?")),
        (with_rows(KD={"DISTILLER.TYPE": "KD", "SOLVER.TRAINER": "bas"}), ("SOLVER.TRAINER", "did you mean base?")),
        (changed(seeds=[0, 0]), ("seeds", "expected")),
        (changed(seeds=[-1]), ("seeds", "expected")),
        (changed(seeds=3), ("seeds", "expected")),
        (changed(teacher_seed="same"), ("teacher_seed", "expected fixed or matched")),
        (changed(protocol="publishd"), ("protocol", "did you mean published?")),
        (changed(protocol=0.1), ("protocol", "expected published or {holdout: 0.1}")),
        (changed(protocol={"salt": 1}), ("protocol", "expected published or {holdout: 0.1}")),
        (changed(protocol={"holdout": 0.1, "slat": 1}), ("protocol", "did you mean salt?")),
        (changed(protocol={"holdout": 0.6}), ("protocol.holdout", "must be > 0 and <= 0.5")),
        (changed(teachers={"protocol": {"holdout": 0}}), ("teachers.protocol.holdout", "must be > 0")),
        (
            changed(protocol={"holdout": 0.1}, teachers={"protocol": "published"}),
            ("teachers.protocol", "their students hold out", "write `allow_seen_teacher: true`"),
        ),
        (changed(allow_seen_teacher=True), ("allow_seen_teacher", "remove it")),
        (changed(allow_seen_teacher="yes"), ("allow_seen_teacher", "expected true or false")),
        (changed(teachers={"checkpoint": "first"}), ("teachers.checkpoint", "expected last or best")),
        (changed(teachers={"seed": "0"}), ("teachers.seed", "expected an integer")),
        (changed(teachers={"DISTILLER.TYPE": "KD"}), ("teachers.DISTILLER.TYPE", "remove")),
        (changed(teachers=[]), ("teachers", "expected")),
        (changed(base=[]), ("base", "expected")),
        (changed(methods={}), ("methods", "expected")),
        (changed(methods={"KD": "KD"}), ("methods.KD", "expected")),
        (changed(base={"SOLVER": 3}), ("base.SOLVER", "is a node, expected")),
        (changed(base={"SOLVR": {"LR": 3}}), ("base.SOLVR", "did you mean SOLVER?")),
        (changed(sweep=[]), ("sweep", "expected")),
        (changed(sweep={"KD.TEMPERATURE": 4}), ("sweep.KD.TEMPERATURE", "expected")),
        (changed(sweep={"KD.TEMPERATUR": [4]}), ("sweep.KD.TEMPERATUR", "did you mean")),
        (changed(sweep={"KD.TEMPERATURE": [0]}), ("sweep.KD.TEMPERATURE", "must be > 0")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_fault_in_a_section_is_named(refused, content, parts):
    refused(content, *parts)


@pytest.mark.parametrize("reference", ["like", "control"])
def test_reference_to_an_unknown_row_is_refused(refused, reference):
    refused(
        with_rows(KD={"DISTILLER.TYPE": "KD"}, other={"DISTILLER.TYPE": "KD", reference: "KDD"}),
        f"methods.other.{reference}",
        "did you mean KD?",
    )


@pytest.mark.parametrize("reference", ["like", "control"])
def test_reference_to_the_row_itself_is_refused(refused, reference):
    rows = {"NONE": {"DISTILLER.TYPE": "NONE"}, "KD": {"DISTILLER.TYPE": "KD", reference: "KD"}}
    refused(changed(methods=rows), f"methods.KD.{reference}")


def test_circular_like_is_refused(refused):
    rows = {"a": {"DISTILLER.TYPE": "KD", "like": "b"}, "b": {"like": "a"}}
    refused(changed(methods=rows), "methods.a.like", "goes in a circle: a -> b -> a")


@pytest.mark.parametrize("name", ["Teacher", "a/b", "a,b", " a", ""])
def test_row_name_that_patterns_could_not_name_is_refused(refused, name):
    refused(changed(methods={name: {"DISTILLER.TYPE": "NONE"}}), f"methods.{name}", "a row's name is text without")


def test_key_that_a_row_does_not_read_is_refused(refused):
    refused(with_rows(NONE={"DISTILLER.TYPE": "NONE", "KD.WARMUP": 1}), "methods.NONE.KD.WARMUP", "remove it")


def test_scaling_a_method_without_distillation_loss_is_refused(refused):
    refused(with_rows(NONE={"DISTILLER.TYPE": "NONE", "GKD": {}}), "methods.NONE.GKD", "remove GKD")


def test_a_sweep_makes_a_row_of_each_value_however_close(tmp_path):
    content = one_row({"DISTILLER.TYPE": "NONE"}, sweep={"SOLVER.LR": [0.1000001, 0.1000002, 0.1]})
    suite = load_suite("bad", write(tmp_path, content))
    rows = {cell.row.partition("SOLVER.LR=")[2] for cell in suite.cells if cell.role == "student"}
    assert rows == {"0.1000001", "0.1000002", "0.1"}


def test_a_sweep_that_makes_the_name_of_another_row_is_refused(refused):
    content = one_row({"DISTILLER.TYPE": "NONE"}, sweep={"KD.TEMPERATURE": [2]})
    content["methods"] = {"A": {"DISTILLER.TYPE": "KD"}, "A KD.TEMPERATURE=2": {"DISTILLER.TYPE": "NONE"}}
    refused(content, "sweep", "makes a second row A KD.TEMPERATURE=2; remove or rename")


def test_sweep_over_a_key_that_no_row_reads_is_refused(refused):
    content = one_row({"DISTILLER.TYPE": "NONE"}, sweep={"KD.TEMPERATURE": [1, 2]})
    refused(content, "sweep.KD.TEMPERATURE", "is read by no row; remove it")


def test_dotted_and_nested_twice_is_refused(refused):
    refused(changed(base={"SOLVER": {"LR": 0.1}, "SOLVER.LR": 0.1}), "base.SOLVER.LR", "stands twice", "remove one")


# Strict YAML


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("seeds: [0]\nseeds: [1]\n", ("line 2", "'seeds'", "stands twice", "remove one")),
        ("methods:\n  NO: {DISTILLER.TYPE: NONE}\n", ("line 2", "key NO as False", 'write "NO" in quotes')),
        ("methods:\n  on: {DISTILLER.TYPE: NONE}\n", ("line 2", "key on as True", 'write "on" in quotes')),
        ("methods:\n  2019: {DISTILLER.TYPE: KD}\n", ("line 2", "key 2019 as 2019", "in quotes")),
        (b"dataset: digits\nmethods: \xff\n", ("not UTF-8", "byte 25", "save the file as UTF-8")),
        ("- dataset\n", ("expected a mapping", "found list")),
        ("", ("expected a mapping", "found NoneType")),
        ("digits\n", ("expected a mapping", "found str")),
    ],
    ids=["twice", "NO", "on", "number", "utf8", "list", "empty", "text"],
)
def test_yaml_that_would_be_read_otherwise_is_refused(refused, content, parts):
    refused(content, *parts)


AMBIGUOUS = [  # as written, what YAML 1.1 makes of it, what to write
    ("010", "8", "write 8, 10, or"),
    ("-017", "-15", "write -15, -17, or"),
    ("0_7", "7", "write 7, or"),
    ("00", "0", "write 0, or"),
    ("08", "'08'", "write 8, or"),
    ("0o17", "'0o17'", "write 15, or"),
    ("0x1F", "31", "write 31, or"),
    ("0b101", "5", "write 5, or"),
    ("1_000", "1000", "write 1000, or"),
    ("1_000.5", "1000.5", "write 1000.5, or"),
    ("1:30", "90", "write 90, or"),
    ("1:30.5", "90.5", "write 90.5, or"),
    ("2026-01-01", "the date 2026-01-01", "write"),
    ("2001-12-14 21:59:43", "the date 2001-12-14 21:59:43", "write"),
    ("yes", "True", "write true, or"),
    ("Off", "False", "write false, or"),
]
PLACES = {
    "value": "base: {{SOLVER.EPOCHS: {}}}\n",
    "seed": "seeds: [0, {}]\n",
    "deep": "base:\n  SOLVER: {{LR_DECAY_STAGES: [1, [{{a: {}}}]]}}\n",
    "reference": "methods: {{a: {{DISTILLER.TYPE: KD, control: {}}}}}\n",
    "anchored": "base: {{SOLVER.EPOCHS: &n {}, SOLVER.BATCH_SIZE: *n}}\n",
    "merged": "base: {{<<: {{SOLVER.EPOCHS: {}}}}}\n",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("text", "read", "write_"), AMBIGUOUS, ids=[text for text, *_ in AMBIGUOUS])
def test_a_value_that_yaml_reads_as_nobody_means_it_is_refused(refused, place, text, read, write_):
    content = "dataset: digits\n" + PLACES[place].format(text)
    line = 3 if place == "deep" else 2
    refused(content, f"line {line}: YAML 1.1 reads {text} as {read}; ", write_, f'"{text}" in quotes')


@pytest.mark.parametrize("text", [text for text, *_ in AMBIGUOUS])
def test_the_same_in_quotes_is_a_text(tmp_path, text):
    (tmp_path / "file.yaml").write_text(f"a: ['{text}', \"{text}\"]\n'{text}': 1\n")
    assert read_yaml(tmp_path / "file.yaml") == {"a": [text, text], text: 1}


def test_what_everybody_reads_alike_is_a_value(tmp_path):
    written = "[0, 12, +3, -4, 1.5, 1., .5, 1.0e-4, 5.0e+2, true, False, null, ~, 1e5, resnet20, v1.2.3, a:b, 1-2]"
    (tmp_path / "file.yaml").write_text(f"a: {written}\n")
    numbers = [0, 12, 3, -4, 1.5, 1.0, 0.5, 1e-4, 500.0]
    texts = ["1e5", "resnet20", "v1.2.3", "a:b", "1-2"]
    assert read_yaml(tmp_path / "file.yaml")["a"] == [*numbers, True, False, None, None, *texts]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("010: {DISTILLER.TYPE: KD}", ("key 010 as 8", 'write "010" in quotes')),
        ("1_000: {DISTILLER.TYPE: KD}", ("key 1_000 as 1000", "in quotes")),
        ("2026-01-01: {DISTILLER.TYPE: KD}", ("the key 2026-01-01", "in quotes")),
        ("2024-13-45: {DISTILLER.TYPE: KD}", ("2024-13-45", "in quotes")),
        ("=: {DISTILLER.TYPE: KD}", ("= is a sign", "in quotes")),
        ("a: {DISTILLER.TYPE: KD, control: =}", ("= is a sign", "in quotes")),
        ("a: {DISTILLER.TYPE: KD, control: <<}", ("<< is a sign", "in quotes")),
        ("a: {DISTILLER.TYPE: KD, KD.WARMUP: 0b_}", ("0b_", "in quotes")),
        ("a: {DISTILLER.TYPE: KD, KD.WARMUP: !!int '010'}", ("the tag !!int", "remove it")),
        ("a: !!python/object/apply:os.system ['true']", ("the tag !!python/object/apply:os.system", "remove it")),
        ("a: !mine {DISTILLER.TYPE: KD}", ("the tag !mine", "remove it")),
        ("a: {DISTILLER.TYPE: KD}\n  a: {DISTILLER.TYPE: DKD}", ("'a' stands twice", "remove one")),
    ],
)
def test_a_key_a_sign_or_a_tag_is_named_with_its_line(refused, text, parts):
    refused(f"dataset: digits\nmethods:\n  {text}\n", "line ", *parts)


def test_a_quoted_number_is_decimal_or_refused(refused):
    refused(changed(base={"SOLVER.EPOCHS": "1_000"}), "base.SOLVER.EPOCHS", "expected integer")


def test_a_reference_to_a_row_that_is_a_number_to_yaml_says_so(refused):
    rows = {"2019": {"DISTILLER.TYPE": "KD"}, "b": {"DISTILLER.TYPE": "KD", "control": 2019}}
    refused(changed(methods=rows), "methods.b.control", 'write "2019" in quotes')


MERGED = [
    ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3, z: 4}\n", {"x": 1, "y": 3, "z": 4}),
    ("a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\n", {"x": 1, "y": 3}),
    ("a: &a {x: 1}\nc: &c {x: 2, y: 2}\nb: {<<: [*a, *c]}\n", {"x": 1, "y": 2}),
    ("a: &a {x: 1}\nc: &c {<<: *a, y: 2}\nb: {<<: *c, y: 3}\n", {"x": 1, "y": 3}),
    ("b:\n  <<: {x: 1}\n  y: 2\n", {"x": 1, "y": 2}),
    ("a: &a {S: {L: 1, M: 2}}\nb: {<<: *a, S: {N: 3}}\n", {"S": {"N": 3}}),
    ("a: &a {S: {L: 1, M: 2}}\nb: {<<: *a, S.L: 3}\n", {"S": {"M": 2}, "S.L": 3}),
    ("a: &a {S.L: 1, S.M: 2}\nb: {<<: *a, S: {L: 3}}\n", {"S": {"L": 3}, "S.M": 2}),
    ('b: {"<<": 1}\n', {"<<": 1}),
]


@pytest.mark.parametrize(("text", "expected"), MERGED)
def test_the_merge_key_merges_and_what_is_written_beside_it_counts_more(tmp_path, text, expected):
    (tmp_path / "file.yaml").write_text(text)
    assert read_yaml(tmp_path / "file.yaml")["b"] == expected


def test_a_merged_row_is_the_row_written_out(tmp_path):
    head = "dataset: digits\nseeds: [0]\npairs: [{teacher: resnet20, student: resnet8}]\nmethods:\n"
    first = "  KD: &kd {DISTILLER.TYPE: KD, KD: {TEMPERATURE: 2, WARMUP: 3}}\n"
    merged = ids(tmp_path, head + first + "  row: {<<: *kd, KD.TEMPERATURE: 5, GKD: {}}\n", "row")
    row = "{DISTILLER.TYPE: KD, KD: {TEMPERATURE: 5, WARMUP: 3}, GKD: {}}"
    assert merged == ids(tmp_path, head + first + f"  row: {row}\n", "row")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", ("line 4", "<< stands twice", "write <<: [*first, *second]")),
        ("a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}\n", ("line 2", "'y' stands twice")),
        ("b: {<<: 3}\n", ("line 1", "<< takes mappings")),
        ("a: &a {x: 1}\nb: {<<: [*a, 3]}\n", ("line 2", "<< takes mappings")),
        ("a: &a {<<: *a}\n", ("line 1", "not valid YAML")),
        ("a: &a [*a]\n", ("line 1", "not valid YAML")),
        ("a: [" + "[" * 5000, ("not valid YAML",)),
        ('a: "\\UFFFFFFFF"\n', ("not valid YAML",)),
    ],
    ids=["twice", "a key twice", "a number", "a number in a list", "merge circle", "circle", "deep", "no character"],
)
def test_a_merge_or_an_alias_that_cannot_be_is_one_line(tmp_path, text, parts):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "file.yaml")
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in ("file.yaml", *parts))


@pytest.mark.parametrize("grown", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_of_aliases_do_not_grow_without_end(tmp_path, grown):
    lines = ["a0: &a0 [x, x]" if grown.startswith("[") else "a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {grown.format(', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, 30)]
    (tmp_path / "file.yaml").write_text("\n".join([*lines, ""]))
    with pytest.raises(UserError, match="aliases stand for more than"):
        read_yaml(tmp_path / "file.yaml")


@pytest.mark.parametrize("text", ["seeds: [0, 1\n", "a: b: c\n", "a:\n\t- b\n", "a: *nothing\n", "a: \x00\n"])
def test_invalid_yaml_is_one_line(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(write(tmp_path, text))
    assert main(["plan", "bad"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert "params/bad.yaml" in err and "not valid YAML" in err and "check indentation" in err


def test_a_directory_is_not_a_params_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "params" / "bad.yaml").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "bad"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "params/bad.yaml: cannot be read" in err


def test_unknown_suite_gets_a_suggestion(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write(tmp_path, DEMO, "demo"))
    assert main(["plan", "dmeo"]) == 2
    assert "did you mean demo?" in capsys.readouterr().err


def test_the_alias_node_is_read_by_its_own_rows_only(tmp_path):
    alias = one_row({"DISTILLER.TYPE": "GradientKD", "GradientKD.TEMPERATURE": 2})
    in_base = {**one_row({"DISTILLER.TYPE": "GradientKD"}), "base": {**DEMO["base"], "GradientKD.TEMPERATURE": 2}}
    plain = {**one_row({"DISTILLER.TYPE": "GradientKD"}), "base": {**DEMO["base"], "KD.TEMPERATURE": 2}}
    assert ids(tmp_path, alias) == ids(tmp_path, in_base)
    assert ids(tmp_path, plain) == ids(tmp_path, one_row({"DISTILLER.TYPE": "GradientKD"}))
    assert ids(tmp_path, plain) != ids(tmp_path, alias)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (one_row({"DISTILLER.TYPE": "GradientKD", "KD.TEMPERATURE": 2}), "methods.row.KD.TEMPERATURE: not read"),
        (changed(base={"DISTILLER.TYPE": "KD"}), "base.DISTILLER.TYPE: is set by `methods:`"),
        (changed(base={"SOLVER.TRAINER": "bases"}), "base.SOLVER.TRAINER: unknown value 'bases'; did you mean base?"),
        (changed(dataset=["digits"]), "dataset: unknown dataset"),
        (changed(sweep={"DISTILLER.TYPE": ["KD"]}), "sweep.DISTILLER.TYPE: unknown key"),
        ("dataset: 2024-13-45\n", "not valid YAML"),
        (changed(base={"SOLVER.EPOCHS": 10**400}), "base.SOLVER.EPOCHS"),
    ],
    ids=["alias and KD", "type below rows", "trainer", "list as name", "swept type", "impossible date", "huge number"],
)
def test_what_a_review_found_is_one_line_at_its_own_place(tmp_path, monkeypatch, capsys, content, part):
    monkeypatch.chdir(write(tmp_path, content))
    assert main(["plan", "bad"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and part in err


def test_a_swept_key_of_the_alias_is_read(tmp_path):
    swept = {**one_row({"DISTILLER.TYPE": "GradientKD"}), "sweep": {"GradientKD.TEMPERATURE": [1, 2]}}
    assert len(set(ids(tmp_path, swept))) == 2 * len(DEMO["seeds"])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (changed(base={"SOLVER.LRR": 1}), "base.SOLVER.LRR"),
        (changed(seeds=None), "seeds"),
        ("seeds: [0]\nseeds: [1]\n", "seeds"),
    ],
    ids=["unknown", "missing", "twice"],
)
def test_process_ends_with_code_2_and_one_line(tmp_path, content, part):
    command = [sys.executable, "-m", "distillbench", "plan", "bad"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=write(tmp_path, content), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    check_line(done.returncode, done.stdout, done.stderr, part)


# What a right file means


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0", "4e0"])
def test_spelling_of_a_number_does_not_rename_a_run(tmp_path, value):
    row = {"DISTILLER.TYPE": "KD", "KD.TEMPERATURE": 4}
    assert ids(tmp_path, one_row({**row, "KD.TEMPERATURE": value})) == ids(tmp_path, one_row(row))


def test_exponent_that_yaml_reads_as_text_is_a_number(tmp_path):
    text = "dataset: digits\nseeds: [0]\npairs: [{teacher: resnet20, student: resnet8}]\nbase: {SOLVER.LR: %s}\n"
    text += "methods: {NONE: {DISTILLER.TYPE: NONE}}\n"
    assert isinstance(yaml.safe_load("1e-2"), str)
    assert ids(tmp_path, text % "1e-2") == ids(tmp_path, text % "0.01") != ids(tmp_path, text % "0.02")


def test_dotted_and_nested_spelling_are_the_same(tmp_path):
    nested = one_row({"DISTILLER": {"TYPE": "KD"}, "KD": {"LOSS": {"CE_WEIGHT": 0.5}}})
    assert ids(tmp_path, nested) == ids(tmp_path, one_row({"DISTILLER.TYPE": "KD", "KD.LOSS.CE_WEIGHT": 0.5}))


def student(folder, content, row="row"):
    """The specification of a row's first student."""
    return next(c.specification for c in load_suite("bad", write(folder, content)).cells if c.row == row)


def test_a_row_beats_its_pair_and_a_pair_beats_the_base(tmp_path):
    base, pair = {"SOLVER.BATCH_SIZE": 8, "SOLVER.LR": 0.1, "SOLVER.EPOCHS": 2}, {"SOLVER.LR": 0.2, "SOLVER.EPOCHS": 3}
    pairs = [{"teacher": "resnet20", "student": "resnet8", **pair}]
    row = {"DISTILLER.TYPE": "KD", "SOLVER.EPOCHS": 4}
    content = changed(base=base, pairs=pairs, teachers={"SOLVER.LR": 0.3}, methods={"row": row})
    specification = student(tmp_path, content)
    found = [specification["batch"]["size"], *(specification["schedule"][key] for key in ("LR", "EPOCHS"))]
    assert found == [8, 0.2, 4]
    teacher = student(tmp_path, content, "Teacher")
    assert [teacher["batch"]["size"], *(teacher["schedule"][key] for key in ("LR", "EPOCHS"))] == [8, 0.3, 2]


def test_smooth_labels_and_mixed_images_are_the_teachers_unless_its_section_says_otherwise(tmp_path):
    base, row = {"SOLVER": {"LABEL_SMOOTHING": 0.1, "MIXUP": 0.2}}, {"row": {"DISTILLER.TYPE": "KD"}}

    def found(name, **sections):
        specification = student(tmp_path, changed(base=base, methods=row, **sections), name)
        return specification.label_smoothing, specification.mixup

    assert found("row") == found("Teacher") == (0.1, 0.2)
    assert found("Teacher", teachers={"SOLVER": {"LABEL_SMOOTHING": 0, "MIXUP": 0.5}}) == (0, 0.5)


def test_a_row_has_what_it_is_like_and_its_own_on_top(tmp_path):
    rows = {
        "GKD": {"DISTILLER.TYPE": "KD", "KD.TEMPERATURE": 2, "KD.WARMUP": 3, "GKD": {}},
        "near": {"like": "GKD", "KD.TEMPERATURE": 5},
        "far": {"like": "near", "KD.WARMUP": 7},
    }
    for name, expected in {"GKD": (2, 3), "near": (5, 3), "far": (5, 7)}.items():
        specification = student(tmp_path, changed(methods=rows), name)
        parameters = specification["method"]["parameters"]
        assert (parameters["TEMPERATURE"], parameters["WARMUP"]) == expected
        assert specification["gradient_scaling"] is not None


@pytest.mark.parametrize("key", [key for key in KEYS if type(all_keys()[key].default) is int])
def test_a_part_of_an_integer_is_refused(refused, key):
    refused(changed(base={key: all_keys()[key].default + 0.5}), f"base.{key}", "expected integer")


def test_a_variant_is_compared_with_the_one_of_all_the_same_values(tmp_path):
    rows = {"KD": {"DISTILLER.TYPE": "KD"}, "GKD": {"like": "KD", "GKD": {}, "control": "KD"}}
    sweep = {"KD.TEMPERATURE": [2, 4], "KD.WARMUP": [0, 5], "GKD.K": [0.5]}
    suite = load_suite("bad", write(tmp_path, changed(seeds=[0], methods=rows, sweep=sweep)))
    for cell in suite.cells:
        if cell.row.startswith("GKD"):
            control = next(c for c in suite.cells if (c.row, c.pair) == (cell.control, cell.pair))
            assert control.specification["method"] == cell.specification["method"]
            assert control.specification["gradient_scaling"] is None


def test_a_swept_value_beats_the_row_that_writes_the_key(tmp_path):
    row = {"DISTILLER.TYPE": "KD", "KD.TEMPERATURE": 3}
    suite = load_suite("bad", write(tmp_path, one_row(row, seeds=[0], sweep={"KD.TEMPERATURE": [2, 4]})))
    students = {c.row: c.specification["method"]["parameters"] for c in suite.cells if c.role != "teacher"}
    assert {row: found["TEMPERATURE"] for row, found in students.items()} == {
        "row KD.TEMPERATURE=2": 2,
        "row KD.TEMPERATURE=4": 4,
    }


def test_sweep_expands_rows_and_their_controls(tmp_path):
    rows = {
        "NONE": {"DISTILLER.TYPE": "NONE"},
        "KD": {"DISTILLER.TYPE": "KD", "control": "NONE"},
        "KD+GKD": {"like": "KD", "GKD": {}, "control": "KD"},
    }
    content = changed(seeds=[0], methods=rows, sweep={"KD.TEMPERATURE": [2, "4"], "GKD.K": [0.5, 1]})
    suite = load_suite("bad", write(tmp_path, content))
    expected = {"NONE": "", "KD KD.TEMPERATURE=2": "NONE", "KD KD.TEMPERATURE=4": "NONE"} | {
        f"KD+GKD KD.TEMPERATURE={t} GKD.K={k}": f"KD KD.TEMPERATURE={t}" for t in (2, 4) for k in ("0.5", "1")
    }
    assert {c.row: c.control for c in suite.cells if c.role != "teacher"} == expected
    for cell in suite.cells:
        if cell.row.endswith("GKD.K=0.5"):
            assert cell.specification["gradient_scaling"]["parameters"]["K"] == 0.5


def test_gradient_kd_is_kd_with_scaling_and_the_repository_defaults(tmp_path):
    parameters = {"TEMPERATURE": 4, "LOSS": {"CE_WEIGHT": 1, "KD_WEIGHT": 1}, "WARMUP": 20}
    written_out = one_row({"DISTILLER.TYPE": "KD", "KD": parameters, "GKD": {}})
    assert ids(tmp_path, one_row({"DISTILLER.TYPE": "GradientKD"})) == ids(tmp_path, written_out)


def test_gkd_defaults_fill_kd_and_its_unused_weight_is_noted(tmp_path):
    row = {"DISTILLER.TYPE": "KD", "DEFAULTS": "gkd"}
    (cell,) = [c for c in load_suite("bad", write(tmp_path, one_row(row, seeds=[0]))).cells if c.role != "teacher"]
    expected = {"TEMPERATURE": 1.0, "LOSS.CE_WEIGHT": 1.0, "LOSS.KD_WEIGHT": 1.0, "WARMUP": 20}
    assert cell.specification["method"]["parameters"] == expected and cell.notes == ()
    suite = load_suite("bad", write(tmp_path, one_row({**row, "KD.LOSS.KD_WEIGHT": 0.5}, seeds=[0])))
    weighted = suite.cells[-1]
    assert weighted.specification.id == cell.specification.id
    assert weighted.notes == ("KD.LOSS.KD_WEIGHT 0.5 has no effect in the GKD repository; 1 is used",)
    assert suite.sources()[weighted.specification.id]["notes"] == list(weighted.notes)


def test_a_protocol_is_of_every_run_and_its_id(tmp_path):
    published, held, salted, seen = (
        load_suite("bad", write(tmp_path, changed(**sections)))
        for sections in (
            {"protocol": "published"},
            {"protocol": {"holdout": 0.1}},
            {"protocol": {"holdout": "1e-1", "salt": 1}},
            {"protocol": {"holdout": 0.1}, "teachers": {"protocol": "published"}, "allow_seen_teacher": True},
        )
    )
    assert published.runs.keys() == load_suite("bad", write(tmp_path, DEMO)).runs.keys()
    assert not published.runs.keys() & (held.runs.keys() | salted.runs.keys()) and not held.runs.keys() & salted.runs
    assert {str(s["dataset"]["protocol"]) for s in held.runs.values()} == {"{'holdout': 0.1, 'salt': 0}"}
    assert {str(s["dataset"]["protocol"]) for s in salted.runs.values()} == {"{'holdout': 0.1, 'salt': 1}"}
    protocols = {(c.role == "teacher", str(c.specification["dataset"]["protocol"])) for c in seen.cells}
    assert protocols == {(True, "published"), (False, "{'holdout': 0.1, 'salt': 0}")}


def test_a_matched_teacher_has_its_students_seed_and_1000(tmp_path):
    fixed = load_suite("bad", write(tmp_path, changed(teacher_seed=None, teachers={"seed": 5})))
    assert {c.seed for c in fixed.cells if c.role == "teacher"} == {5}
    matched = load_suite("bad", write(tmp_path, changed(teacher_seed="matched", teachers={}, seeds=[2, 0])))
    teachers = {(c.pair, c.seed): c.specification for c in matched.cells if c.role == "teacher"}
    assert sorted(seed for _, seed in teachers) == [1000, 1000, 1002, 1002]
    for (_, seed), specification in teachers.items():
        assert specification["seed"] == seed and f"/s{seed}-" in specification.id
    distilled = [c for c in matched.cells if c.role == "distilled"]
    assert distilled and all(c.specification.teacher_id == teachers[c.pair, 1000 + c.seed].id for c in distilled)


def test_suites_share_matched_teachers_whatever_their_seeds_rows_and_students(tmp_path):
    """A teacher depends on its own keys and the student's seed alone."""
    one, other = (
        {"teacher_seed": "matched", "teachers": {}, "seeds": seeds, "methods": rows, "pairs": [pair]}
        for seeds, rows, pair in (
            ([0, 1], {"KD": {"DISTILLER.TYPE": "KD"}}, {"teacher": "resnet20", "student": "resnet8"}),
            ([7, 1, 1001], {"NONE": {"DISTILLER.TYPE": "NONE"}}, {"teacher": "resnet20", "student": "resnet14"}),
        )
    )
    suites = [load_suite(name, write(tmp_path, changed(**part), name)) for name, part in (("a", one), ("b", other))]
    ids = [{c.seed: c.specification.id for c in suite.cells if c.role == "teacher"} for suite in suites]
    assert [list(seeds) for seeds in ids] == [[1000, 1001], [1007, 1001, 2001]] and ids[0][1001] == ids[1][1001]


def test_a_written_seed_contradicts_matched_teachers(tmp_path, capsys, monkeypatch):
    for teachers in ({"seed": 0}, {"seed": 1000, "checkpoint": "best"}):
        monkeypatch.chdir(write(tmp_path, changed(teacher_seed="matched", teachers=teachers)))
        check_line(main(["plan", "bad"]), *capsys.readouterr(), "teachers.seed", "matched", "remove one")


def test_a_matched_teachers_seed_stays_exact(tmp_path, capsys, monkeypatch):
    largest = 2**53 - 1001
    suite = load_suite("bad", write(tmp_path, changed(teacher_seed="matched", teachers={}, seeds=[largest])))
    assert {c.seed for c in suite.cells if c.role == "teacher"} == {2**53 - 1}
    monkeypatch.chdir(write(tmp_path, changed(teacher_seed="matched", teachers={}, seeds=[largest + 1])))
    check_line(main(["plan", "bad"]), *capsys.readouterr(), "seeds", "expected a list")


OVERLAPS = {  # pairs, seeds, other sections: (network, seed) that teacher and student share
    "fixed": ([("resnet8", "resnet8")], [0, 1], {}, [("resnet8", 0)]),
    "written": ([("resnet8", "resnet8")], [0, 1], {"teachers": {"seed": 1}}, [("resnet8", 1)]),
    "apart": ([("resnet8", "resnet8")], [0, 1], {"teachers": {"seed": 2}}, []),
    "other networks": ([("resnet20", "resnet8")], [0, 1], {}, []),
    "across pairs": ([("resnet20", "resnet8"), ("resnet8", "resnet14")], [0, 1], {}, [("resnet8", 0)]),
    "matched": ([("resnet8", "resnet8")], [0, 1], {"teacher_seed": "matched"}, []),
    "matched, 1000 apart": ([("resnet8", "resnet8")], [1, 1001, 2001], {"teacher_seed": "matched"},
                            [("resnet8", 1001), ("resnet8", 2001)]),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERLAPS)
def test_a_student_that_starts_as_a_teacher_did_is_a_note(tmp_path, case, capsys, monkeypatch):
    pairs, seeds, sections, expected = OVERLAPS[case]
    pairs = [{"teacher": teacher, "student": student} for teacher, student in pairs]
    sections = {"teachers": {}, "teacher_seed": None} | sections
    monkeypatch.chdir(write(tmp_path, changed(pairs=pairs, seeds=seeds, **sections)))
    assert main(["plan", "bad"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: Teacher:")]
    assert len(notes) == len(expected)
    for note, (network, seed) in zip(notes, expected, strict=True):
        assert f"{network} of seed {seed} is a student" in note
        assert ("choose other seeds" in note) == ("matched" in sections.values())


def test_a_part_has_the_teachers_that_it_needs_and_a_teacher_goes_by_its_own_seed(tmp_path):
    suite = load_suite("bad", write(tmp_path, changed(teacher_seed="matched", teachers={})))
    for patterns in ("KD/*/s1", "KD/*/s1,NONE/*/s0"):
        assert {cell.seed for cell in suite.only(patterns).cells if cell.role == "teacher"} == {1001}
    assert {cell.name for cell in suite.only("Teacher/*/s1001").cells} == {
        f"Teacher/{pair}/s1001" for pair in ("resnet20-resnet8", "wrn_16_2-resnet8")
    }
    assert {cell.role for cell in suite.only("NONE").cells} == {"student"}
    with pytest.raises(UserError, match=r"write e\.g\. Teacher/resnet20-resnet8/s1000$"):
        suite.only("Teacher/*/s1")
    with pytest.raises(UserError, match="rows are Teacher, NONE, KD"):
        suite.only("Taecher")


@pytest.mark.parametrize("sections", [{"teacher_seed": "matched"}, {"teachers": {"seed": 5}}], ids=["matched", "fixed"])
@pytest.mark.parametrize("only", [None, "KD/*/s4,KD/*/s1", "NONE"])
def test_every_cell_has_a_run_before_any_has_two_and_a_teacher_with_the_first_that_needs_it(tmp_path, sections, only):
    sections = {"teachers": {}, "teacher_seed": None, "seeds": [4, 0, 1]} | sections
    suite = load_suite("bad", write(tmp_path, changed(**sections)))
    part = suite.only(only) if only else suite
    assert part.rounds.keys() == part.runs.keys()
    places = {}
    for cell in part.cells:
        places.setdefault((cell.row, cell.pair), []).append(part.rounds[cell.specification.id])
        if cell.specification.teacher_id:
            assert part.rounds[cell.specification.teacher_id] <= part.rounds[cell.specification.id]
    assert all(rounds == list(range(len(rounds))) for rounds in places.values())


def test_every_suite_of_the_project_names_a_control_for_each_scaled_row_and_each_trainer():
    for path in (ROOT / "params").glob("*.yaml"):
        notes = [note for cell in load_suite(path.stem, ROOT).cells for note in cell.notes]
        assert not any("has no control" in note for note in notes), path


@pytest.mark.parametrize("extra", [{"GKD": {}}, {"SOLVER.TRAINER": "dot"}], ids=["GKD", "DOT"])
def test_a_scaled_row_without_a_control_is_pointed_out(tmp_path, extra, capsys, monkeypatch):
    rows = {"KD": {"DISTILLER.TYPE": "KD"}, "new": {"like": "KD", **extra}}
    monkeypatch.chdir(write(tmp_path, with_rows(**rows)))
    assert main(["plan", "bad"]) == 0
    assert "note: new: has no control" in capsys.readouterr().out
    monkeypatch.chdir(write(tmp_path, with_rows(KD=rows["KD"], new={**rows["new"], "control": "KD"})))
    assert main(["plan", "bad"]) == 0
    assert "has no control" not in capsys.readouterr().out


def test_a_trainer_of_two_losses_is_refused_for_a_row_with_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(write(tmp_path, with_rows(NONE={"DISTILLER.TYPE": "NONE", "SOLVER.TRAINER": "dot"})))
    check_line(main(["plan", "bad"]), *capsys.readouterr(), "SOLVER.TRAINER dot", "use base")


@pytest.mark.parametrize(("momentum", "delta"), [(0.9, 0.1), (0.9, 0.2), (0.05, 0.1), (0.95, None)])
def test_dot_refuses_momenta_outside_their_range(tmp_path, capsys, monkeypatch, momentum, delta):
    solver = {"TRAINER": "dot", "MOMENTUM": momentum} | ({"DOT": {"DELTA": delta}} if delta else {})
    monkeypatch.chdir(write(tmp_path, with_rows(KD={"DISTILLER.TYPE": "KD", "SOLVER": solver})))
    check_line(main(["plan", "bad"]), *capsys.readouterr(), "methods.KD: SOLVER.DOT.DELTA", f"is {momentum}")


SOLVERS = {
    "methods.row.SOLVER.MOMENTUM: not read by a row of SOLVER.TYPE AdamW": {"TYPE": "AdamW", "MOMENTUM": 0.9},
    "methods.row.SOLVER.EPS: not read by a row of SOLVER.TYPE SGD": {"EPS": 1e-6},
    "methods.row.SOLVER.LR_DECAY_RATE: not read by a row of SOLVER.SCHEDULE cosine": {
        "SCHEDULE": "cosine",
        "LR_DECAY_RATE": 0.5,
    },
    "methods.row.SOLVER.MIN_LR: not read by a row of SOLVER.SCHEDULE step": {"MIN_LR": 0.01},
    "methods.row: SOLVER.WARMUP_EPOCHS 20 must be below SOLVER.EPOCHS, 20": {"WARMUP_EPOCHS": 20},
    "methods.row: SOLVER.MIN_LR 0.06 must be at most SOLVER.LR, 0.05": {"SCHEDULE": "cosine", "MIN_LR": 0.06},
    "methods.row: SOLVER.NESTEROV true needs a momentum": {"NESTEROV": True, "MOMENTUM": 0},
    "methods.row: SOLVER.TRAINER dot is defined for SOLVER.TYPE SGD, not AdamW; write that, or use base": {
        "TRAINER": "dot",
        "TYPE": "AdamW",
    },
    "methods.row: SOLVER.TRAINER dot is defined for SOLVER.NESTEROV false, not true; write that, or use base": {
        "TRAINER": "dot",
        "NESTEROV": True,
    },
}


@pytest.mark.parametrize("says, solver", SOLVERS.items())
def test_a_solver_that_contradicts_itself_is_refused(refused, says, solver):
    refused(one_row({"DISTILLER.TYPE": "KD", "SOLVER": solver}), says)


def test_keys_of_another_optimizer_or_schedule_may_stand_in_base(tmp_path):
    """They count in the rows that read them; what none reads is noted."""
    adamw = {"DISTILLER.TYPE": "KD", "SOLVER": {"TYPE": "AdamW", "LR": 1e-3, "SCHEDULE": "cosine"}}
    base = in_base(SOLVER__MOMENTUM=0.5, SOLVER__MIN_LR=1e-4, SOLVER__BETA2=0.99)
    suite = load_suite("bad", write(tmp_path, one_row(adamw, base=base, teachers={"SOLVER.EPOCHS": 40})))
    teacher, student = (cell.specification["schedule"] for cell in suite.cells[:: len(suite.cells) - 1])
    assert teacher["MOMENTUM"] == 0.5 and "MIN_LR" not in teacher and "BETA2" not in teacher
    assert student["MIN_LR"] == 1e-4 and student["BETA2"] == 0.99 and "MOMENTUM" not in student
    assert suite.notes == ()
    teachers = {"SOLVER": {"TYPE": "AdamW", "EPOCHS": 40}}
    (note,) = load_suite("bad", write(tmp_path, one_row(adamw, base=base, teachers=teachers))).notes
    assert note.endswith("base.SOLVER.MOMENTUM: is read by no run; remove it or add a row that reads it")


def test_the_rate_of_sgd_is_pointed_out_to_other_optimizers(tmp_path, capsys, monkeypatch):
    base = {"SOLVER": {"TYPE": "AdamW", "EPOCHS": 20}}
    monkeypatch.chdir(write(tmp_path, one_row({"DISTILLER.TYPE": "KD"}, base=base)))
    assert main(["plan", "bad"]) == 0
    note = "SOLVER.LR is the default of SGD, 0.05; write one for AdamW"
    assert capsys.readouterr().out.count(f"note: row: {note}\n") == 1
    base["SOLVER"]["LR"] = 0.001
    monkeypatch.chdir(write(tmp_path, one_row({"DISTILLER.TYPE": "KD"}, base=base)))
    assert main(["plan", "bad"]) == 0
    assert note not in capsys.readouterr().out


def test_keys_that_base_has_read_are_swept(tmp_path):
    """Of the trainer, optimizer and schedule that stand in base."""
    solver = {"TYPE": "AdamW", "LR": 1e-3, "SCHEDULE": "cosine"}
    sweep = {"SOLVER.BETA2": [0.99, 0.999], "SOLVER.MIN_LR": [0, 1e-5]}
    content = one_row(KD_ALONE["KD"], base={"SOLVER": solver}, teachers=None, sweep=sweep)
    suite = load_suite("bad", write(tmp_path, content))
    found = {(c.specification["schedule"]["BETA2"], c.specification["schedule"]["MIN_LR"]) for c in suite.cells[1:]}
    assert len(found) == 4


def test_a_seed_beyond_exact_numbers_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(write(tmp_path, changed(seeds=[2**70])))
    check_line(main(["plan", "bad"]), *capsys.readouterr(), "seeds", "expected a list")


# What is written and has no effect

NONE_ALONE = {"NONE": {"DISTILLER.TYPE": "NONE"}}
KD_ALONE = {"KD": {"DISTILLER.TYPE": "KD"}}
PAIR = {"teacher": "resnet20", "student": "resnet8"}


def in_base(**keys):
    return DEMO["base"] | {name.replace("__", "."): value for name, value in keys.items()}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (changed(base=in_base(KD__TEMPERATURE=2), methods=NONE_ALONE), ["base.KD.TEMPERATURE: is read by no run"]),
        (changed(base=in_base(KD={}), methods=NONE_ALONE), ["base.KD: is empty and read by no run"]),
        (changed(base=in_base(DATASET__STAGE="/tmp")), ["base.DATASET.STAGE: is read by no run"]),
        (
            changed(base=in_base(KD__TEMPERATURE=2), methods={"KD": {"DISTILLER.TYPE": "KD", "KD.TEMPERATURE": 3}}),
            ["base.KD.TEMPERATURE: every run that reads it has another value above it; remove it"],
        ),
        (changed(base=in_base(SOLVER__DOT__DELTA=0.1), methods=KD_ALONE), ["base.SOLVER.DOT.DELTA: is read by no run"]),
        (changed(base=in_base(GradientKD={"WARMUP": 2})), ["base.GradientKD.WARMUP: is read by no run"]),
        (
            changed(base=in_base(KD__WARMUP=2), methods={"a": {"DISTILLER.TYPE": "GradientKD"}}),
            ["base.KD.WARMUP: is read by no run"],
        ),
        (changed(base=in_base(GKD={"K": 1}), methods=KD_ALONE), ["base.GKD.K: is read by no run; `GKD: {}` in a row"]),
        (changed(base=in_base(GKD={}), methods=KD_ALONE), ["base.GKD: transforms nothing here; `GKD: {}` in a row"]),
        (changed(base=in_base(GKD={})), ["base.GKD: transforms nothing here; `GKD: {}` in a row"]),
        (
            changed(pairs=[PAIR | {"GKD": {}, "DKD": {"T": 2}, "SOLVER.DOT": {}}], methods=KD_ALONE),
            ["pairs[0].DKD.T: is read", "pairs[0].GKD: transforms nothing", "pairs[0].SOLVER.DOT: is empty"],
        ),
        (changed(teachers={"KD": {}}), ["teachers.KD: is empty and read by no run"]),
        (changed(teachers={"checkpoint": "best"}, methods=NONE_ALONE), ["teachers.checkpoint: no row learns from"]),
        (changed(methods={"KD": {"DISTILLER.TYPE": "KD", "DKD": {}}}), ["methods.KD.DKD: is empty and read by no run"]),
        (
            changed(methods={"KD": {"DISTILLER.TYPE": "KD", "DKD": {}}, "other": {"like": "KD"}}),
            ["methods.KD.DKD: is empty", "methods.other.DKD: is empty"],
        ),
    ],
)
def test_plan_notes_what_no_run_reads(tmp_path, monkeypatch, capsys, content, expected):
    monkeypatch.chdir(write(tmp_path, content))
    assert main(["plan", "bad"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: params/bad.yaml: ")]
    assert len(notes) == len(expected)
    for note, part in zip(notes, expected, strict=True):
        assert note.startswith(f"note: params/bad.yaml: {part}") and "\n" not in note


@pytest.mark.parametrize(
    "content",
    [
        DEMO,
        changed(
            base=in_base(KD__TEMPERATURE=2, DKD={"T": 3}, GKD={"K": 1}, SOLVER__DOT__DELTA=0.05),
            methods={
                "own": {"DISTILLER.TYPE": "KD", "KD.TEMPERATURE": 3},
                "KD": {"DISTILLER.TYPE": "KD", "GKD": {}},
                "DKD": {"DISTILLER.TYPE": "DKD", "SOLVER.TRAINER": "dot"},
            },
        ),
        changed(base=in_base(KD={})),
        changed(pairs=[PAIR, {**PAIR, "student": "resnet20", "KD": {"WARMUP": 3}, "SOLVER.LR": 0.1}], methods=KD_ALONE),
        changed(teachers={"checkpoint": "best", "SOLVER.LR": 0.2}),
        changed(methods={"KD": {"DISTILLER.TYPE": "KD", "KD": {}, "GKD": {}}}),
        changed(
            protocol={"holdout": 0.1},
            base=in_base(SOLVER__DOT__DELTA=0.05),
            methods=KD_ALONE,
            sweep={"SOLVER.TRAINER": ["base", "dot"]},
        ),
    ],
    ids=["demo", "read by some rows", "empty", "of a pair", "teachers", "empty in rows", "by a swept row"],
)
def test_what_some_run_reads_is_not_noted(tmp_path, content):
    suite = load_suite("bad", write(tmp_path, content))
    assert suite.notes == () and suite.only("*").notes == ()


def test_defaults_are_the_published_ones():
    """Those of mdistiller's configuration, of DOT's and GKD's code and, in its dialect, of the GKD repository."""
    mdistiller = {
        "SOLVER.BATCH_SIZE": 64,
        "SOLVER.EPOCHS": 240,
        "SOLVER.LR": 0.05,
        "SOLVER.LR_DECAY_STAGES": [150, 180, 210],
        "SOLVER.LR_DECAY_RATE": 0.1,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.DOT.DELTA": 0.075,
        "KD.TEMPERATURE": 4,
        "KD.LOSS.CE_WEIGHT": 0.1,
        "KD.LOSS.KD_WEIGHT": 0.9,
        "KD.WARMUP": 0,
        "DKD.CE_WEIGHT": 1,
        "DKD.ALPHA": 1,
        "DKD.BETA": 8,
        "DKD.T": 4,
        "DKD.WARMUP": 20,
        "GKD.K": 0.6,
        "GKD.SCALE": 2,
        "GKD.CENTRE": "batch_mean",
        "GKD.TEMPERATURE": "loss",
        "GKD.TARGET": "label",
        "GKD.FACTORS": "confidence",
        **{f"{name}.LOSS.CE_WEIGHT": 1 for name in ("AT", "NST", "PKT", "SP", "RKD", "KDSVD", "FITNET")},
        **{f"{name}.LOSS.CE_WEIGHT": 1 for name in ("VID", "OFD", "CRD")},
        "AT.P": 2,
        "AT.LOSS.FEAT_WEIGHT": 1000,
        "NST.LOSS.FEAT_WEIGHT": 50,
        "PKT.LOSS.FEAT_WEIGHT": 30000,
        "SP.LOSS.FEAT_WEIGHT": 3000,
        "RKD.LOSS.FEAT_WEIGHT": 1,
        "RKD.DISTANCE_WEIGHT": 25,
        "RKD.ANGLE_WEIGHT": 50,
        "RKD.PDIST.EPSILON": 1e-12,
        "RKD.PDIST.SQUARED": False,
        "KDSVD.K": 1,
        "KDSVD.LOSS.FEAT_WEIGHT": 1,
        "FITNET.HINT_LAYER": 2,
        "FITNET.INPUT_SIZE": [32, 32],
        "FITNET.LOSS.FEAT_WEIGHT": 100,
        "VID.LOSS.FEAT_WEIGHT": 1,
        "VID.EPS": 1e-5,
        "VID.INIT_PRED_VAR": 5,
        "VID.INPUT_SIZE": [32, 32],
        "OFD.LOSS.FEAT_WEIGHT": 1e-3,
        "OFD.CONNECTOR.KERNEL_SIZE": 1,
        "CRD.MODE": "exact",
        "CRD.FEAT.DIM": 128,
        "CRD.FEAT.STUDENT_DIM": 256,
        "CRD.FEAT.TEACHER_DIM": 256,
        "CRD.LOSS.FEAT_WEIGHT": 0.8,
        "CRD.NCE.K": 16384,
        "CRD.NCE.MOMENTUM": 0.5,
        "CRD.NCE.TEMPERATURE": 0.07,
        "REVIEWKD.CE_WEIGHT": 1,
        "REVIEWKD.REVIEWKD_WEIGHT": 1,
        "REVIEWKD.WARMUP_EPOCHS": 20,
        "REVIEWKD.MAX_MID_CHANNEL": 512,
        "REVIEWKD.STU_PREACT": False,
        "REVIEWKD.SHAPES": [1, 8, 16, 32],
        "REVIEWKD.OUT_SHAPES": [1, 8, 16, 32],
        "REVIEWKD.IN_CHANNELS": [64, 128, 256, 256],
        "REVIEWKD.OUT_CHANNELS": [64, 128, 256, 256],
    }
    deviating = ("AT", "NST", "KDSVD", "FITNET", "VID", "OFD", "REVIEWKD")
    ours = {f"{name}.OFFICIAL": "paper" for name in deviating}  # keys that no repository has
    gkd = {"KD.TEMPERATURE": 1, "KD.LOSS.CE_WEIGHT": 1, "KD.LOSS.KD_WEIGHT": 1, "KD.WARMUP": 20}
    keys = all_keys()
    assert {name: keys[name].default_in("mdistiller") for name in mdistiller} == mdistiller
    assert {name: keys[name].default_in("gkd") for name in mdistiller} == mdistiller | gkd
    methods = {name for name in keys if name.partition(".")[0] in {*components.methods(), "GKD"}}
    assert methods | {"SOLVER.DOT.DELTA"} <= mdistiller.keys() | ours.keys()  # a new one has its published value here
    assert {name: keys[name].default for name in ours} == ours


@pytest.mark.parametrize(
    "value", [2**53, 10**20, "99999999999999999999", 10**400, -(10**20)], ids=["2**53", "20", "text", "400", "-"]
)
@pytest.mark.parametrize("key", ["EPOCHS", "BATCH_SIZE", "LR_DECAY_STAGES", "THREADS"])
def test_a_number_that_no_specification_holds_exactly_is_refused(refused, key, value):
    value = [value] if key == "LR_DECAY_STAGES" else value
    line = refused(changed(base={"SOLVER": {key: value}}), f"base.SOLVER.{key}", "")
    assert "out of range" in line and len(line) < 250


@pytest.mark.parametrize("key, value", [("LR", 1e39), ("WEIGHT_DECAY", 1e300), ("THREADS", 3_000_000_000)])
def test_a_number_that_cannot_be_computed_with_is_refused(refused, key, value):
    refused(changed(base={"SOLVER": {key: value}}), f"base.SOLVER.{key}", "out of range")


@pytest.mark.parametrize(
    "default, value, read, type_name",
    [
        ([64, 128], [256, "256", 8.0], [256, 256, 8], "list of integers"),
        ([1.0, 2.0], [1, "5e-1"], [1.0, 0.5], "list of numbers"),
        (["a"], ["b", "a"], ["b", "a"], "list of texts"),
        ([64], [], [], "list of integers"),
    ],
)
def test_a_list_has_entries_of_the_type_of_the_defaults(default, value, read, type_name):
    key = Key(default, "", choices=("a", "b") if default == ["a"] else None)
    found = key.check(value, "here")
    assert found == read and list(map(type, found)) == list(map(type, read))
    assert key.type_name == type_name


@pytest.mark.parametrize(
    "key, value, says",
    [
        (Key([64], "", minimum=1), [3, 0], "0 is out of range, must be >= 1"),
        (Key([64], "", minimum=1), [3, 1.5], "[3, 1.5] is not valid here, expected list of integers, e.g. [64]"),
        (Key([64], ""), 64, "64 is not valid here, expected list of integers"),
        (Key([1.0], "", above=0), ["x"], "['x'] is not valid here, expected list of numbers"),
        (Key([1.0], "", above=0), [1, True], "[1, True] is not valid here, expected list of numbers"),
        (Key(["a"], ""), ["a", 1], "['a', 1] is not valid here, expected list of texts"),
        (Key(["a"], "", choices=("a", "b")), ["a", "c"], "unknown value 'c'"),
        (Key([1, 2], "", increasing=True), [2, 2], "[2, 2] must increase, e.g. [1, 2]"),
    ],
)
def test_an_entry_of_another_type_or_out_of_range_is_refused(key, value, says):
    with pytest.raises(UserError, match=re.escape(f"here: {says}")):
        key.check(value, "here")


def test_an_error_is_one_line_whatever_is_in_it():
    assert one_line(UserError("a\nb\x07" + "c" * 10_000)).startswith("a\\nb\\x07ccc")
    assert len(one_line(UserError("c" * 10_000))) <= 2000


def test_the_label_of_a_swept_text_is_a_name_that_only_can_match():
    assert _short(["a/b", "c, d"]) == "['a|b';'c;d']"
