"""Signals that end a run: the first lets it drain, the second ends it at once."""

from __future__ import annotations

import signal
from typing import Final

import anyio
from anyio.abc import TaskStatus

from batcher.errors import StoppedError
from batcher.pipeline.stop import StopRequests

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalRequests(StopRequests):
    """Each signal requests that the run ends."""

    message = StoppedError().message
    way_out = " (press Ctrl-C again to end at once)"

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Receive signals until cancelled. From then on they are ignored: only the report remains to be printed."""
        # A closed terminal ends a run like any other signal, unless nohup has it ignored.
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*handled) as signals:
            task_status.started()
            try:
                async for _ in signals:
                    self.request()
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
