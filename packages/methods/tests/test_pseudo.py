import pytest
import torch
from torch import Tensor

from semiseg.methods import pseudo_labels

CAT, DOG = 8, 12
MAPS = torch.tensor(
    [
        [[0.00, 0.04, 0.05, 0.20, 0.30, 0.31, 1.00, 0.60, 0.04]],
        [[0.00, 0.04, 0.01, 0.29, 0.00, 0.00, 0.90, 0.70, 0.32]],
    ]
)


def test_the_papers_thresholds():
    labels = pseudo_labels(MAPS, [CAT, DOG], background=0)
    # below 0.05 in all: background; above 0.30 (strictly): the best class; the rest is ignored
    assert labels.tolist() == [[0, 0, 255, 255, 255, CAT, CAT, DOG, DOG]]
    assert labels.dtype == torch.uint8
    labels = pseudo_labels(MAPS, [CAT, DOG], background=None)
    assert labels.tolist() == [[255, 255, 255, 255, 255, CAT, CAT, DOG, DOG]]
    assert pseudo_labels(MAPS, [CAT, DOG], background=3, low=0, high=0.65).tolist() == [
        [255, 255, 255, 255, 255, 255, CAT, DOG, 255]
    ]


def test_the_released_thresholds():
    # foreground: argmax of [0.30, maps]; background where neither that nor argmax of [0.05, maps] has a class
    labels = pseudo_labels(MAPS, [CAT, DOG], background=0, rule="released")
    assert labels.tolist() == [[0, 0, 0, 255, 255, CAT, CAT, DOG, DOG]]
    labels = pseudo_labels(MAPS, [CAT, DOG], background=None, rule="released")
    assert labels.tolist() == [[255, 255, 255, 255, 255, CAT, CAT, DOG, DOG]]


def test_refinement_gets_indices_into_the_classes_and_unknown_pixels():
    seen = []

    def mirror(labels: Tensor, count: int) -> Tensor:
        seen.append((labels.tolist(), count))
        return labels.flip(1).where(labels.flip(1) != 255, 0)

    labels = pseudo_labels(MAPS, [CAT, DOG], background=0, refine=mirror)
    assert seen.pop() == ([[0, 0, 255, 255, 255, 1, 1, 2, 2]], 3)
    assert labels.tolist() == [[DOG, DOG, CAT, CAT, 0, 0, 0, 0, 0]]
    labels = pseudo_labels(MAPS, [CAT, DOG], background=None, refine=mirror)
    assert seen.pop() == ([[255, 255, 255, 255, 255, 0, 0, 1, 1]], 2)
    assert labels.tolist() == [[DOG, DOG, CAT, CAT, CAT, CAT, CAT, CAT, CAT]]

    labels = pseudo_labels(MAPS, [CAT, DOG], background=0, rule="released", refine=mirror)
    assert seen == [([[0, 0, 0, 0, 0, 1, 1, 2, 2]], 3), ([[0, 0, 0, 2, 1, 1, 1, 2, 2]], 3)]
    assert labels.tolist() == [[DOG, DOG, CAT, CAT, 255, 255, 0, 0, 0]]
    seen.clear()
    pseudo_labels(MAPS, [CAT, DOG], background=None, rule="released", refine=mirror)
    assert len(seen) == 1


@pytest.mark.parametrize("rule", ["paper", "released"])
def test_an_image_without_objects_is_background_or_unknown(rule: str):
    nothing = torch.zeros(0, 2, 2)
    assert pseudo_labels(nothing, [], background=0, rule=rule).tolist() == [[0, 0], [0, 0]]
    assert pseudo_labels(nothing, [], background=None, rule=rule).tolist() == [[255, 255], [255, 255]]


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="did you mean 'released'"):
        pseudo_labels(MAPS, [CAT, DOG], background=0, rule="relased")
    with pytest.raises(ValueError, match="for 1 classes"):
        pseudo_labels(MAPS, [CAT], background=0)
    with pytest.raises(ValueError, match="contain the background 8"):
        pseudo_labels(MAPS, [CAT, DOG], background=CAT)
    with pytest.raises(ValueError, match=r"low=0.5"):
        pseudo_labels(MAPS, [CAT, DOG], background=0, low=0.5)
