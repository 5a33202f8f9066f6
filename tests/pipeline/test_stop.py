"""The latches of a run, and the requests from outside that set them."""

from __future__ import annotations

import anyio
import pytest

from batcher.pipeline.stop import CANCELLED, Reason, Stop, StopRequests


@pytest.mark.parametrize("when", ["before", "after"])
async def test_creating_stops_without_collecting(when: str) -> None:
    """Also for a stage that begins its wait after the stop: nobody waits for what will never be created."""
    stop = Stop()
    scopes = [stop.scope(what) for what in ("creating", "collecting")] if when == "before" else []
    stop.stop_creating(Reason.ASKED, "enough")
    scopes = scopes or [stop.scope(what) for what in ("creating", "collecting")]
    assert (stop.creating, stop.collecting) == (True, False)
    assert [scope.cancel_called for scope in scopes] == [True, False]
    stop.stop_all(Reason.TROUBLE, "gone")
    assert (stop.creating, stop.collecting) == (True, True)
    assert all(scope.cancel_called for scope in scopes)


def test_the_first_message_of_each_reason_is_kept() -> None:
    stop = Stop()
    for reason, message in ((Reason.ASKED, "a"), (Reason.TROUBLE, "b"), (Reason.TROUBLE, "c")):
        stop.stop_all(reason, message)
    assert stop.reasons == {Reason.ASKED: "a", Reason.TROUBLE: "b"}
    assert min(stop.reasons) is Reason.TROUBLE


def test_a_no_creates_nothing_and_collects() -> None:
    stop = Stop()
    stop.cancel()
    assert (stop.cancelled, stop.interrupted, stop.creating, stop.collecting) == (True, False, True, False)
    assert stop.reasons == {Reason.ASKED: CANCELLED}


def test_an_interruption_stops_everything() -> None:
    stop = Stop()
    stop.interrupt()
    assert (stop.cancelled, stop.interrupted, stop.creating, stop.collecting) == (False, True, True, True)
    assert stop.reasons == {Reason.ASKED: "interrupted"}


async def test_each_request_is_waited_for_by_its_number() -> None:
    """What may be requested only once is not counted twice: the second request drops the open tasks."""
    requests, reached = StopRequests(), []

    async def wait_for(number: int) -> None:
        await requests.reach(number)
        reached.append(number)

    async with anyio.create_task_group() as group:
        for number in (1, 2):
            group.start_soon(wait_for, number)
        await anyio.wait_all_tasks_blocked()
        assert (requests.any, reached) == (False, [])
        for _ in range(2):
            requests.request_once()
            await anyio.wait_all_tasks_blocked()
            assert (requests.any, reached) == (True, [1])
        requests.request()
    assert reached == [1, 2]
