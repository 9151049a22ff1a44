"""The study of clusters: distances against double loops, borders and measures against plain definitions, the command."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import mannwhitneyu

from semiseg.data import DataError
from semiseg.models import Encoder
from semiseg.train.clusters import contrast, hidden_distance, measure, near_borders, neighbour_distance, separation
from tests.processes import python


def brute_force(x: np.ndarray, patch: int) -> np.ndarray:
    """For every pair of neighbours, cut out both patches and take the norm of their difference."""
    _, height, width = x.shape
    before = patch // 2
    padded = np.pad(x, ((0, 0), (before, patch - 1 - before), (before, patch - 1 - before)), mode="edge")
    found = np.zeros((height, width))
    for row, column in product(range(height), range(width)):
        own = padded[:, row : row + patch, column : column + patch]
        distances = []
        for dy, dx in product((-1, 0, 1), (-1, 0, 1)):
            if (dy or dx) and 0 <= row + dy < height and 0 <= column + dx < width:
                other = padded[:, row + dy : row + dy + patch, column + dx : column + dx + patch]
                distances.append(np.sqrt(((own - other) ** 2).sum()))
        found[row, column] = np.mean(distances)
    return found


def test_patch_distances_equal_a_double_loop():
    x = np.random.default_rng(0).random((3, 9, 13))
    for patch in (1, 2, 5, 20):
        np.testing.assert_allclose(
            neighbour_distance(torch.from_numpy(x), patch=patch), brute_force(x, patch), rtol=1e-9
        )


def test_hidden_distances_are_those_of_upsampled_activations():
    """More channels than are upsampled at a time."""
    features = torch.randn(70, 3, 4, dtype=torch.float64)
    upsampled = F.interpolate(features[None], (11, 13), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(hidden_distance(features, (11, 13)), brute_force(upsampled.numpy(), 1), rtol=1e-9)


def test_borders_equal_a_search_around_each_pixel():
    ids = np.random.default_rng(1).choice([0, 1, 255], (12, 15), p=[0.55, 0.44, 0.01])
    ids[:, :7] = 0
    for within in (1, 2, 4):
        border, inside = near_borders(torch.from_numpy(ids), within)
        for row, column in product(range(12), range(15)):

            def around(reach: int, row: int = row, column: int = column) -> list[tuple[int, int]]:
                near = product(range(row - reach, row + reach + 1), range(column - reach, column + reach + 1))
                return [(r, c) for r, c in near if 0 <= r < 12 and 0 <= c < 15]

            clear = all(ids[place] != 255 for place in around(within))
            change = any(
                255 not in (ids[r, c], ids[r + dr, c + dc]) and ids[r, c] != ids[r + dr, c + dc]
                for r, c in around(within - 1)
                for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
                if 0 <= r + dr < 12 and 0 <= c + dc < 15
            )
            assert bool(border[row, column]) == (clear and change)
            assert bool(inside[row, column]) == (clear and not change)


def test_measures_of_a_known_map():
    ids = np.zeros((8, 40), np.uint8)
    ids[:, 20:] = 1
    distance = torch.ones(8, 40)
    distance[:, 18:22] = 3.0
    assert contrast(distance, ids, 2) == 3.0 and separation(distance, ids, 2) == 1.0
    assert separation(torch.ones(8, 40), ids, 2) == 0.5
    assert contrast(distance, np.zeros_like(ids), 2) is None
    coarse = torch.randint(0, 5, (8, 40)).float()  # with ties
    border, inside = (mask.numpy() for mask in near_borders(torch.from_numpy(ids.astype(np.int64)), 2))
    u = mannwhitneyu(coarse.numpy()[border], coarse.numpy()[inside]).statistic
    found = separation(coarse, ids, 2)
    assert found is not None and abs(found - u / border.sum() / inside.sum()) < 1e-12


def test_an_image_without_neighbours_is_one_clear_error():
    encoder = Encoder("test_resnet", 8).eval()
    with pytest.raises(DataError, match="line is 1x30: a pixel needs neighbours"):
        list(measure(encoder, [("line", Image.new("RGB", (1, 30)), None)]))
    (thin,) = measure(encoder, [("thin", Image.new("RGB", (2, 3)), None)])
    assert thin.input.shape == thin.hidden.shape == (3, 2) and not thin.input.any()


def test_the_command_on_shards_and_on_images(scenes: Path, tmp_path: Path):
    study = ("-m", "semiseg.cli", "study", "clusters")
    encoder = ("--encoder", "test_resnet:none")
    done = python(*study, scenes / "street" / "val", *encoder, "--out", tmp_path / "a", "--count", "3", "--border", "3")
    assert "input " in done.stdout and "hidden" in done.stdout
    found = json.loads((tmp_path / "a" / "clusters.json").read_text())
    assert found["images"] == 3 == len(found["each"]) and found["hidden"]["separation"]["n"] == 3
    assert size_of(tmp_path / "a" / "clusters.png")[0] > 400
    Image.new("RGB", (40, 30), (9, 90, 200)).save(tmp_path / "plain.png")
    done = python(*study, tmp_path / "plain.png", *encoder, "--out", tmp_path / "b")
    assert "no labels" in done.stderr and "input" not in json.loads((tmp_path / "b" / "clusters.json").read_text())
    refused = python(*study, tmp_path / "plain.png", "--out", tmp_path / "b", expect=1)
    assert "--encoder" in refused.stderr and "Traceback" not in refused.stderr
    refused = python(*study, tmp_path / "plain.png", "--encoder", "resnet5:none", "--out", tmp_path / "b", expect=1)
    assert "did you mean" in refused.stderr and "Traceback" not in refused.stderr
    (tmp_path / "broken.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    refused = python(*study, tmp_path / "broken.png", *encoder, "--out", tmp_path / "c", expect=1)
    assert f"{tmp_path / 'broken.png'}: not a readable image" in refused.stderr
    assert "Traceback" not in refused.stderr


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size
