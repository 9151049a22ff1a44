import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from semiseg.methods import Prediction, connected_components

EIGHT = np.ones((3, 3))


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = {(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def by_scipy(groups: np.ndarray) -> np.ndarray:
    labels, used = np.zeros(groups.shape, dtype=np.int64), 0
    for group in np.unique(groups[groups > 0]):
        found, count = ndimage.label(groups == group, EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
        labels[found > 0] = found[found > 0] + used
        used += count
    return labels


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    classes=st.integers(1, 3),
    density=st.floats(0.1, 0.95),
    seed=st.integers(0, 2**31),
)
def test_components_equal_scipy_s(height, width, classes, density, seed):
    random = np.random.default_rng(seed)
    groups = random.integers(1, classes + 1, (2, height, width)) * (random.random((2, height, width)) < density)
    labels = connected_components(torch.from_numpy(groups)).numpy()
    for image in range(2):
        assert same_partition(labels[image], by_scipy(groups[image]))


def test_a_spiral_is_one_component():
    grid = np.zeros((41, 41), dtype=np.int64)
    y, x, dy, dx = 0, 0, 0, 1
    for _ in range(1000):
        grid[y, x] = 1
        ahead = y + 2 * dy, x + 2 * dx
        turn = not (0 <= y + dy < 41 and 0 <= x + dx < 41)
        turn = turn or (0 <= ahead[0] < 41 and 0 <= ahead[1] < 41 and grid[ahead] == 1)
        if turn:
            dy, dx = dx, -dy
        y, x = y + dy, x + dx
        if grid[y, x]:
            break
    assert ndimage.label(grid, EIGHT)[1] == 1 and grid.sum() > 600  # pyright: ignore[reportGeneralTypeIssues, reportIndexIssue]
    labels = connected_components(torch.from_numpy(grid)[None])[0].numpy()
    assert same_partition(labels, grid)


def test_probabilities_and_classes_are_the_detached_softmax():
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    prediction = Prediction(logits, [1])
    assert (
        torch.equal(prediction.probabilities, logits.detach().softmax(1)) and not prediction.probabilities.requires_grad
    )
    assert torch.equal(prediction.classes, logits.argmax(1))


def logits_of(classes: np.ndarray, count: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(classes), count).movedim(-1, 1).float()


def test_foreground_is_resized_by_nearest_neighbour():
    classes = np.zeros((1, 8, 8), dtype=np.int64)
    classes[0, :3, :5] = 2
    classes[0, 5:, 5:] = 3
    found = Prediction(logits_of(classes), [1, 2]).foreground((4, 4))
    assert found.shape == (1, 1, 4, 4)
    assert torch.equal(found[0, 0], torch.from_numpy(classes[0, ::2, ::2] == 2))


@pytest.mark.parametrize(("per", "expected"), [("merged", 2), ("class", 3)])
def test_boxes_equal_scipy_s(per, expected):
    classes = np.zeros((2, 12, 10), dtype=np.int64)
    classes[1, 1:4, 2:7] = 1
    classes[1, 4:6, 3:5] = 2  # touches the class above
    classes[1, 9:12, 0:3] = 2
    classes[1, 9:12, 6:9] = 3  # not foreground
    prediction = Prediction(logits_of(classes), [1, 2])
    found = prediction.components(per)
    assert prediction.components(per) is found
    assert (found.area > 0).sum(1).tolist() == [0, expected]
    sides = torch.stack([found.top, found.bottom, found.left, found.right], 2)[found.area > 0]
    boxes = {tuple(box) for box in sides.tolist()}
    groups = np.where(np.isin(classes[1], [1, 2]), classes[1] if per == "class" else 1, 0)
    slices = [s for s in ndimage.find_objects(by_scipy(groups)) if s]
    assert boxes == {(y.start, y.stop, x.start, x.stop) for y, x in slices}
    assert found.area.sum() == (groups > 0).sum()
    assert torch.equal(found.larger_than(9 / 120), found.area >= 9)
    assert torch.equal(found.larger_than(0), found.area > 0)


def test_components_are_found_on_a_grid_up_to_the_resolution():
    classes = np.ones((1, 30, 60), dtype=np.int64)
    assert Prediction(logits_of(classes), [1]).components(resolution=20).size == (10, 20)
    assert Prediction(logits_of(classes), [1]).components(resolution=200).size == (30, 60)


def test_without_foreground_there_are_no_components():
    assert not Prediction(torch.zeros(2, 3, 8, 8), []).components().area.any()


def test_a_fixed_number_of_rounds_finds_the_components_of_a_prediction():
    coarse = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    groups = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").argmax(1)
    assert torch.equal(connected_components(groups, rounds=8), connected_components(groups))
    assert not torch.equal(connected_components(groups, rounds=1), connected_components(groups))


def test_foreground_must_be_among_the_classes():
    with pytest.raises(ValueError, match=r"class 9; expected .* 0\.\.2"):
        Prediction(torch.zeros(1, 3, 8, 8), [0, 9])
