"""The ledger's tables. A test compares them word for word with those that the migrations build.

Times are UTC Unix seconds. Rules of the program that SQL can express are constraints here as well.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    text,
)

from batcher.item import Event, State
from batcher.ledger.storage.planner import IGNORED, LATER_TAKE, NOT_PENDING, OPEN_TASK, UNCLEAR, UNLINKED

REVISION: Final = "0011"
"""The latest migration, which results in these tables."""

metadata = MetaData()
INDEXES: Final[list[Index]] = []
"""Indexes in the order in which ledgers have them, new or migrated: between two that seem equally good, SQLite uses the
one created later. A table lists them in the order in which the migrations created them."""


@event.listens_for(Index, "after_parent_attach")
def _list_index(index: Index, table: Table) -> None:
    if table.metadata is metadata:
        INDEXES.append(index)


def _one_of(column: str, words: type[State] | type[Event] | tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(word)) for word in words)})"


_HAS_TASK: Final = _one_of("state", (State.SUBMITTED, State.RENDERED, State.DONE))

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
"""Facts about the ledger: its `world` (real or sandbox), its id, when it was created; and for each batch, as `reading`
and its id, the parse options of its last import."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("token_fingerprint", Text),
    # What all runs of the account share on a server, in seconds of the server's clock:
    Column("next_create_at", Float),  # when `--create-rate` permits the next create request
    Column("closed_until_at", Float),  # until when the API asked not to create
    Index("accounts_identity", "origin", "user_id", unique=True),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),  # of the file
    Column("rules", Text, nullable=False),  # digest of the rules that it was read with
    Column("out_dir", Text, nullable=False),  # relative to the ledger's folder, so that both can move together
    Column("imported_at", Float, nullable=False),
    Column("trusted", Text),  # fingerprint of the file; see `importer.find_unchanged`
)

items = Table(
    "items",
    metadata,
    Column("key", Text, primary_key=True),
    Column("key_version", Integer, nullable=False),
    Column("text_hash", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("voice", Text, nullable=False),
    Column("model", Text),
    Column("format", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("take", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),  # of the text in UTF-8, which the price depends on
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("account_id", Integer),
    Column("task_id", Text),
    Column("recheck_task_id", Text),  # task that failed for lack of credits; polled before a new create request
    Column("recheck_run_id", Text),  # run that polled that task and found it still failed
    Column("not_before_at", Float, nullable=False),  # next download of a rendered item; 0: none has failed
    Column("deferrals", Integer, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_request_id", Text),
    Column("error_http_status", Integer),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("run_id", Text),  # run that creates or collects it, or did last
    CheckConstraint(_one_of("state", State), name="items_state"),
    CheckConstraint(f"NOT ({_HAS_TASK}) OR task_id IS NOT NULL", name="items_task"),
    CheckConstraint("state <> 'submitting' OR attempt > 0", name="items_attempt"),
    CheckConstraint("take >= 1", name="items_take"),
    ForeignKeyConstraint(["account_id", "task_id"], ["tasks.account_id", "tasks.task_id"], name="items_own_task"),
    Index("items_state", "state"),
    Index("items_text", "text_hash", sqlite_where=NOT_PENDING.of_index),
    Index("items_task", "account_id", "task_id", unique=True, sqlite_where=text("task_id IS NOT NULL")),
    Index("items_recheck", "account_id", sqlite_where=text("recheck_task_id IS NOT NULL")),
)

REPEAT_MARK: Final = "\n"
"""Appended with the row's number to an id that another row has, when the row is rejected. No id contains it."""

rows = Table(
    "rows",
    metadata,
    Column("batch_id", Integer, ForeignKey("batches.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("line", Integer, nullable=False),
    Column("is_current", Integer, nullable=False),  # 1: the latest import has it; else 0
    Column("take", Integer, nullable=False),
    Column("item_key", Text, ForeignKey("items.key")),
    Column("skipped", Text),
    Column("reason", Text),
    Column("output", Text, nullable=False),
    Column("extra", Text, nullable=False),
    Column("linked_key", Text),  # item whose audio is at linked_output
    Column("linked_output", Text),
    Column("highest_take", Integer),  # that the row has ever used, with any inputs; NULL: only the first
    Column("linked_at", Float),
    CheckConstraint("(item_key IS NULL) = (skipped IS NOT NULL)", name="rows_item"),
    CheckConstraint("skipped IN ('invalid', 'empty')", name="rows_skipped"),
    Index("rows_order", "batch_id", "is_current", "number"),
    Index("rows_output", "output"),
    Index("rows_item", "item_key", "batch_id", "is_current"),
    Index("rows_unlinked", "batch_id", "number", sqlite_where=UNLINKED.of_index),
    Index("rows_takes", "batch_id", sqlite_where=LATER_TAKE.of_index),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("out_dir", Text, nullable=False),
    Column("account_id", Integer, ForeignKey("accounts.id")),
    Column("profile_start", Text),
    Column("profile_end", Text),
    Column("exit_code", Integer),
    Column("outcome", Text),
    Column("message", Text),
    Column("created", Integer),
    Column("collected", Integer),
    Column("shift_id", Text),  # first of the runs that work at the same time, on a server
    Column("is_creating", Integer),  # 1 while it shares the account's slots with other runs
    Column("claimed", Integer),  # creates that it has claimed, without those returned; on a server
    Index("runs_started", "started_at"),
    Index("runs_working", "account_id", sqlite_where=text("ended_at IS NULL")),
    Index("runs_shift", "shift_id"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("body", Text, nullable=False),  # JSON
    Column("run_id", Text),  # run that reports
)

attempts = Table(
    "attempts",
    metadata,
    Column("item_key", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False),
    Column("intended_at", Float, nullable=False),
    Column("answered_at", Float),
    Column("answer_no", Integer),  # order in which answers were recorded: clocks can be set back
    Column("outcome", Text),
    Column("cause", Text),
    Column("http_status", Integer),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("request_id", Text),
    Column("credits", Float),
    Column("raw", LargeBinary),
    Column("batch_id", Integer),  # batch that it was created for and whose budget pays
    CheckConstraint(_one_of("outcome", ("accepted", "deferred", "rejected", "lost")), name="attempts_outcome"),
    CheckConstraint("(answered_at IS NULL) = (outcome IS NULL)", name="attempts_answered"),
    Index("attempts_answers", "account_id", "answer_no"),
    Index("attempts_batch", "batch_id"),
    Index("attempts_run", "run_id"),
    Index("attempts_unclear", "batch_id", sqlite_where=UNCLEAR.of_index),
)

tasks = Table(
    "tasks",
    metadata,
    Column("account_id", Integer, ForeignKey("accounts.id"), primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("item_key", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("accepted_at", Float, nullable=False),
    Column("looked_at", Float),
    Column("looks", Integer, nullable=False),
    Column("ended_at", Float),
    Column("word", Text),
    Column("credits", Float),
    Column("missing_since_at", Float),  # first of the consecutive 404 answers
    Column("missing_looks", Integer, nullable=False),
    Column("unusable_since_at", Float),  # first of the polls without usable audio
    Column("unusable_looks", Integer, nullable=False),
    Column("raw", LargeBinary),
    Column("ignored", Text),  # parameters that the model charged for and ignored, separated by commas
    Column("overdue_at", Float),  # when it gave up its slot, after far too long without progress
    ForeignKeyConstraint(["item_key", "attempt"], ["attempts.item_key", "attempts.attempt"], name="tasks_own_attempt"),
    Index("tasks_item", "item_key"),
    Index("tasks_open", "item_key", sqlite_where=OPEN_TASK.of_index),
    Index("tasks_ignored", "item_key", sqlite_where=IGNORED.of_index),
)

files = Table(
    "files",
    metadata,
    Column("item_key", Text, ForeignKey("items.key"), primary_key=True),
    Column("out_dir", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("audio_seconds", Float),
    Column("recorded_at", Float, nullable=False),
    Column("saved_at", Float),
    CheckConstraint("bytes > 0", name="files_bytes"),
    Index("files_sha256", "sha256"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("item_key", Text, ForeignKey("items.key"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),  # after the event
    Column("at", Float, nullable=False),
    Column("run_id", Text),
    Column("detail", Text),
    CheckConstraint(_one_of("event", Event), name="events_event"),
    Index("events_item", "item_key"),
    Index("events_run", "run_id", "state"),
)

halts = Table(
    "halts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("since_at", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column(
        "from_task", Integer, nullable=False
    ),  # 1: a task failed for lack of credits, so only a rendered probe closes it
    Column("credits", Float),  # balance after the last create requests in flight had settled
    Column("quota", Float),
    Column("balance_at", Float),
    Column("probes", Integer, nullable=False),
    Column("probe_after_at", Float, nullable=False),
    Column("probe_run_id", Text),  # run that may send one create request although the halt is open
    Column("probe_key", Text),
    Column("closed_at", Float),
    CheckConstraint("kind IN ('credits', 'unstable')", name="halts_kind"),
    Index("halts_open", "account_id", "kind", unique=True, sqlite_where=text("closed_at IS NULL")),
)

balances = Table(
    "balances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False),
    Column("at", Float, nullable=False),
    Column("run_id", Text),
    Column("credits", Float),
    Column("quota", Float),
    Index("balances_at", "account_id", "at"),
)
"""Balances of every profile that was read: evidence for items in doubt."""

recalled = Table(
    "recalled",
    metadata,
    Column("batch", Text, primary_key=True),
    Column("row_id", Text, primary_key=True),
    Column("item_key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("task_id", Text),
    Column("take", Integer, nullable=False),
    Column("out_dir", Text, nullable=False),  # relative to the ledger's folder
    Column("output", Text),
    Column("sha256", Text),
    Column("bytes", Integer),
    Column("audio_seconds", Float),
    Column("recalled_at", Float, nullable=False),
    Index("recalled_item", "item_key"),
    Index("recalled_sha256", "sha256"),
)
"""Rows restored from results files whose items are bought or may be, until a run has applied them."""


lessons = Table(
    "lessons",
    metadata,
    Column("account_id", Integer, ForeignKey("accounts.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("learned_at", Float, nullable=False),
)
"""Values learned about an account's API: task durations and limits. Losing them only costs time."""
