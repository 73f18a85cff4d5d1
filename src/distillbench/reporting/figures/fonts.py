"""Fonts for the characters that the figures' own font lacks."""

from matplotlib import font_manager
from matplotlib.text import Text


def use_fonts(figure, style):
    """Let texts with characters that the style's font lacks use other fonts of this system, where one has them.

    style: its font families. Any other text keeps the style's font, so that only figures with such texts depend on
    the system. Returns the set of the characters that no font has.
    """
    own = font_manager.findfont(font_manager.FontProperties(family=style))
    texts = {text: _unknown(text.get_text(), own) for text in figure.findobj(Text)}
    unknown, families = set().union(*texts.values()), []
    known = {name: unknown - _unknown(unknown, path) for name, path in _families().items()} if unknown else {}
    while unknown and (name := max(known, key=lambda name: len(known[name] & unknown))) and known[name] & unknown:
        families.append(name)
        unknown -= known[name]
    for text, lacks in texts.items():
        if lacks:
            text.set_fontfamily([*style, *families])
    return unknown


def _families():
    """{font family of this system: a file of it}, in a fixed order: of two that serve as well the first is used."""
    fonts = sorted((font.name, font.fname) for font in font_manager.fontManager.ttflist)
    return {name: path for name, path in fonts if not name.startswith("Last Resort")}  # that has a box for everything


def _unknown(characters, path):
    """Those characters that a font file lacks."""
    try:
        known = font_manager.get_font(path).get_charmap()
    except (OSError, RuntimeError):  # removed since, or not a font that matplotlib reads
        known = ()
    return {character for character in characters if ord(character) not in known and not character.isspace()}
