"""Class names of strangers in the table of scores."""

import numpy as np

from semiseg.train.commands.score import _print_scores
from semiseg.train.score.evaluate import Scores


def test_control_characters_in_names_of_classes_are_shown(capsys):
    scores = Scores(np.eye(2, dtype=np.int64), ("\x1b[2Jroad", "[/sky]\u202e"), 1)
    _print_scores({"street": scores})
    printed = capsys.readouterr().out
    assert (
        r"\x1b[2Jroad" in printed and r"[/sky]\u202e" in printed and "\x1b" not in printed and "\u202e" not in printed
    )
