"""The tables of a suite, one file each, from results to a `sheet.Sheet`."""
