"""Tables of strangers that name files of this machine or addresses: not opened, no request is sent."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from semiseg.data import DataError
from semiseg.datasets.hub.opening import refuse_strange_places
from semiseg.datasets.hub.rows import confined_path

BAD = [
    "/etc/passwd", "../x.png", "a/../../x.png", "file:///etc/passwd", "http://127.0.0.1/x.png", "s3://b/x", "x\0.png",
    "simplecache::http://127.0.0.1/x", "zip://x.png::/etc/a.zip", "zip://x.png::http://127.0.0.1/a.zip", "gs://b/x",
    "hf://datasets/own/other/x.png", "hf://datasets/own/name/../other/x.png", "filecache::/etc/passwd", "link/secret", None, 3,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "secret").write_text("private")
    (tmp_path / "own" / "link").symlink_to(tmp_path)
    return tmp_path / "own"


@pytest.mark.parametrize("path", BAD, ids=ascii)
def test_paths_outside_are_refused(folder, path):
    with pytest.raises(DataError, match=r"is not in the data set's own folder .* so it is not opened; store the bytes"):
        confined_path(path, [str(folder), "hf://datasets/own/name"])


def test_paths_inside_are_kept(folder):
    homes = [str(folder), "hf://datasets/own/name"]
    assert confined_path("a/b.png", homes) == confined_path(f"{folder}/a/b.png", homes) == f"{folder}/a/b.png"
    assert confined_path("zip://b.png::a.zip", homes) == f"zip://b.png::{folder}/a.zip"
    for url in ("hf://datasets/own/name/x.png", "hf://datasets/own/name@main/x.png"):
        assert confined_path(url, homes) == url


def test_a_table_reads_no_file_and_sends_no_request(tmp_path):
    datasets = pytest.importorskip("datasets")
    from semiseg.data import open_dataset

    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "private.png").write_bytes(b"private")
    try:
        paths = [str(tmp_path / "private.png"), f"http://127.0.0.1:{server.server_port}/x.png"]
        for number, path in enumerate(paths):
            place = tmp_path / str(number) / "train.parquet"
            place.parent.mkdir()
            import pyarrow as pa
            import pyarrow.parquet as pq

            image = pa.array(
                [{"bytes": None, "path": path}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            )
            features = datasets.Features({"image": datasets.Image()})
            schema = features.arrow_schema
            pq.write_table(pa.table({"image": image}).cast(schema).replace_schema_metadata(schema.metadata), place)
            with pytest.raises(DataError, match="not opened"):
                open_dataset("hub", place, mask="none").splits()
    finally:
        server.shutdown()
        server.server_close()
    assert requests == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("README.md", "---\nconfigs:\n- config_name: a\n  data_files: http://127.0.0.1/x.parquet\n---\n"),
        ("README.md", "---\nconfigs:\n- data_files:\n  - path: ../x.parquet\n---\n"),
        ("README.md", "---\nconfigs:\n- data_dir: /etc\n---\n"),
        ("dataset_dict.json", '{"splits": ["../other"]}'),
        ("state.json", '{"_data_files": [{"filename": "/etc/x.arrow"}]}'),
        ("state.json", "[" * 100_000),
    ],
)
def test_lists_that_name_data_elsewhere_are_refused(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=r"outside of its folder|more than 64 levels"):
        refuse_strange_places(tmp_path)
