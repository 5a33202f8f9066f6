"""Blocking calls made together share a thread, and each caller gets its own outcome."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel

from batcher.audio.io_threads import Disk


async def test_concurrent_calls_run_in_order_in_one_thread() -> None:
    """One that fails does not affect the others."""
    disk, done = Disk(), list[tuple[int, int]]()
    outcomes: dict[int, object] = {}

    def work(number: int) -> int:
        done.append((number, threading.get_ident()))
        if number == 1:
            raise OSError("full")
        return number * 10

    async def ask(number: int) -> None:
        try:
            outcomes[number] = await disk.do(work, number)
        except OSError as error:
            outcomes[number] = str(error)

    await disk.do(work, 9)  # alone, at once; the next ones wait for each other
    async with anyio.create_task_group() as together:
        for number in range(3):
            together.start_soon(ask, number)
    assert outcomes == {0: 0, 1: "full", 2: 20}
    assert [number for number, _ in done] == [9, 0, 1, 2]
    assert len({thread for number, thread in done if number != 9}) == 1
    assert threading.get_ident() not in {thread for _, thread in done}


async def test_a_cancelled_call_is_finished() -> None:
    """Other calls may wait for the same thread."""
    disk, done = Disk(), list[int]()
    await disk.do(done.append, 0)

    async def ask(number: int) -> None:
        await disk.do(done.append, number)

    async with anyio.create_task_group() as together:
        together.start_soon(ask, 1)
        together.start_soon(ask, 2)
        await anyio.lowlevel.checkpoint()
        together.cancel_scope.cancel()
    assert done == [0, 1, 2]
