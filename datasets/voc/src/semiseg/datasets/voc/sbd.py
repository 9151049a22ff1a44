"""A mask of SBD (Hariharan et al., ICCV 2011): a MATLAB file that holds GTcls.Segmentation, ids 0..20, no 255."""

import io
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from semiseg.data import DataError, checked_mat

LARGEST = 64 << 20  # bytes of a mask with its boundaries, unpacked; SBD's have at most 1 MB
INSTALL = "reading SBD's masks, which are MATLAB files, requires scipy: pip install 'semiseg-voc[sbd]'"


def readable() -> bool:
    """Whether scipy is installed."""
    return find_spec("scipy") is not None


def read_mask(member: Callable[[], bytes], where: str) -> np.ndarray:
    """Ids, uint8 [h, w], of a .mat file; `where` names it in errors (DataError).

    Can be pickled as `functools.partial(read_mask, member, where)`.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{where}: {INSTALL}") from error
    data = member()
    try:
        checked = checked_mat(data, "GTcls", LARGEST)
        ids = np.asarray(loadmat(io.BytesIO(checked), variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
    except Exception as error:  # scipy raises many kinds of errors for a damaged file
        raise DataError(f"{where} is not a mask of SBD ({type(error).__name__}: {error}); download it again") from error
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(
            f"{where}: GTcls.Segmentation is {ids.dtype} {list(ids.shape)}; expected uint8 [height, width]; "
            "download it again"
        )
    return ids
