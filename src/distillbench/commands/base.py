"""What every command has on top of click: its arguments in its help, and a place under a heading of the list."""

import click

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Command(click.Command):
    """A command whose help lists its arguments as their types describe them; in lists stands its first sentence."""

    def parse_args(self, context, args):
        if context.resilient_parsing and args and self.expects_value(args[-1]):
            args = args[:-1]  # its value is what TAB completes; without it click would forget the arguments, too
        try:
            return super().parse_args(context, args)
        except click.UsageError as error:
            error.ctx = error.ctx or context  # click's parser forgets it where an option's value is missing
            raise

    def expects_value(self, word):
        return any(word in p.opts and not p.is_flag for p in self.params if isinstance(p, click.Option))

    def get_short_help_str(self, limit=0):
        return " ".join(self.help.partition("\n\n")[0].split()).rstrip(".")

    def format_options(self, context, formatter):
        arguments = [p for p in self.get_params(context) if isinstance(p, click.Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(p.human_readable_name, described(p)) for p in arguments])
        super().format_options(context, formatter)


def described(argument):
    return f"{argument.type.help} (default: {argument.default})" if not argument.required else argument.type.help


class Commands(click.Group):
    """Commands under headings, in the order in which they are given."""

    def __init__(self, name, sections, **options):
        """sections: {heading: [Command]}"""
        commands = {command.name: command for section in sections.values() for command in section}
        super().__init__(name, commands, no_args_is_help=False, **options)
        self.sections = sections

    def resolve_command(self, context, args):
        """A command may have a name of two words, of which the first alone is another."""
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(context, args)

    def list_commands(self, context):
        return list(self.commands)

    def format_commands(self, context, formatter):
        width = max(map(len, self.commands))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{c.name:{width}}", c.get_short_help_str()) for c in commands])


def command(name):
    return click.command(name, cls=Command, context_settings=HELP)
