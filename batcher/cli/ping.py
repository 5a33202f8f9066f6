"""Tells a monitor that a run began or how it ended, after the conventions of healthchecks.io's ping API."""

from __future__ import annotations

from typing import Final

import anyio
import httpx

from batcher.errors import UsageError
from batcher.formatting import plainly
from batcher.provider.connections import USER_AGENT, trusting
from batcher.provider.endpoint import is_loopback

PING_SECONDS: Final = 5.0
"""What a ping may take in all: a monitor that is down must not hold up a run."""


def ping(url: str, event: str, body: str = "") -> str | None:
    """POST `body` to the check at `url`, with `event` (`start`, `log`, an exit status) as the last part of its path.

    Goes without the API's token, once. Returns None, or why it did not arrive; that holds no address, since whoever
    has it can ping.
    """
    return anyio.run(_ping, url, event, body)


async def _ping(url: str, event: str, body: str) -> str | None:
    try:
        base = httpx.URL(url)
        target = base.copy_with(path=f"{base.path.rstrip('/')}/{event}")
        verify = trusting() if target.scheme == "https" else False
        with anyio.fail_after(PING_SECONDS):
            async with httpx.AsyncClient(
                verify=verify,
                timeout=PING_SECONDS,
                headers={"User-Agent": USER_AGENT, "Content-Type": "text/plain; charset=utf-8"},
                trust_env=not is_loopback(target.host),
            ) as client:
                answer = await client.post(target, content=body.encode())
    except UsageError as error:
        return error.message
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        return plainly(type(error).__name__)
    return None if answer.is_success else f"HTTP {answer.status_code}"
