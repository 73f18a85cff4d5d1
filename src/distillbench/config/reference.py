"""docs/params.md: every configuration key, written from its declaration.

python -m distillbench.config.reference > docs/params.md
"""

from distillbench.config import schema

HEAD = """\
# Keys of a params file

Written by `python -m distillbench.config.reference` from the declarations; do not edit. A key may be written dotted
(`KD.TEMPERATURE: 4`) or nested (`KD: {TEMPERATURE: 4}`). The sections around the keys are explained in
[concepts](concepts.md). "In the id" says whether the value is part of a run's specification, and why.
"""


def reference():
    """The text of docs/params.md."""
    lines = [
        HEAD,
        "| key | type | range | default | with `DEFAULTS: gkd` | meaning | in the id |",
        "| - | - | - | - | - | - | - |",
    ]
    for name, key in sorted(schema.all_keys().items()):
        gkd = _value(key.default_in("gkd")) if key.default_in("gkd") != key.default else ""
        meaning = key.help + ("; the GKD repository ignores it" if key.ignored_by_gkd else "")
        identity = f"{'yes' if key.identity else 'no'}: {key.why}"
        cells = (f"`{name}`", key.type_name, key.range_text, _value(key.default), gkd, meaning, identity)
        lines.append("| " + " | ".join(cell.replace("|", "or") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _value(value):
    return f"`{value}`" if value != "" else "empty"


if __name__ == "__main__":
    print(reference(), end="")
