"""Retry what a network failed at: waits double, with jitter, are limited in number and time, and are logged.

What a retry cannot change is an error with its remedy at once: a missing file, no permission, no credentials.
"""

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from semiseg.data.errors import DataError

Result = TypeVar("Result")

log = logging.getLogger("semiseg.data")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and for how long an action is tried. Waits double from the first to the longest, each times 0.5 to 1.5."""

    attempts: int = 10
    first_s: float = 0.1
    longest_s: float = 20.0
    total_s: float = 300.0


PATIENCE = Patience()  # survives about a minute of immediate failures


class ShortRead(OSError):
    """An answer that is shorter than requested although the file is not."""


def persist(where: str, action: Callable[[], Result], patience: Patience | None = None) -> Result:
    """The result of `action`, retried while it fails for temporary reasons.

    Those are dropped connections, time-outs, short answers, throttling and server errors (HTTP 408, 425, 429, 5xx); each
    is logged as a warning of "semiseg.data". Raises FileNotFoundError if nothing is there; DataError, with the remedy, for
    what is refused, and after the last attempt. `where` names the file in messages.
    """
    patience = patience or PATIENCE
    began = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except Exception as error:
            if (verdict := _verdict(where, error)) is not None:
                raise verdict from error
            if not _passes(error):
                raise
            reason, took = say(error), time.monotonic() - began
            wait = min(patience.first_s * 2 ** (attempt - 1), patience.longest_s) * _JITTER.uniform(0.5, 1.5)
            if attempt >= patience.attempts or took + wait > patience.total_s:
                raise DataError(
                    f"{where}: cannot be reached, {attempt} attempts in {took:.0f} s failed, the last with: {reason}; "
                    "check the network and the endpoint (AWS_ENDPOINT_URL for s3://), then rerun the command"
                ) from error
        log.warning("%s: attempt %d of %d: %s; retrying in %.1f s", where, attempt, patience.attempts, reason, wait)
        time.sleep(wait)


_JITTER = random.SystemRandom()  # no state that forked processes would share, and not the user's


def say(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()) if str(error) else type(error).__name__


def status(error: BaseException) -> int | None:
    """The HTTP status of a client library's error, or of the error that caused it."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        boto = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for found in (boto, getattr(response, "status_code", None), getattr(cause, "status", None)):
            if isinstance(found, int):
                return found
        # Only gcsfs: aiohttp also gives a truncated answer the code 400.
        if type(cause).__name__ == "HttpError" and str(code := getattr(cause, "code", "")).isdigit():
            return int(code)
    return None


# Errors of botocore, aiohttp, requests, httpx and gcsfs; by name, since these need not be installed.
_PASSING = {"HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError", "ClientError"}
_PASSING |= {"RequestException", "TransportError", "HttpError"}
_PASSING_CODES = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"}
_PASSING_STATUS = {408, 425, 429}
_CREDENTIALS = {"ProfileNotFound", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOTokenLoadError"}


def _verdict(where: str, error: Exception) -> Exception | None:
    """The final error if a retry would not help, else None."""
    found, code, reason = status(error), _code(error), say(error)
    name = type(error).__name__
    if isinstance(error, DataError):
        return error
    if "Credentials" in name or name in _CREDENTIALS:
        return DataError(
            f"{where}: no usable credentials ({reason}); they come from the environment: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (s3://; FSSPEC_S3_ANON=true for public buckets), "
            "GOOGLE_APPLICATION_CREDENTIALS (gs://), HF_TOKEN (hf://)"
        )
    if code in _PASSING_CODES:
        return None
    if code == "NoSuchBucket":
        return DataError(f"{where}: there is no such bucket; create it, or correct its name or AWS_ENDPOINT_URL")
    if isinstance(error, PermissionError) or found in (401, 403):
        return DataError(
            f"{where}: access is refused ({reason}); check that the credentials in the environment may read it (or "
            "write it), and that the name is right: without permission to list, a missing object is refused too"
        )
    if found == 404 or (found is None and _absent(error)):
        return FileNotFoundError(errno.ENOENT, "no such file", where)
    if found is not None and 300 <= found < 500 and found not in _PASSING_STATUS:
        return DataError(f"{where}: the server refuses the request ({reason}); check the URL, the region, the endpoint")
    if not _passes(error) and ({"BotoCoreError", "ValueError"} & _names(error)):
        return DataError(f"{where}: cannot be requested ({reason}); check the URL and the settings in the environment")
    return None


def _absent(error: BaseException) -> bool:
    """Whether an error says that nothing is there, and was not caused by another error (as in fsspec's http)."""
    first, *causes = _chain(error)
    absent = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    return isinstance(first, absent) and not any(_passes(cause) and not isinstance(cause, absent) for cause in causes)


def _passes(error: BaseException) -> bool:
    return isinstance(error, OSError | EOFError) or bool(_names(error) & _PASSING)


def _names(error: BaseException) -> set[str]:
    """Names of its class and of all base classes."""
    return {base.__name__ for base in type(error).__mro__}


def _code(error: BaseException) -> str | None:
    """The error code that S3 gives beside the status, which is 400 for many temporary errors."""
    for cause in _chain(error):
        response: Any = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response.get("Error", {}).get("Code")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
