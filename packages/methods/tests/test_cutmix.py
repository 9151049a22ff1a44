"""CutMix boxes against rectangles painted one by one."""

import pytest
import torch

from semiseg.methods import covered, draw_boxes, paste


def keyed(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_later_box_covers_the_earlier_ones():
    """Equal squares, painted pixel by pixel and in order, from the same random numbers."""
    height, width, count, area = 40, 50, 12, 0.9
    (found,) = draw_boxes(keyed(5), (height, width), count=count, area=area, sizes="equal", aspect=1)
    numbers = torch.rand(count, 4, generator=keyed(5)[0]).tolist()
    expected = torch.zeros(height, width, dtype=torch.uint8)
    high, wide = height * (area / count) ** 0.5, width * (area / count) ** 0.5
    for number, (_, _, at_y, at_x) in enumerate(numbers, start=1):
        top, left = at_y * (height - high), at_x * (width - wide)
        for y in range(height):
            for x in range(width):
                if top <= y + 0.5 < top + high and left <= x + 0.5 < left + wide:
                    expected[y, x] = number
    assert found.dtype == torch.uint8 and found.equal(expected)
    assert len(found.unique()) > 8


@pytest.mark.parametrize(("sizes", "aspect"), [("uniform", 2), ("equal", 1), ("uniform", 4)])
def test_coverage(sizes: str, aspect: float):
    """32 boxes of nominal 0.5 cover 0.380 on average; with "covered", the requested area. 400 draws, standard error 0.002."""
    random = keyed(*range(400))
    nominal = covered(draw_boxes(random, (64, 96), sizes=sizes, aspect=aspect))
    assert nominal.mean().item() == pytest.approx(0.380, abs=0.005)
    corrected = covered(draw_boxes(keyed(*range(400)), (64, 96), sizes=sizes, aspect=aspect, area_of="covered"))
    assert corrected.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("count", "area"), [(1, 0.5), (4, 0.3), (8, 0.75)])
def test_coverage_of_few_boxes(count: int, area: float):
    boxes = draw_boxes(keyed(*range(400)), (64, 96), count=count, area=area, area_of="covered")
    assert covered(boxes).mean().item() == pytest.approx(area, abs=0.02)


def test_one_box_of_any_aspect_has_its_area():
    """French et al.: one box of half the image, whose height is log-uniform in 0.5 .. 1."""
    boxes = draw_boxes(keyed(*range(200)), (100, 100), count=1, aspect=1e9)
    heights = boxes.amax(2).sum(1).float() / 100
    assert covered(boxes).min() > 0.48 and covered(boxes).max() < 0.52
    assert (
        heights.min() < 0.52 and heights.max() > 0.98 and heights.log2().mean().item() == pytest.approx(-0.5, abs=0.05)
    )


def test_boxes_do_not_depend_on_the_batch():
    assert draw_boxes(keyed(1, 2, 3), (20, 30))[2].equal(draw_boxes(keyed(3), (20, 30))[0])


def test_pasting_copies_the_same_position_of_the_partner():
    a, b = torch.randint(0, 255, (2, 2, 3, 6, 5), dtype=torch.uint8)
    boxes = torch.randint(0, 3, (2, 6, 5), dtype=torch.uint8)
    found = paste(a, b, boxes)
    for image in range(2):
        for y in range(6):
            for x in range(5):
                source = b if boxes[image, y, x] else a
                assert found[image, :, y, x].equal(source[image, :, y, x])
    assert found.dtype == torch.uint8


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="did you mean 'covered'"):
        draw_boxes(keyed(1), (8, 8), area_of="coverd")
    with pytest.raises(ValueError, match=r"1\.\.255 boxes"):
        draw_boxes(keyed(1), (8, 8), count=256)
