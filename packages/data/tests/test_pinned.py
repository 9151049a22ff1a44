"""The digest of a set is part of the key of every order, so it must not change by accident."""

import struct
import zlib

import numpy as np

from semiseg.data import RawSample, shard


def stored_png(pixels: np.ndarray) -> bytes:
    """A PNG without compression, written by hand: the same bytes on every machine."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    block = b"\x78\x01\x01" + struct.pack("<HH", len(rows), 0xFFFF ^ len(rows)) + rows
    stream = block + struct.pack(">I", zlib.adler32(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def test_the_digest_of_a_known_set_stays(adapt, tmp_path):
    samples = []
    for i in range(3):
        image = stored_png((np.arange(5 * 7 * 3).reshape(5, 7, 3) * (i + 1) % 256).astype(np.uint8))
        label = stored_png(np.array([0, 1, 2, 9, 255], np.uint8)[np.arange(35).reshape(5, 7) % (i + 3)])
        meta = {"source": f"picture {i}"}
        samples.append(RawSample(key=f"a/b-{i}", image=image, label=label, size=300, tags=("t",) * (i % 2), meta=meta))
    manifest = shard(adapt(samples), "train", tmp_path, size=700)
    assert manifest.digest == "2f103658fd4f89eb89ae427f5bd8b417c10e9eb7be844ef1a6cf5e0a5ad54549"
    assert [entry.sha256[:16] for entry in manifest.shards] == ["7aebf902f54d10a1", "dc0fdfbd9fbdb939"]
