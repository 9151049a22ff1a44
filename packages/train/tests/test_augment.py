"""Augmentation is a pure function of its key, and transforms image and mask together."""

import numpy as np
import pytest
import torch

from semiseg.train.step.augment import Augmentation


def picture(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of 8-pixel squares of many ids, and an image whose red channel shows the mask."""
    rows, columns = torch.meshgrid(torch.arange(height) // 8, torch.arange(width) // 8, indexing="ij")
    mask = ((rows * 7 + columns * 3) % 20).to(torch.uint8)
    image = torch.stack([mask * 10, mask * 0 + 50, mask * 0 + 90])
    return image, mask


def test_nothing_is_done_by_default():
    image, mask = picture(48, 64)
    same_image, same_mask, _ = Augmentation()(image, mask, key=("k",))
    assert torch.equal(image, same_image)
    assert same_mask is not None and torch.equal(mask, same_mask)


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (80, 40), (100, 100)])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_stay_aligned(size: tuple[int, int], seed: int):
    image, mask = picture(48, 64)
    augmentation = Augmentation(crop=size, flip=0.5, fill=(1, 2, 3))
    moved_image, moved_mask, _ = augmentation(image, mask, key=("aligned", seed))
    assert moved_mask is not None
    assert tuple(moved_image.shape) == (3, *size) and tuple(moved_mask.shape) == size
    inside = moved_mask != 255
    assert torch.equal(moved_image[0][inside], moved_mask[inside] * 10)
    outside = ~inside
    assert int(inside.sum()) == min(size[0], 48) * min(size[1], 64)
    for channel, value in enumerate((1, 2, 3)):
        assert bool((moved_image[channel][outside] == value).all())


def test_scale_keeps_masks_crisp_and_aligned_with_the_image():
    image, mask = picture(64, 64)
    augmentation = Augmentation(scale=(0.5, 2.0), crop=(64, 64))
    for seed in range(10):
        moved_image, moved_mask, _ = augmentation(image, mask, key=("scale", seed))
        assert moved_mask is not None
        inside = moved_mask != 255
        assert set(moved_mask.unique().tolist()) <= {*range(20), 255}
        off = (moved_image[0].int() - moved_mask.int() * 10).abs()[inside]
        assert float((off <= 5).float().mean()) > 0.6  # away from the blended edges of 4..16-pixel squares


def test_a_key_determines_every_number_and_options_do_not_shift_the_others():
    image, mask = picture(64, 64)
    plain = Augmentation(crop=(32, 32), flip=0.5)
    again = plain(image, mask, key=("a", 1))[0]
    assert torch.equal(plain(image, mask, key=("a", 1))[0], again)
    assert not torch.equal(plain(image, mask, key=("a", 2))[0], again)
    unmasked, nothing, _ = plain(image, None, key=("a", 1))
    assert nothing is None and torch.equal(unmasked, again)
    jittered = Augmentation(crop=(32, 32), flip=0.5, jitter=0.3)(image, mask, key=("a", 1)).mask
    expected = plain(image, mask, key=("a", 1)).mask
    assert jittered is not None and expected is not None and torch.equal(jittered, expected)


def test_crops_are_uniform_over_all_positions():
    image = torch.arange(5, dtype=torch.uint8).repeat(3, 1, 1).reshape(3, 1, 5)
    starts = [int(Augmentation(crop=(1, 2))(image, None, key=("even", i))[0][0, 0, 0]) for i in range(800)]
    counts = np.bincount(starts, minlength=4)
    assert counts.shape == (4,)
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    assert chi_square < 16.3  # 0.1 % of fair draws with 3 degrees of freedom exceed it; the keys are fixed


def test_an_anchor_is_inside_its_crop():
    """2,000 draws over scales, crops, images smaller than the crop, and flips; the anchor's pixel has its own colour."""
    random = np.random.default_rng(0)
    for draw in range(2000):
        height, width = random.integers(40, 90, 2).tolist()
        row, column = int(random.integers(height)), int(random.integers(width))
        mask = torch.zeros(height, width, dtype=torch.uint8)
        mask[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 7  # survives a halving by nearest neighbour
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        augmentation = Augmentation(scale=(0.5, 2.0), crop=(32, 48), flip=0.5)
        _, cropped, _ = augmentation(image, mask, key=("anchor", draw), anchor=(row, column))
        assert cropped is not None and bool((cropped == 7).any())


def test_an_anchor_may_be_anywhere_in_its_crop():
    image, mask = torch.zeros(3, 40, 40, dtype=torch.uint8), torch.zeros(40, 40, dtype=torch.uint8)
    mask[20, 5] = 9
    places = set()
    for draw in range(600):
        _, cropped, _ = Augmentation(crop=(8, 8))(image, mask, key=("around", draw), anchor=(20, 5))
        assert cropped is not None
        ((row, column),) = (cropped == 9).nonzero().tolist()
        places.add((row, column))
    assert places == {(row, column) for row in range(8) for column in range(6)}  # the image's edge is 5 columns away


def test_blur_keeps_the_mean_and_removes_detail():
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.integers(0, 256, (3, 64, 64), dtype=np.uint8))
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    blurred, same, _ = Augmentation(blur=(1.0, 1.3))(image, mask, key=("blur", 0))
    assert same is not None and torch.equal(same, mask)
    assert float(blurred.float().std()) < 0.5 * float(image.float().std())
    assert abs(float(blurred.float().mean()) - float(image.float().mean())) < 1


@pytest.mark.parametrize("seed", range(12))
def test_valid_is_where_the_image_is(seed):
    """Without interpolation at its border, a padded image is its own mask: all pixels but padding differ from the fill."""
    image = torch.randint(100, 200, (3, 30, 70), dtype=torch.uint8)
    augmentation = Augmentation(scale=(0.4, 1.6), crop=(40, 50), flip=0.5, fill=(1, 2, 3))
    moved, mask, valid = augmentation(image, torch.zeros(30, 70, dtype=torch.uint8), key=("valid", seed))
    shown = (moved >= 90).all(0)
    assert mask is not None and torch.equal(mask == 255, ~shown)
    assert torch.equal(shown, torch.ones_like(shown) if valid is None else valid)
    assert (valid is None) == bool(shown.all())


def test_vertical_flips_and_turns_move_mask_and_padding_along():
    image = torch.arange(12 * 12, dtype=torch.uint8).view(1, 12, 12).expand(3, -1, -1).contiguous() // 2 + 100
    seen = set()
    for draw in range(60):
        augmentation = Augmentation(crop=(16, 16), vflip=0.5, rotate=0.75, fill=(1, 2, 3))
        moved, mask, valid = augmentation(image, image[0], key=("turn", draw))
        assert mask is not None and valid is not None
        assert (
            torch.equal(mask[valid], moved[0][valid]) and (mask[~valid] == 255).all() and (moved[0][~valid] == 1).all()
        )
        rows, columns = valid.any(1).nonzero()[:, 0], valid.any(0).nonzero()[:, 0]
        own = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        poses = [turned for flip in (image[0], image[0].flip(0)) for turned in (flip.rot90(k) for k in range(4))]
        seen.add(next(place for place, pose in enumerate(poses) if torch.equal(pose, own)))
    assert len(seen) == 8
