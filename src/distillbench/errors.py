"""The one kind of error that users see."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where (file and key) and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """


class RunFailed(Exception):
    """A run that cannot be finished (a loss that is not finite, say): one line, exit code 1."""


def one_line(error):
    """The text of an error on one line, whatever names and values are in it; no more than a screen."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))
    return text if len(text) <= 2000 else f"{text[:1900]} ... {text[-80:]}"


def one_of(value, valid, what):
    """Text for an unknown name: the nearest valid one if there is one, else all of them."""
    import difflib

    valid = sorted(str(v) for v in valid)
    if not isinstance(value, str) and str(value) in valid:  # YAML reads control: 2019 as a number
        return f'{value!r} is not text; write "{value}" in quotes'
    near = difflib.get_close_matches(str(value), valid, n=1)
    hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(valid)}"
    return f"unknown {what} {value!r}; {hint}"
