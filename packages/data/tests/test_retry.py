"""What is retried, for how long, and what fails at once."""

import itertools
import logging
import random
import time

import pytest

from semiseg.data import DataError
from semiseg.data.storage.retry import Patience, ShortRead, persist

QUICK = Patience(first_s=0.001, longest_s=0.004)


def answer(code: str, status: int) -> Exception:
    """What botocore raises for an error from S3, as translated by s3fs."""
    errors = pytest.importorskip("botocore.exceptions")
    translate = pytest.importorskip("s3fs.errors").translate_boto_error
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate(errors.ClientError(answer, "GetObject"))


def connection(name: str, **fields: object) -> Exception:
    return getattr(pytest.importorskip("botocore.exceptions"), name)(**fields)


def payload() -> Exception:
    return pytest.importorskip("aiohttp").ClientPayloadError("cut")


def http_status(status: int) -> Exception:
    aiohttp, yarl = pytest.importorskip("aiohttp"), pytest.importorskip("yarl")
    url = yarl.URL("http://x/y")
    return aiohttp.ClientResponseError(aiohttp.RequestInfo(url, "GET", None, url), (), status=status)


def lost() -> Exception:
    """fsspec's http reports any failure to stat a file as a missing file."""
    error = FileNotFoundError("http://x/y")
    error.__cause__ = ConnectionResetError("peer")
    return error


PASSING = [
    lambda: ConnectionResetError(104, "reset"),
    lambda: TimeoutError(),
    lambda: ShortRead("3 of 5 bytes"),
    lambda: answer("InternalError", 500),
    lambda: answer("SlowDown", 503),
    lambda: answer("RequestTimeout", 400),
    lambda: answer("503", 503),
    lambda: connection("EndpointConnectionError", endpoint_url="http://x"),
    lambda: connection("ReadTimeoutError", endpoint_url="http://x"),
    lambda: connection("ConnectionClosedError", endpoint_url="http://x"),
    payload,
    lambda: http_status(503),
    lambda: http_status(429),
    lost,
]

FINAL = [
    (lambda: FileNotFoundError("x"), FileNotFoundError, "no such file"),
    (lambda: answer("NoSuchKey", 404), FileNotFoundError, "no such file"),
    (lambda: http_status(404), FileNotFoundError, "no such file"),
    (lambda: answer("NoSuchBucket", 404), DataError, "no such bucket; create it"),
    (lambda: answer("AccessDenied", 403), DataError, "access is refused .* credentials in the environment"),
    (lambda: answer("InvalidAccessKeyId", 403), DataError, "access is refused"),
    (lambda: http_status(401), DataError, "access is refused"),
    (lambda: connection("NoCredentialsError"), DataError, "set AWS_ACCESS_KEY_ID"),
    (lambda: answer("PermanentRedirect", 301), DataError, "check the URL, the region"),
    (lambda: answer("InvalidArgument", 400), DataError, "check the URL"),
    (
        lambda: connection("ParamValidationError", report="Invalid bucket name"),
        DataError,
        "check the URL and the settings",
    ),
    (lambda: ValueError("Invalid endpoint: localhost:9000"), DataError, "check the URL and the settings"),
    (lambda: DataError("as it is"), DataError, "^as it is$"),
    (lambda: TypeError("a defect"), TypeError, "a defect"),
]


@pytest.mark.parametrize("make", PASSING, ids=range(len(PASSING)))
def test_temporary_failures_are_retried_and_logged(make, caplog):
    failures = iter([make(), make(), make()])

    def action() -> str:
        for failure in failures:
            raise failure
        return "read"

    before = random.getstate()
    with caplog.at_level(logging.WARNING, "semiseg.data"):
        assert persist("s3://b/x", action, QUICK) == "read"
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        f"attempt {n} of 10" for n in (1, 2, 3)
    ]
    assert all(
        type(make()).__name__ in record.getMessage() and "retrying in" in record.getMessage()
        for record in caplog.records
    )
    assert random.getstate() == before, "the user's random numbers are not touched"


@pytest.mark.parametrize(("make", "kind", "expected"), FINAL, ids=range(len(FINAL)))
def test_permanent_failures_are_errors_at_once(make, kind, expected):
    calls = itertools.count()

    def action() -> None:
        next(calls)
        raise make()

    with pytest.raises(kind, match=expected) as caught:
        persist("s3://b/x", action, QUICK)
    assert next(calls) == 1
    assert "s3://b/x" in str(caught.value) or "as it is" in str(caught.value) or kind is TypeError


def test_patience_ends_by_count_and_by_time():
    calls = itertools.count()

    def action() -> None:
        next(calls)
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(
        DataError, match=r"^s3://b/x: cannot be reached, 4 attempts .* reset by peer; check the network"
    ):
        persist("s3://b/x", action, Patience(attempts=4, first_s=0.001))
    assert next(calls) == 4
    began = time.monotonic()
    with pytest.raises(DataError, match="cannot be reached"):
        persist("s3://b/x", action, Patience(attempts=10**6, first_s=0.05, longest_s=0.05, total_s=0.3))
    assert 3 <= next(calls) - 4 <= 13, "waits are 0.025 to 0.075 s, within 0.3 s"
    assert time.monotonic() - began < 10


def test_waits_double_up_to_the_longest(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("semiseg.data.storage.retry.time.sleep", waits.append)

    def action() -> None:
        raise TimeoutError

    with pytest.raises(DataError, match="9 attempts"):
        persist("x", action, Patience(attempts=9, first_s=1.0, longest_s=16.0))
    assert len(waits) == 8
    for wait, middle in zip(waits, (1, 2, 4, 8, 16, 16, 16, 16), strict=True):
        assert 0.5 * middle <= wait <= 1.5 * middle
    assert len({wait / middle for wait, middle in zip(waits, (1, 2, 4, 8, 16, 16, 16, 16), strict=True)}) > 4, "jitter"
