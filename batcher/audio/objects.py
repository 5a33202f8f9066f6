"""Calls of object stores, each bounded in time. They block: call them off the event loop's thread.

A URL such as `s3://bucket/prefix/name` names one object. Errors are OSErrors, as of files: FileNotFoundError,
FileExistsError, PermissionError, and OutageError; `filename` is the URL, `strerror` the store's reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from batcher import files
from batcher.audio import relay
from batcher.errors import PERMANENT, BatcherError, StorageError, UsageError
from batcher.formatting import one_line
from batcher.installation import this_installation

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

    Client = S3Store | GCSStore | AzureStore

REQUEST_SECONDS: Final = 20.0
"""Bounds a request without audio, such as a look-up."""
TRANSFER_SECONDS: Final = 120.0
"""Bounds a request that carries audio or results."""
_CONNECT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 20.0
"""No request is repeated after this time; what waits longer for a store decides that itself."""
RETRIES: Final = 3
"""Repetitions of a request that failed."""
_WRITES: Final = 3
"""Attempts to write an object that a store is busy with."""
_PART_BYTES: Final = relay.MAX_ANSWER_BYTES // 2
"""A larger object is downloaded in parts of this size."""
_SHA256: Final = "sha256"
"""Name of the attribute with the SHA-256 of the content, in hex."""
_MEDIA: Final = {"mp3": "audio/mpeg", "wav": "audio/wav", "opus": "audio/ogg", "ogg": "audio/ogg"} | {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}
_OTHER_MEDIA: Final = "application/octet-stream"
_PREFIXES: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Beginnings of the names of the variables for each kind of store."""
_METADATA_HOST: Final = "169.254.169.254"
"""Where the clouds give machines of their own credentials; the last place where they are looked for."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_ANSWER: Final = re.compile(r"<Code>([^<]*)</Code>(?:\s*<Message>([^<]*)</Message>)?")

_STATUS: Final = re.compile(r"status code: (\d{3})")
_REJECTIONS: Final = {*range(300, 500), 501} - {408, 409, 425, 429}
"""HTTP statuses that will come again."""


class OutageError(OSError):
    """The store cannot be reached, or not be used for now."""


def trouble(what: str, error: OSError) -> BatcherError:
    """The error to show: `what` failed because of the store."""
    message = f"{what}: {error.strerror}"
    if error.errno in PERMANENT:
        return UsageError(message, "Check the bucket and your credentials for it, or choose another --out-dir.")
    return StorageError(message, "Run it again later.")


@contextmanager
def reporting() -> Iterator[None]:
    """Turn errors of stores into those to show.

    Raises:
        UsageError: a store cannot be used.
        StorageError: a store does not answer.
    """
    try:
        yield
    except OSError as error:
        if not files.is_url(str(error.filename)):
            raise
        raise trouble(f"cannot use {error.filename}", error) from error


class Found(NamedTuple):
    """An object as it is now: its size in bytes, the SHA-256 in its attributes, if any, and what identifies its
    version."""

    size: int
    sha256: str | None
    version: dict[str, str]


def head(url: str) -> Found | None:
    """The object, None if there is none."""
    try:
        with _errors(url):
            from obstore import get

            result = get(_client_of(url), _key(url), options={"head": True})
    except FileNotFoundError:
        return None
    version = {name: str(result.meta[name]) for name in ("e_tag", "version") if result.meta.get(name)}
    return Found(result.meta["size"], result.attributes.get(_SHA256), version)


def create(url: str, content: Path | bytes, sha256: str | None = None) -> None:
    """Create the object.

    Raises:
        FileExistsError: an object has its name, perhaps since an earlier try whose answer was lost; or the store asks
            to try again.
    """
    _put(url, content, sha256, "create")


def replace(url: str, content: Path | bytes, found: Found, sha256: str | None = None) -> None:
    """Replace the object, which was `found`.

    Raises:
        FileExistsError: another version is there by now.
    """
    _put(url, content, sha256, found.version or "overwrite")


def write(url: str, content: Path | bytes) -> None:
    """Write the object, which may exist."""
    for _ in range(_WRITES):
        try:
            return _put(url, content, None, "overwrite")
        except FileExistsError:  # the store is busy with another request for it
            continue
    raise OutageError(errno.EIO, "the store is busy with this object", url)


def _put(url: str, content: Path | bytes, sha256: str | None, mode: Any) -> None:
    media = _MEDIA.get(url.rpartition(".")[2], _OTHER_MEDIA)
    attributes = {"Content-Type": media} | ({} if sha256 is None else {_SHA256: sha256})
    with _errors(url):
        from obstore import put

        seconds = TRANSFER_SECONDS if isinstance(content, Path) else REQUEST_SECONDS
        client = _client_of(url, seconds, relay.MAX_REPLY_BYTES)
        put(client, _key(url), content, attributes=attributes, mode=mode, use_multipart=False)


def download(url: str, file: IO[bytes]) -> str:
    """Write the object's content to `file`. Returns its SHA-256."""
    seen = hashlib.sha256()
    with _errors(url):
        from obstore import get

        client, key = _client_of(url, TRANSFER_SECONDS), _key(url)
        result = get(client, key)
        size = result.meta["size"]
        parts: Iterator[GetResult] = iter([result])
        if size > _PART_BYTES:
            ranges = ((at, min(at + _PART_BYTES, size)) for at in range(0, size, _PART_BYTES))
            parts = (get(client, key, options={"range": one}) for one in ranges)
        for part in parts:
            for chunk in part:
                seen.update(chunk)
                file.write(chunk)
    return seen.hexdigest()


def read(url: str, limit: int) -> bytes | None:
    """The object's content, None if it has more than `limit` bytes."""
    with _errors(url):
        from obstore import get

        result = get(_client_of(url), _key(url))
        return bytes(result.bytes()) if result.meta["size"] <= limit else None


def names_below(url: str) -> Iterator[str]:
    """The names of all objects below `url`, relative to it."""
    with _errors(url):
        from obstore import list as list_objects

        client, prefix = _client_of(url), f"{_key(url)}/".lstrip("/")
        for chunk in list_objects(client, prefix or None, chunk_size=1000):
            yield from (meta["path"].removeprefix(prefix) for meta in chunk)


def names_in(url: str) -> list[str]:
    """The names of the objects directly below `url`."""
    with _errors(url):
        from obstore import list_with_delimiter

        prefix = f"{_key(url)}/".lstrip("/")
        found = list_with_delimiter(_client_of(url), prefix or None)
        return [meta["path"].removeprefix(prefix) for meta in found["objects"]]


def links(urls: Sequence[str], seconds: float | None) -> list[str]:
    """Web addresses of objects of one bucket, with signatures valid for `seconds`, or without any."""
    scheme, account = urls[0].partition("://")[0], os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if seconds is None and scheme == "gs":  # a machine's identity may not sign
        return [f"https://storage.googleapis.com/{quote(url.removeprefix('gs://'))}" for url in urls]
    if seconds is None and scheme == "az" and account is not None:
        return [f"https://{account}.blob.core.windows.net/{quote(url.removeprefix('az://'))}" for url in urls]
    with _errors(urls[0]):
        from obstore import sign

        client, keys = _client_of(urls[0]), [_key(url) for url in urls]
        signed = sign(client, "GET", keys, timedelta(seconds=seconds or 1.0))
        return [one if seconds else one.partition("?")[0] for one in signed]


def need_library() -> None:
    """Check that object stores can be used.

    Raises:
        UsageError: the library for them is missing.
    """
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "audio in an object store needs the objects extra", this_installation().install("objects")
        ) from error


def _key(url: str) -> str:
    return url.partition("://")[2].partition("/")[2]


def _client_of(url: str, seconds: float = REQUEST_SECONDS, most: int = relay.MAX_ANSWER_BYTES) -> Client:
    """The client for the bucket of a URL. Its answers have at most `most` bytes.

    Raises:
        OSError: its settings in the environment are incomplete or wrong.
    """
    from obstore.exceptions import BaseError

    scheme, _, rest = url.partition("://")
    if scheme not in _PREFIXES:
        raise OSError(errno.EINVAL, "it is not in an object store", url)
    permits_http = os.environ.get(f"{_PREFIXES[scheme]}_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    if scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
        permits_http |= urlsplit(endpoint).hostname in _LOOPBACK
        if not permits_http:
            why = "AWS_ENDPOINT_URL is plain HTTP, which AWS_ALLOW_HTTP=true permits"
            raise PermissionError(errno.EACCES, why, url)
    try:
        proxy = relay.proxy_for(_PREFIXES[scheme], most)
        return _client(scheme, rest.partition("/")[0], seconds, permits_http, proxy, _environment(scheme))
    except BaseError as error:
        raise OSError(errno.EINVAL, _why(error), url) from error


def _environment(scheme: str) -> tuple[tuple[str, str], ...]:
    """The variables for a kind of store: a client keeps those that it was made with."""
    return tuple(item for item in sorted(os.environ.items()) if item[0].startswith(_PREFIXES[scheme]))


@cache
def _client(
    scheme: str,
    bucket: str,
    seconds: float,
    permits_http: bool,
    proxy: str | None,
    environment: tuple[tuple[str, str], ...],  # noqa: ARG001 - read by the library
) -> Client:
    """A client with the credentials in the environment, whose requests are bounded by `seconds`."""
    from obstore.store import AzureStore, GCSStore, S3Store

    options: ClientConfig = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "allow_http": permits_http,
    }
    if proxy is not None:
        options["proxy_url"] = proxy
    retries: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    if scheme == "gs":
        return GCSStore(bucket, client_options=options, retry_config=retries)
    if scheme == "az":
        return AzureStore(bucket, client_options=options, retry_config=retries)
    # With a checksum, the server refuses an upload that was damaged on its way.
    checksum: Any = os.environ.get("AWS_CHECKSUM_ALGORITHM", "SHA256")
    return S3Store(bucket, checksum_algorithm=checksum, client_options=options, retry_config=retries)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn the library's errors into OSErrors."""
    need_library()
    from obstore import exceptions

    cuts = relay.cuts()
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object, or no such bucket", url) from error
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise FileExistsError(errno.EEXIST, "there is an object of this name", url) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _why(error), url) from error
    except exceptions.BaseError as error:
        if relay.cuts() > cuts:
            raise OutageError(errno.EIO, "the store's answer is too long", url) from error
        if _METADATA_HOST in str(error):
            why = f"there are no credentials in the environment ({_PREFIXES[url.partition('://')[0]]}_…)"
            raise PermissionError(errno.EACCES, why, url) from error
        if _is_permanent(str(error)):
            raise OSError(errno.EINVAL, _why(error), url) from error
        raise OutageError(errno.EIO, _why(error), url) from error


def _is_permanent(text: str) -> bool:
    """Whether an error will come again: the store rejects the request, or is in another region."""
    status = _STATUS.search(text)
    return "configured region" in text or (status is not None and int(status[1]) in _REJECTIONS)


def _why(error: Exception) -> str:
    """The store's reason in one line. The library's text continues with a dump."""
    text = str(error)
    if (answer := _ANSWER.search(text)) is not None:
        return one_line(": ".join(filter(None, answer.groups())))
    return one_line(text.partition("\n")[0].rpartition(" - ")[2]) or type(error).__name__
