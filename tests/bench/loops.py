"""What people write by hand: create, poll, download, with no ledger, no verification and no durability.

python -m tests.bench.loops httpx|heeding|aiohttp|dbos URL NUMBER CONCURRENCY FOLDER [POLL_SECONDS]

`dbos` is a durable-workflow engine, where it is installed: each item is a workflow whose steps are stored in SQLite.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.bench.made import line

POLL_SECONDS = 0.5


async def httpx_loop(
    url: str, number: int, concurrency: int, folder: Path, poll: float, *, heeding: bool = False
) -> None:
    """One client, a semaphore, and every call retried with random exponential waits.

    `heeding`: a call whose answer has a `Retry-After` is retried after that instead.
    """
    import httpx
    from tenacity import RetryCallState, retry, stop_after_attempt, wait_random_exponential

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=60, headers={"Authorization": "Bearer t"}) as client:
        jittered = wait_random_exponential(max=30)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.response.headers.get("Retry-After") if isinstance(error, httpx.HTTPStatusError) else None
            return float(asked) if heeding and asked is not None else jittered(state)

        @retry(wait=wait, stop=stop_after_attempt(100), reraise=True)
        async def call(method: str, address: str, **how: Any) -> httpx.Response:
            response = await client.request(method, address, **how)
            response.raise_for_status()
            return response

        async def one(index: int) -> None:
            made = await call("POST", f"{url}/speech/tts/jobs", json=_body(index))
            task = made.json()["task"]
            while task["status"] != "completed":
                await asyncio.sleep(poll)
                task = (await call("GET", f"{url}/speech/tts/jobs/{task['id']}")).json()["task"]
            audio = await call("GET", task["audioUrl"])
            (folder / f"{index}.mp3").write_bytes(audio.content)

        await _all(one, number, concurrency)


async def heeding_loop(url: str, number: int, concurrency: int, folder: Path, poll: float) -> None:
    """The same, obeying `Retry-After`, each call for itself."""
    await httpx_loop(url, number, concurrency, folder, poll, heeding=True)


async def aiohttp_loop(url: str, number: int, concurrency: int, folder: Path, poll: float) -> None:
    """The barest: one session, a semaphore, nothing else."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer t"}) as session:

        async def one(index: int) -> None:
            async with session.post(f"{url}/speech/tts/jobs", json=_body(index)) as made:
                task = (await made.json())["task"]
            while task["status"] != "completed":
                await asyncio.sleep(poll)
                async with session.get(f"{url}/speech/tts/jobs/{task['id']}") as read:
                    task = (await read.json())["task"]
            async with session.get(task["audioUrl"]) as audio:
                (folder / f"{index}.mp3").write_bytes(await audio.read())

        await _all(one, number, concurrency)


async def dbos_loop(url: str, number: int, concurrency: int, folder: Path, poll: float) -> None:
    """Workflows of three kinds of steps in a queue of the engine."""
    import httpx

    dbos: Any = importlib.import_module("dbos")
    dbos.DBOS(config={"name": "loops", "system_database_url": f"sqlite:///{folder / 'dbos.sqlite'}"})
    client = httpx.Client(timeout=60, headers={"Authorization": "Bearer t"})
    step = dbos.DBOS.step()
    create = step(lambda index: client.post(f"{url}/speech/tts/jobs", json=_body(index)).json()["task"])
    read = step(lambda task_id: client.get(f"{url}/speech/tts/jobs/{task_id}").json()["task"])
    download = step(lambda name, address: (folder / name).write_bytes(client.get(address).content))

    def one(index: int) -> None:
        task = create(index)
        while task["status"] != "completed":
            time.sleep(poll)
            task = read(task["id"])
        download(f"{index}.mp3", task["audioUrl"])

    workflow = dbos.DBOS.workflow()(one)
    queue = dbos.Queue("items", concurrency=concurrency, polling_interval_sec=0.05)
    dbos.DBOS.launch()
    started = [queue.enqueue(workflow, index) for index in range(number)]
    await asyncio.to_thread(lambda: [handle.get_result() for handle in started])
    dbos.DBOS.destroy()


async def _all(one: Callable[[int], Awaitable[None]], number: int, concurrency: int) -> None:
    places = asyncio.Semaphore(concurrency)

    async def placed(index: int) -> None:
        async with places:
            await one(index)

    await asyncio.gather(*(placed(index) for index in range(number)))


def _body(index: int) -> dict[str, str]:
    return {"text": line(index), "voiceId": "anna", "format": "mp3"}


if __name__ == "__main__":
    loop = {"httpx": httpx_loop, "heeding": heeding_loop, "aiohttp": aiohttp_loop, "dbos": dbos_loop}[sys.argv[1]]
    poll_seconds = float(sys.argv[6]) if len(sys.argv) > 6 else POLL_SECONDS
    asyncio.run(loop(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), poll_seconds))
