"""Our shards are plain WebDataset: other readers get every sample, with the source's pixels."""

import gc
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data import ShardSet, shard


@pytest.fixture(scope="module")
def tars(camvid, tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("peers")
    shard(camvid, "train", root, size="1MB")
    found = sorted(map(str, (root / "camvid-part" / "train").glob("*.tar")))
    assert len(found) == 4
    return found


def pixels(source: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
        return np.asarray(picture)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_every_sample(tars, camvid_files):
    webdataset = pytest.importorskip("webdataset")
    for decoded in (False, True):
        reader = webdataset.WebDataset(tars, shardshuffle=False)
        read = list(reader.decode("pil") if decoded else reader)
        assert [sample["__key__"] for sample in read] == [image.stem for image, _ in camvid_files]
        for sample, (image, label) in zip(read, camvid_files, strict=True):
            if decoded:
                assert np.array_equal(np.asarray(sample["image.png"]), pixels(image))
                assert np.array_equal(np.asarray(sample["label.png"].convert("L")), pixels(label))
                assert sample["meta.json"] == {"key": image.stem, "source": image.name, "tags": ""}
            else:
                assert sample["image.png"] == image.read_bytes()
                assert np.array_equal(pixels(sample["label.png"]), pixels(label))
    del reader, read
    gc.collect()  # it leaves files open, and warns when they are collected: here, not in another test


def test_hugging_face_datasets_reads_every_sample(tars, camvid_files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path))
    assert read["__key__"] == [image.stem for image, _ in camvid_files]
    for sample, (image, label) in zip(read, camvid_files, strict=True):
        assert np.array_equal(np.asarray(sample["image.png"]), pixels(image))
        assert np.array_equal(np.asarray(sample["label.png"]), pixels(label))
        assert sample["meta.json"]["source"] == image.name


def test_tags_reach_hugging_face_datasets_even_if_the_first_samples_have_none(adapt, draw, tmp_path, monkeypatch):
    """It infers types from five samples, where empty lists of tags would be lists of null."""
    from dataclasses import replace

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    samples = [replace(sample, tags=("car", "tree") if i > 6 else ()) for i, sample in enumerate(draw(9))]
    shard(adapt(samples), "train", tmp_path)
    tar = str(tmp_path / "pictures" / "train" / "000000.tar")
    read = datasets.load_dataset("webdataset", data_files=tar, split="train", cache_dir=str(tmp_path / "cache"))
    assert [meta["tags"] for meta in read["meta.json"]] == [""] * 7 + ["car,tree"] * 2
    assert [sample.tags for sample in ShardSet(tmp_path / "pictures" / "train")] == [()] * 7 + [("car", "tree")] * 2
