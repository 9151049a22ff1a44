"""Small data sets to write as shards: generated pictures, and real CamVid files."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from semiseg.data import Adapter, RawSample, RawSpace, Split, Taxonomy

SPACE = RawSpace(name="pictures", names={0: "sky", 1: "road", 2: "car", 9: "sign", 255: "void"})
TAXONOMY = Taxonomy(
    name="pictures-3",
    raw=SPACE,
    names=("scene", "car", "sign"),
    colours=((0, 0, 0), (200, 0, 0), (0, 0, 200)),
    ids={0: 0, 1: 0, 2: 1, 9: 2},
    foreground=frozenset({1, 2}),
)
CAMVID = RawSpace(name="camvid-ids", names={i: f"class {i}" for i in range(12)})


class Pictures:
    """An adapter over a list of samples."""

    summary, home, root = "pictures", "https://example.org", None
    taxonomies = (TAXONOMY,)

    def __init__(
        self, samples: Sequence[RawSample], name: str, version: str, raw_space: RawSpace, **split: Any
    ) -> None:
        self.listed, self.name, self.version, self.raw_space = list(samples), name, version, raw_space
        self.split = Split(**{"name": "train", "samples": len(self.listed), **split})

    def splits(self) -> dict[str, Split]:
        return {self.split.name: self.split}

    def samples(self, split: str) -> Iterator[RawSample]:
        assert split == self.split.name
        return iter(self.listed)


@pytest.fixture(scope="session")
def raw_space() -> RawSpace:
    return SPACE


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    return TAXONOMY


@pytest.fixture(scope="session")
def adapt() -> Callable[..., Adapter]:
    """adapt(samples, name=, version=, raw_space=, split fields...) -> an adapter of one split, "train"."""

    def adapt(
        samples: Sequence[RawSample],
        *,
        name: str = "pictures",
        version: str = "1",
        raw_space: RawSpace = SPACE,
        **split: Any,
    ) -> Adapter:
        return cast(Adapter, Pictures(samples, name, version, raw_space, **split))

    return adapt


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """encoded(array or image, "PNG" or "JPEG", ...) -> the file's bytes."""

    def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        stream = io.BytesIO()
        (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, kind, **options)
        return stream.getvalue()

    return encoded


@pytest.fixture(scope="session")
def draw(encoded: Callable[..., bytes]) -> Callable[..., list[RawSample]]:
    """draw(count, height=, width=, seed=, labeled=, kind=) -> samples of noise with labels of random ids."""

    def draw(
        count: int, *, height: int = 11, width: int = 17, seed: int = 0, labeled: bool = True, kind: str = "PNG"
    ) -> list[RawSample]:
        random = np.random.default_rng(seed)
        ids = np.array(sorted(SPACE.names))
        samples = []
        for i in range(count):
            image = encoded(random.integers(0, 256, (height, width, 3), np.uint8), kind)
            label = encoded(random.choice(ids, (height, width)).astype(np.uint8)) if labeled else None
            size = len(image) + len(label or b"")
            meta = {"source": f"picture {i}", "weight": i / 4}
            samples.append(
                RawSample(key=f"p{i:03}", image=image, label=label, size=size, tags=("noise",) * (i % 2), meta=meta)
            )
        return samples

    return draw


@pytest.fixture(scope="session")
def camvid_files(camvid_root: Path) -> list[tuple[Path, Path]]:
    """Real images and their labels: twelve, spread over the validation split."""
    images = sorted((camvid_root / "val").glob("*.png"))[::9][:12]
    return [(image, camvid_root / "valannot" / image.name) for image in images]


@pytest.fixture(scope="session")
def camvid(camvid_files: list[tuple[Path, Path]], adapt: Callable[..., Adapter]) -> Adapter:
    """An adapter of twelve real samples, read when they are needed."""
    samples = [
        RawSample(
            key=image.stem,
            image=partial(Path.read_bytes, image),
            label=partial(Path.read_bytes, label),
            size=image.stat().st_size + label.stat().st_size,
            meta={"source": image.name},
        )
        for image, label in camvid_files
    ]
    return adapt(samples, name="camvid-part", raw_space=CAMVID)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A separate file system of 600 kB; needs permission to mount."""
    if shutil.which("mount") is None:
        pytest.skip("NOT TESTED: a full disk; there is no mount command")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a full disk; mounting a small tmpfs failed: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
