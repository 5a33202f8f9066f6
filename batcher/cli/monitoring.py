"""What a run tells those who watch it from elsewhere: a monitor that is pinged, a file of metrics.

Neither can make a run fail: what goes wrong with them is said, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from batcher.reports.run_report import RunReport

PING_SECONDS: Final = 5.0
"""What a ping may take in all: a monitor that is down must not hold up a run."""


def begun(params: dict[str, Any], say: Callable[[str], None]) -> None:
    """The run begins."""
    _ping(params, "start", "", say)


def ended(params: dict[str, Any], report: RunReport, say: Callable[[str], None]) -> None:
    """The run has ended. One that found the ledger held is no failure, and no news of the batch."""
    from batcher.clock import Clock
    from batcher.reports import metrics

    locked = report.exit_code == 7
    _ping(params, "log" if locked else str(report.exit_code), _summary(report), say)
    if params["metrics"] is not None and not locked:
        try:
            metrics.write(params["metrics"], metrics.render(report, at=Clock().now()))
        except OSError as error:
            say(f"the metrics were not written to {params['metrics']}: {error.strerror}")


def failed(error: BaseException) -> RunReport:
    """The report of a run that `error` ended before it could tell of itself."""
    from batcher.cli.app import verdict
    from batcher.reports.run_report import OUTCOMES, RunReport

    code, message, _hint = verdict(error)
    return RunReport(exit_code=code, outcome=OUTCOMES[code], message=message)


def _ping(params: dict[str, Any], event: str, body: str, say: Callable[[str], None]) -> None:
    if params["ping"] is None:
        return
    if (why := ping(params["ping"], event, body)) is not None:
        say(f"the ping ({event}) did not arrive: {why}")


def _summary(report: RunReport) -> str:
    from batcher.formatting import amount

    lines = [f"exit {report.exit_code} ({report.outcome}): {report.message}"]
    if report.batches:
        lines.append(f"batches: {', '.join(report.batches)}; ledger: {report.ledger}")
    lines += [f"{state}: {number}" for state, number in report.states.items() if number]
    lines.append(f"created {report.created}, collected {report.collected} in {report.elapsed_seconds:.1f} s")
    lines += [f"credits {name}: {amount(value)}" for name, value in report.credits.items() if value is not None]
    return "\n".join(lines) + "\n"


def ping(url: str, event: str, body: str = "") -> str | None:
    """POST `body` to the check at `url`, with `event` (`start`, `log`, an exit status) as the last part of its path.

    Goes without the API's token, once. Returns None, or why it did not arrive; that holds no address, since whoever
    has it can ping.
    """
    import anyio

    return anyio.run(_post, url, event, body)


async def _post(url: str, event: str, body: str) -> str | None:
    import anyio
    import httpx

    from batcher.errors import UsageError
    from batcher.formatting import plain_error
    from batcher.provider.connections import USER_AGENT, trusting
    from batcher.provider.endpoint import is_loopback

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
        return plain_error(type(error).__name__)
    return None if answer.is_success else f"HTTP {answer.status_code}"
