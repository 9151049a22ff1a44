"""Classes that are never right are named once, and always with "best so far"."""

import numpy as np
import pytest

from semiseg.train.console import Console, remark
from semiseg.train.score.evaluate import Scores


def scores(*rows: tuple[int, ...]) -> dict:
    """JSON of a confusion matrix: rows are truth."""
    return Scores(np.array(rows), tuple("abc"), 1).to_json()


def test_what_is_said_of_a_confusion_matrix() -> None:
    assert remark(scores((5, 0, 0), (0, 5, 0), (1, 0, 5))) == ""
    assert remark(scores((5, 0, 0), (5, 0, 0), (5, 0, 0))) == "only 'a' is ever right, IoU 0 for b, c"
    assert remark(scores((5, 0, 0), (0, 5, 0), (1, 4, 0))) == "IoU 0 for c"
    assert remark(scores((0, 5, 0), (5, 0, 0), (5, 0, 0))) == "IoU 0 for a, b, c"
    assert remark(scores((5, 0, 0), (0, 0, 0), (0, 0, 0))) == ""  # all there is, is right
    assert remark(scores((5, 0, 0), (0, 5, 0), (0, 0, 0))) == ""  # c occurs nowhere
    assert remark(scores((0, 0, 0), (0, 0, 0), (0, 0, 0))).startswith("no pixel of these images has a label, so ")


def test_a_console_names_them_once(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console().training(0, 9)
    collapsed, better = scores((5, 0, 0), (5, 0, 0), (5, 0, 0)), scores((5, 0, 0), (0, 5, 0), (5, 0, 0))
    for step, found, best in ((1, collapsed, True), (2, collapsed, False), (3, collapsed, True), (4, better, True)):
        console.scores(step, {"rock": found}, best=best)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("(best so far; rock: only 'a' is ever right, IoU 0 for b, c)")
    assert lines[1].endswith("rock/miou 11.11") and lines[2].endswith("(best so far; rock: still 2 classes at IoU 0)")
    assert lines[3].endswith("(best so far; rock: IoU 0 for c)") and len(lines) == 4
