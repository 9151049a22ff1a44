"""Text of recipes and data sets in the cells of tables that other programs open: no formulas, no markup."""

import re
from html import escape

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also those of full width


def csv_cell(text: str) -> str:
    """A cell that a spreadsheet shows and does not compute: what begins like a formula gets an apostrophe, numbers do not."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def markdown_cell(text: str) -> str:
    """A cell of a Markdown table: no markup, no HTML, on one line."""
    return re.sub(r"([\\|\[\]`])", r"\\\1", escape(" ".join(text.split()), quote=False))
