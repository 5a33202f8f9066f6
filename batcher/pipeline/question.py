"""Questions that a person answers before anything is bought."""

from __future__ import annotations

from batcher.pipeline.context import Confirm, RunContext


async def ask(ctx: RunContext, confirm: Confirm, question: str) -> bool:
    """Whether the answer is yes. A signal is an answer, too: it cancels the run."""
    if ctx.stop.creating:
        return False
    answer = False
    ctx.stop.asking = True
    with ctx.stop.scope("creating"):
        answer = await confirm(question)
    ctx.stop.asking = False
    return answer
