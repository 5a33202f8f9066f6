"""Reporting a run to other systems: pings to a monitor and a metrics file. Their errors never fail the run."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from batcher.reports.run_report import RunReport

SECRET_VARIABLE: Final = "BATCHER_NOTIFY_SECRET"  # noqa: S105 - a name
"""Environment variable with the key of the signature of notices; no file may hold it."""
PING_SECONDS: Final = 5.0
"""Total time for a ping in seconds: a monitor that is down must not delay a run."""


def report_start(params: dict[str, Any], say: Callable[[str], None]) -> None:
    """Ping the monitor at the start of a run."""
    _ping(params, "start", "", say)


def report_end(params: dict[str, Any], report: RunReport, say: Callable[[str], None]) -> None:
    """Ping the monitor and write the metrics at the end of a run.

    A run that found the ledger locked has not failed and has nothing to report about its batches: it only logs.
    """
    from batcher.clock import Clock
    from batcher.reports import metrics

    locked = report.exit_code == 7
    _ping(params, "log" if locked else str(report.exit_code), _summary(report), say)
    if params["metrics"] is not None and not locked:
        try:
            metrics.write(params["metrics"], metrics.render(report, at=Clock().now()))
        except OSError as error:
            say(f"cannot write metrics to {params['metrics']}: {error.strerror}")


def failure_report(error: BaseException) -> RunReport:
    """The report of a run that `error` ended before it made its own."""
    from batcher.cli.app import explain
    from batcher.reports.run_report import OUTCOMES, RunReport

    code, message, hint = explain(error)
    return RunReport(exit_code=code, outcome=OUTCOMES[code], message=message, hint=hint or None)


def _ping(params: dict[str, Any], event: str, body: str, say: Callable[[str], None]) -> None:
    if params["ping"] is None:
        return
    if (why := ping(params["ping"], event, body)) is not None:
        say(f"the {event} ping failed: {why}")


def _summary(report: RunReport) -> str:
    from batcher.formatting import amount

    lines = [f"exit {report.exit_code} ({report.outcome}): {report.message}"]
    if report.batches:
        lines.append(f"batches: {', '.join(report.batches)}; ledger: {report.ledger}")
    lines += [f"{state}: {number}" for state, number in report.states.items() if number]
    lines.append(f"created {report.created}, collected {report.collected} in {report.elapsed_seconds:.1f} s")
    lines += [f"credits {name}: {amount(value)}" for name, value in asdict(report.credits).items() if value is not None]
    return "\n".join(lines) + "\n"


def ping(url: str, event: str, body: str = "") -> str | None:
    """POST `body` once to `url`, with `event` (`start`, `log` or an exit code) appended to its path; sends no token.

    Returns None, or why it failed. The reason never contains the URL, which is a secret.
    """
    import anyio

    return anyio.run(_post, url, event, body.encode(), {"Content-Type": "text/plain; charset=utf-8"})


async def post_notice(url: str, body: bytes) -> str | None:
    """POST a notice, signed if there is a secret. Returns None, or why it was not received, without the URL."""
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get(SECRET_VARIABLE):
        headers["X-Batcher-Signature"] = f"sha256={hmac.new(secret.encode(), body, 'sha256').hexdigest()}"
    return await _post(url, "", body, headers)


async def _post(url: str, event: str, body: bytes, headers: dict[str, str]) -> str | None:
    import anyio
    import httpx

    from batcher.errors import UsageError
    from batcher.formatting import plain_error
    from batcher.provider.connections import USER_AGENT, trusting
    from batcher.provider.endpoint import is_loopback

    try:
        target = httpx.URL(url)
        if event:
            target = target.copy_with(path=f"{target.path.rstrip('/')}/{event}")
        verify = trusting() if target.scheme == "https" else False
        with anyio.fail_after(PING_SECONDS):
            async with (
                httpx.AsyncClient(
                    verify=verify,
                    timeout=PING_SECONDS,
                    headers={"User-Agent": USER_AGENT} | headers,
                    trust_env=not is_loopback(target.host),
                ) as client,
                # The body of the answer is not read: it may be of any size.
                client.stream("POST", target, content=body) as answer,
            ):
                return None if answer.is_success else f"HTTP {answer.status_code}"
    except UsageError as error:
        return error.message
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        return plain_error(type(error).__name__)
