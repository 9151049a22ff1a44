"""A folder that changes after it was sharded: nothing old is taken for new, and no image is in two splits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import DataError, ShardSet, shard
from semiseg.datasets.folder import Folder


def write(root: Path, to: Path) -> dict[str, set[str]]:
    """Shard every split that is written by default, as the README does; returns the keys of all that is there."""
    roofs = Folder(root)
    for split in roofs.splits().values():
        if split.default:
            shard(roofs, split.name, to)
    return {place.name: set(ShardSet(place).keys()) for place in (to / "roofs").iterdir()}


@pytest.fixture
def roofs(put: Callable[..., Path], photo: Callable, ids: Callable) -> Path:
    root = put("notes.md", "")
    for number in range(14):
        put(f"images/a{number}.png", photo(number), compress_level=0)
    for number in range(6):
        put(f"masks/a{number}.png", ids(number), compress_level=0)
    return root


def test_masks_that_are_added_later_leave_no_image_in_two_splits(
    roofs: Path, put: Callable[..., Path], ids: Callable, tmp_path: Path
) -> None:
    to = tmp_path / "shards"
    before = write(roofs, to)
    assert before["unlabeled"] == {f"a{number}" for number in range(6, 14)}
    for number in range(6, 14):
        put(f"masks/a{number}.png", ids(number))
    with pytest.raises(DataError, match="holds shards of another configuration"):
        write(roofs, to)
    for split in ("train", "val"):  # but not the split that no longer exists
        shutil.rmtree(to / "roofs" / split)
    with pytest.raises(DataError, match=r"unlabeled: \d+ samples now in (train|val)[\s\S]*rm -r .*roofs/unlabeled"):
        write(roofs, to)
    shutil.rmtree(to / "roofs/unlabeled")
    after = write(roofs, to)
    assert set(after) == {"train", "val"} and not after["train"] & after["val"]
    assert after["train"] | after["val"] == {f"a{number}" for number in range(14)}


@pytest.mark.parametrize("what", ["images", "masks"])
def test_a_file_replaced_at_equal_size_is_not_taken_for_the_old_one(
    roofs: Path, put: Callable[..., Path], photo: Callable, ids: Callable, tmp_path: Path, what: str
) -> None:
    to = tmp_path / "shards"
    write(roofs, to)
    path = roofs / what / "a3.png"
    size = path.stat().st_size
    put(f"{what}/a3.png", photo(99) if what == "images" else ids(99), compress_level=0)
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=r"before files of the source changed|another configuration"):
        write(roofs, to)
    shutil.rmtree(to / "roofs")
    write(roofs, to)
    place = next(place for place in (to / "roofs").iterdir() if "a3" in ShardSet(place).keys())  # noqa: SIM118
    stored = ShardSet(place)
    sample = stored[stored.keys().index("a3")]
    found = np.asarray(sample.image if what == "images" else sample.label)
    assert np.array_equal(found, np.asarray(Image.open(path)))


def test_few_masks_are_told(put: Callable[..., Path], ids: Callable, pairs: Callable[..., Path]) -> None:
    notes = "\n".join(Folder(pairs(3)).notes())
    assert "only 2 masks for training and 1 for val: enough for a trial, not for a measurement" in notes
    put("images/test/t.png")
    root = put("masks/test/t.png", ids(0))
    shutil.rmtree(root / "masks")
    put("masks/test/t.png", ids(0))
    folder = Folder(root)
    assert "nothing to train on: all masks belong to other splits by subfolders (1 in test)" in "\n".join(
        folder.notes()
    )
    assert folder.next_steps(["test", "unlabeled"], "shards/") == []


def test_one_mask_trains_without_val(pairs: Callable[..., Path]) -> None:
    folder = Folder(pairs(1))
    assert "no val: the training command works but measures nothing" in "\n".join(folder.notes())
    (command,) = folder.next_steps(["train"], "shards/")
    assert command.endswith("data.domains.own.unlabeled.split=train data.domains.own.val=")
