"""The toolbox's .mat files: the splits, and the labels, read one at a time.

SUNRGBDMeta.mat and allsplit.mat are MATLAB files that scipy reads. SUNRGBD2Dseg.mat has version 7.3, which is HDF5: a
(10335, 1) array of references to the labels, in the order of SUNRGBDMeta. MATLAB stores columns first and HDF5 rows first,
so labels are transposed. Loaded completely, the file takes 64 GB of memory; this code loads one label at a time.
"""

import functools
import hashlib
import importlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from semiseg.data import DataError, Tree, checked_mat, listing

if TYPE_CHECKING:
    import h5py

META, SPLITS, LABELS = "Metadata/SUNRGBDMeta.mat", "traintestSUNRGBD/allsplit.mat", "Metadata/SUNRGBD2Dseg.mat"
LARGEST = 512 << 20  # bytes of the table of scenes, unpacked
_MOST_PIXELS = 1 << 26  # of a label; those of SUN RGB-D have 730x530 at most
_IN_PIECES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which Python unpacks with bounded memory
_MOST_UNPACKED = 8 << 30  # bytes of SUNRGBD2Dseg.mat in an archive; published: 0.7e9
INSTALL = "pip install 'semiseg-sunrgbd[mat]'"


@dataclass(frozen=True, slots=True)
class Scene:
    """A row of SUNRGBDMeta: the folder below SUNRGBD/, such as "kv1/NYUdata/NYU0034", and the name of its image."""

    folder: str
    image: str

    @property
    def collection(self) -> str:
        """The collection of the release, such as "kv1/NYUdata"."""
        return "/".join(self.folder.split("/")[:2])


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Where SUNRGBD2Dseg.mat is: a file, or a member of an archive that is unpacked below `temporary`. Can be pickled."""

    path: str
    member: str | None = None
    temporary: str = ""

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}: {self.member}"


def unreadable() -> str | None:
    """Why .mat files can't be read here and what to install, or None."""
    absent = []
    for name in ("h5py", "scipy.io"):
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name.partition(".")[0])
    if not absent:
        return None
    return f"reading the toolbox's .mat files requires {' and '.join(absent)}; {INSTALL}"


def read_scenes(tree: Tree) -> list[Scene]:
    """The rows of SUNRGBDMeta.mat, in order. DataError for a file that is damaged or has other contents."""
    where = tree.where(META)
    table = _load(tree, META, "SUNRGBDMeta")
    try:
        paths = ["".join(cell.ravel()) for cell in table["rgbpath"].ravel()]
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{where}: expected a field rgbpath of strings ({error}); download the toolbox again"
        ) from error
    scenes = []
    for row, path in enumerate(paths, start=1):
        folder, found, image = _below(f"{where}: row {row}", path).rpartition("/image/")
        if not found:
            raise DataError(f"{where}: row {row}: '{path}' is not in a folder 'image'; download the toolbox again")
        scenes.append(Scene(folder, image))
    if len({scene.folder for scene in scenes}) != len(scenes):
        raise DataError(f"{where} names a scene twice; download the toolbox again")
    return scenes


def read_splits(tree: Tree) -> dict[str, frozenset[str]]:
    """Folders of the scenes (as in `Scene.folder`) of "train" and "test", from allsplit.mat. DataError if they overlap."""
    where = tree.where(SPLITS)
    splits = {}
    for split in ("train", "test"):
        cells = _load(tree, SPLITS, f"all{split}")
        try:
            paths = ["".join(cell.ravel()) for cell in cells.ravel()]
        except (AttributeError, TypeError) as error:
            raise DataError(
                f"{where}: all{split} is not a list of paths ({error}); download the toolbox again"
            ) from error
        splits[split] = frozenset(
            _below(f"{where}: all{split}, row {n}", path) for n, path in enumerate(paths, start=1)
        )
    both = splits["train"] & splits["test"]
    if both:
        raise DataError(
            f"{where}: {len(both)} scenes are in both splits, such as {min(both)}; download the toolbox again"
        )
    return splits


def count_labels(file: LabelFile) -> int:
    """The number of labels in SUNRGBD2Dseg.mat; leaves no file open."""
    import h5py

    path = _local(file)
    try:
        with h5py.File(path, "r", locking=False) as opened:
            return int(_references(opened, file).size)
    except (OSError, RuntimeError) as error:
        raise _damaged(file, error) from error


def read_label(file: LabelFile, row: int) -> np.ndarray:
    """The label in a row (from 0) of SUNRGBD2Dseg.mat: uint8 [h, w], 0 void, 1..37. One label in memory at a time.

    Each process opens the file once, after a fork, because HDF5 handles do not survive one.
    """
    path = _local(file)
    try:
        opened = _opened(path)
        references = _references(opened, file)
        stored: Any = opened[references[np.unravel_index(row, references.shape)]]
        _check_stored(stored)
        ids = np.asarray(stored)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error
    if ids.ndim != 2 or not ids.size:
        raise DataError(
            f"{file}, label {row + 1}: shape {list(ids.shape)}; expected [width, height]; download the toolbox again"
        )
    if ids.dtype != np.uint8 and not np.array_equal(ids, ids.astype(np.uint8)):
        raise DataError(
            f"{file}, label {row + 1}: {ids.dtype} from {ids.min()} to {ids.max()}; expected integer ids 0..37; "
            "download the toolbox again"
        )
    return np.ascontiguousarray(ids.T, np.uint8)


def _load(tree: Tree, name: str, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    data = tree.read(name)
    try:
        checked = checked_mat(data, variable, LARGEST)
        return loadmat(io.BytesIO(checked), variable_names=[variable])[variable]
    except Exception as error:  # scipy raises many kinds of errors for a damaged file
        raise DataError(f"{tree.where(name)}: no variable {variable} ({error}); download the toolbox again") from error


def _below(where: str, path: str) -> str:
    """The path below SUNRGBD/: paths are those of the author's machine, some with "//" inside or "/" at the end."""
    _, found, rest = path.replace("\\", "/").rpartition("SUNRGBD/")
    if not found:
        raise DataError(f"{where}: path '{path}' does not contain 'SUNRGBD/'; download the toolbox again")
    return "/".join(part for part in rest.split("/") if part)


def _references(opened: "h5py.File", file: LabelFile) -> Any:
    import h5py

    # A link, or a data set that is stored outside, could name any file of this machine.
    group: Any = opened.get("SUNRGBD2Dseg")
    references: Any = None
    if isinstance(group, h5py.Group) and isinstance(opened.get("SUNRGBD2Dseg", getlink=True), h5py.HardLink):
        references = group.get("seglabel")
        linked = references is not None and not isinstance(group.get("seglabel", getlink=True), h5py.HardLink)
        references = None if linked else references
    if references is None:
        raise DataError(
            f"{file} holds {', '.join(opened) or 'nothing'}; expected SUNRGBD2Dseg/seglabel; download SUNRGBDtoolbox.zip again"
        )
    if not isinstance(references, h5py.Dataset) or references.external or references.is_virtual:
        raise DataError(f"{file}: seglabel is not a table in this file; download SUNRGBDtoolbox.zip again")
    return references


def _check_stored(stored: Any) -> None:
    """ValueError for a label that is in another file, or has more pixels than memory holds."""
    import h5py

    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise ValueError("a label is not stored in this file")
    if stored.size is None or stored.size > _MOST_PIXELS or stored.dtype.kind not in "uif":
        raise ValueError(f"a label of {stored.dtype} {list(stored.shape or ())[:8]}")


def _damaged(file: LabelFile, error: Exception) -> DataError:
    return DataError(f"{file} can't be read as HDF5 ({error}); download SUNRGBDtoolbox.zip again")


_handles: dict[str, tuple[int, "h5py.File"]] = {}  # path -> the process that opened it, the file


def _opened(path: str) -> "h5py.File":
    import h5py

    process, opened = _handles.get(path, (0, None))
    if opened is None or process != os.getpid():
        if opened is not None:
            opened.close()  # inherited from the parent: HDF5 would return it again for the same file
        opened = h5py.File(path, "r", locking=False)  # many network file systems do not support locks
        _handles[path] = (os.getpid(), opened)
    return opened


@functools.lru_cache(maxsize=4)
def _local(file: LabelFile) -> str:
    """The path of an HDF5 file, which needs random access: a member of an archive is unpacked once for all processes.

    It is unpacked to a folder of this user in the temporary folder ($TMPDIR); the published file takes 0.7 GB.
    """
    if file.member is None:
        return file.path
    state = Path(file.path).stat()
    identity = f"{file.path}\0{state.st_size}\0{state.st_mtime_ns}\0{file.member}"
    folder = _private(Path(file.temporary) / f"semiseg-sunrgbd-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
    target = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.mat"
    if target.exists():
        return str(target)
    descriptor, partial = tempfile.mkstemp(dir=folder, suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as to:
            _copy(file.path, file.member, to)
        Path(partial).replace(target)
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, KeyError, EOFError) as error:
        Path(partial).unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"{file} could not be unpacked to {folder} ({reason}); unpack the zip and pass its folder"
        ) from error
    return str(target)


def _copy(path: str, member: str, to: BinaryIO) -> None:
    """A zip is read in pieces; other archives, in which the toolbox is not published, at once."""
    tree = Tree.open(path)
    if tree.kind != "zip":
        to.write(tree.read(member))
        return
    entry = listing(Path(path), "zip").entries[member]
    with zipfile.ZipFile(path) as packed:
        if entry.size > _MOST_UNPACKED or packed.getinfo(entry.name).compress_type not in _IN_PIECES:
            raise ValueError(f"{entry.size:,} bytes, or not packed by deflate")
        with packed.open(entry.name) as source:
            shutil.copyfileobj(source, to, 1 << 20)


def _private(folder: Path) -> Path:
    """A folder in a shared place that no other user can write to."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise DataError(
            f"{folder} can't be created ({error.strerror}); unpack SUNRGBDtoolbox.zip and pass its folder"
        ) from error
    if not stat.S_ISDIR(state.st_mode) or (hasattr(os, "getuid") and state.st_uid != os.getuid()):
        raise DataError(
            f"{folder} belongs to another user; set TMPDIR, or unpack SUNRGBDtoolbox.zip and pass its folder"
        )
    return folder
