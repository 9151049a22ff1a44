"""Open the file systems that fsspec knows: no secrets in URLs, time-outs for everything, and no retries but ours."""

import os
import re
import threading
from typing import Any
from urllib.parse import urlsplit

from semiseg.data.errors import DataError

CONNECT_S, SILENT_S = 10.0, 60.0  # to wait for a connection, and for the next byte of an answer
REQUEST_S = 300.0  # for a complete answer, however slow; a request is for at most `storage.storage.PART` bytes
UPLOAD_BYTES_S = 100_000  # slower uploads time out

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "http", "https": "http"}
# user@ or user:secret@ before the host; a secret may contain a "/", a port is followed by one.
_SECRET = re.compile(r"[^/@]*@|(?!arn:)[^/@:]*:(?!\d+(/|$))[^@]*@")


class Remote:
    """A remote folder's file system, opened at its first use, and again in a forked process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._process = 0
        self._opened: tuple[Any, str] | None = None

    def open(self) -> tuple[Any, str]:
        """The fsspec file system, and the path of the folder in it."""
        if self._opened is None or self._process != os.getpid():
            system = _shared(self.url)
            self._opened, self._process = (system, system._strip_protocol(self.url).rstrip("/")), os.getpid()
        return self._opened


def check_url(url: str) -> None:
    """DataError for a URL that contains a secret or chains file systems."""
    scheme, _, rest = url.partition("://")
    if "::" in scheme:
        raise DataError(
            f"{_hidden(url)}: chained file systems are not supported; shards are cached anyway (SEMISEG_CACHE), "
            f"so write {scheme.rsplit('::', 1)[-1]}://..."
        )
    if _SECRET.match(rest):
        raise DataError(
            f"{_hidden(url)}: a URL must not contain credentials, since it is logged and stored; remove them (the part "
            "before '@') and set them in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if scheme in ("http", "https") and "?" in rest:
        raise DataError(
            f"{url.partition('?')[0]}?...: a signed URL names one file and contains a secret; give the folder's URL, or read "
            "an object store by its scheme (s3://, gs://), with the credentials in the environment"
        )


def timed(system: Any, seconds: float = REQUEST_S) -> dict[str, Any]:
    """The keyword argument that limits the time of a file system's call, if it has one."""
    return {"timeout": seconds} if getattr(system, "async_impl", False) else {}


def _shared(url: str) -> Any:
    """One file system for all folders of a bucket or server, as long as its environment variables stay the same."""
    parts = urlsplit(url)
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "FSSPEC_"))))
    key = (os.getpid(), parts.scheme, parts.netloc, settings)
    with _lock:
        if key not in _systems:
            _systems[key] = _open(url, parts.scheme)
        return _systems[key]


def _open(url: str, protocol: str) -> Any:
    import fsspec

    try:
        system, _ = fsspec.core.url_to_fs(url, skip_instance_cache=True, **_options(protocol))
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        install = f"pip install 'semiseg-data[{extra}]'" if extra else "install what fsspec requires"
        raise DataError(f"{url}: a package is missing ({error}): {install}") from error
    except ValueError as error:
        raise DataError(f"{url}: cannot be opened ({error}); s3://, gs://, hf:// and https:// work") from error
    if protocol in ("s3", "s3a"):
        system.retries = 1
    return system


# A forked process keeps but never uses its parent's file systems: only their owner may close them.
_systems: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _options(protocol: str) -> dict[str, Any]:
    """Settings for some protocols; the others keep the defaults of their packages."""
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_S, "read_timeout": SILENT_S, "retries": {"total_max_attempts": 1}}
        return {"config_kwargs": limits, "use_listings_cache": False}
    if protocol in ("http", "https"):
        import aiohttp  # the caller reports an ImportError

        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        return {"client_kwargs": {"timeout": limits}, "use_listings_cache": False}
    return {}


def _hidden(url: str) -> str:
    return re.sub(r"://.*@", "://***@", url)
