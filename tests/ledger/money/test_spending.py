"""What creates have cost or may have cost, and a budget that holds over all runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.item import Event
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.money import spending
from batcher.ledger.money.prices import prices
from batcher.ledger.money.spending import Budget, Spending
from batcher.ledger.queries import selection
from tests.support.ledger_kit import AT, RUN, Book, book_in, ending, sheet

TEXTS = tuple(f"txt{number}" for number in range(10))
"""Texts of four bytes each."""


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as made:
        made.take_in(sheet(*TEXTS))
        yield made


def end(book: Book, task_id: str, credits_: float | None) -> None:
    """Create the next item, and end its task with this reported cost."""
    book.do(collection.record_rendered, ending(book.submitted(task_id), credits=credits_))


def lose(book: Book) -> str:
    """Create the next item without an answer; return its key."""
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.LOST))
    return claimed.key


def test_every_create_that_may_have_cost_something_counts(book: Book) -> None:
    """As reported, or else at the price of the others, one credit per byte. Others bought nothing."""
    end(book, "t0", 4.0)
    end(book, "t1", None)
    book.submitted("t2")
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t3", credits=6.0))
    book.claim()
    lose(book)
    book.do(decisions.abandon, lose(book), 1, at=AT, who="a person")
    for event, cost in ((Event.DEFERRED, None), (Event.REJECTED, 2.0)):
        (claimed,) = book.claim()
        book.record(book.answer(claimed, event, credits=cost))
    book.do(collection.record_unfunded, ending(book.submitted("t9"), error_code="insufficient_credits"))
    of_batch = Spending(spent=8.0, in_flight=16.0, in_doubt=4.0, settled=4.0)
    (batch,) = book.wanted
    assert book.do(spending.spending, batch_id=batch.batch_id) == book.do(spending.spending) == of_batch
    assert of_batch.total == 32.0
    book.execute("UPDATE halts SET closed_at = 1")
    other = book.take_in("id,text\nx,other\n", batch="other")
    book.cursor = (1, 0)
    assert len(book.claim()) == 1
    assert book.do(spending.spending, batch_id=batch.batch_id) == of_batch
    assert book.do(spending.spending, batch_id=other.batch_id).total == 5.0
    assert book.do(spending.spending).total == 37.0


def test_spending_at_an_unknown_price_is_unknown(book: Book) -> None:
    """But not the parts without such a create. A reported cost elsewhere does not make it known."""
    book.claim()
    book.take_in("id,text,model\nx,other,m1\n", batch="other")
    book.cursor = (1, 0)
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "t1", credits=2.0))
    found = book.do(spending.spending)
    assert (found, found.total) == (Spending(spent=0.0, in_flight=None, in_doubt=0.0, settled=0.0), None)


def test_spending_stays_unknown_whatever_other_models_cost(book: Book) -> None:
    """A part with one unknown cost is unknown, though a later one is reported."""
    book.take_in("id,text,model\ny,first,m1\nz,second,m2\n", batch="other")
    book.cursor = (0, 0)
    book.wanted = book.wanted[1:]
    for task_id, cost in (("t1", None), ("t2", 3.0)):
        (claimed,) = book.claim()
        book.record(book.accepted(claimed, task_id, credits=cost))
    found = book.do(spending.spending)
    assert (found.in_flight, found.total) == (None, None)


@pytest.mark.parametrize(
    ("ended", "in_flight", "spent", "total"),
    [((0.1, 0.2), 0.0, 0.3, 0.3), ((0.1,), 0.2, 0.1, 0.3), ((1.0000004, 0.0000004), 0.0, 1.000001, 1.000001)],
)
def test_costs_add_up_to_a_millionth(
    book: Book, ended: tuple[float, ...], in_flight: float, spent: float, total: float
) -> None:
    """Without the noise of binary fractions."""
    for number, cost in enumerate(ended):
        end(book, f"t{number}", cost)
    (claimed,) = book.claim()
    book.record(book.accepted(claimed, "open", credits=in_flight))
    found = book.do(spending.spending)
    assert (found.spent, found.in_flight, found.total) == (spent, in_flight, total)


def test_a_budget_that_is_too_small_for_one_item_is_not_blocked_for_a_smaller_one(book: Book) -> None:
    end(book, "t0", 4.0)
    (batch,) = book.wanted
    budget = Budget(10.0, "run-1")
    assert not book.do(budget.affords, batch.batch_id, None, 8)
    assert list(budget.blocked) == [batch.batch_id]
    assert book.do(budget.affords, batch.batch_id, None, 4)
    assert budget.blocked == {}


def test_the_first_item_of_a_batch_may_take_its_whole_budget(book: Book) -> None:
    """Its price is known from another batch."""
    end(book, "t0", 4.0)
    other = book.take_in("id,text\nx,abcd\n", batch="other")
    assert book.do(Budget(4.0, "run-1").affords, other.batch_id, None, 4)


def test_a_create_in_flight_has_not_ended(book: Book) -> None:
    """Nor has one that was in doubt and whose task was found."""
    (batch,) = book.wanted
    book.claim()
    key = lose(book)
    book.do(decisions.adopt, key, 1, account_id=book.account_id, task_id="t1", at=AT, who="a person")
    assert book.do(spending._ended_creates, batch.batch_id) == 0


def test_a_task_that_was_found_for_a_rejected_create_counts(book: Book) -> None:
    """Although the create had seemed to make none, and the API reports no cost: it is in flight, then spent."""
    end(book, "t0", 4.0)
    (claimed,) = book.claim()
    book.record(book.answer(claimed, Event.REJECTED, "invalid"))
    assert book.do(spending.spending).total == 4.0
    book.do(decisions.adopt, claimed.key, 1, account_id=book.account_id, task_id="t1", at=AT, who="a person")
    expected = claimed.chars * book.do(prices).by_model["*"][0]
    assert book.do(spending.spending).in_flight == pytest.approx(expected)
    (task,) = [one for one in book.open_tasks() if one.task_id == "t1"]
    book.do(collection.record_rendered, ending(task))
    assert book.do(spending.spending).in_flight == 0.0
    assert book.do(spending.spending).spent == pytest.approx(4.0 + expected)


def test_without_a_price_a_batch_waits_for_its_own_tasks_and_the_balance(book: Book) -> None:
    """Not for those of another batch."""
    other = book.take_in("id,text\ny,other\n", batch="other")
    batch, _ = book.wanted
    task = book.submitted("t1")
    budget = Budget(100.0, "run-1")
    assert not book.do(budget.affords, batch.batch_id, None, 4)
    assert book.do(budget.affords, other.batch_id, None, 5)
    book.do(collection.record_failed, ending(task))
    assert not book.do(budget.affords, batch.batch_id, None, 4)
    budget.unpriced = False  # the balance was read
    assert book.do(budget.affords, batch.batch_id, None, 4)


def test_a_create_after_one_that_was_not_funded_counts(book: Book) -> None:
    end(book, "t0", 4.0)
    book.do(collection.record_unfunded, ending(book.submitted("t1"), error_code="insufficient_credits"))
    assert book.do(spending.spending).in_flight == 0.0
    book.execute("UPDATE halts SET closed_at = 1")
    book.execute("UPDATE items SET recheck_task_id = NULL, recheck_run_id = NULL")
    book.cursor = (0, 0)
    (claimed,) = book.claim()
    assert claimed.attempt == 2
    book.record(book.accepted(claimed, "t2"))
    assert book.do(spending.spending).in_flight == 4.0


def test_an_item_of_several_batches_is_to_be_bought_for_the_first(book: Book) -> None:
    end(book, "t0", 4.0)
    book.take_in("id,text\ny,other\nx,txt1\n", batch="other")
    sizes = book.do(lambda conn: list(spending.sizes_to_buy(conn, book.wanted)))
    assert sizes == [(None, 4)] * 9 + [(None, 5)]


def test_an_item_of_several_rows_is_to_be_bought_for_the_first(book: Book) -> None:
    batch = book.take_in("id,text\na,aa\nb,bbb\nc,aa\n", batch="twice", filename="twice/{id}")
    assert book.do(lambda conn: list(spending.sizes_to_buy(conn, [batch]))) == [(None, 2), (None, 3)]


def test_a_create_in_doubt_that_was_bought_again_counts_twice(book: Book) -> None:
    """The item may have been bought by both; only the latest is still in doubt."""
    end(book, "t0", 4.0)
    key = lose(book)
    book.do(decisions.buy_again, key, 1, at=AT, who="a person")
    book.cursor = (0, 0)
    assert lose(book) == key
    assert book.do(spending.spending) == Spending(spent=4.0, in_flight=0.0, in_doubt=4.0, settled=4.0)


def claims_within(book: Book, budget: Budget) -> int:
    """Claim from the first row on until the budget permits none."""
    book.cursor = (0, 0)
    number = 0
    while book.claim(5, budget=budget):
        number += 1
    return number


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("limit", [11.9, 12.0])
def test_a_budget_is_spent_to_its_end_and_not_beyond(book: Book, limit: float, restarted: bool) -> None:
    """Creates in flight or in doubt count, in later runs too. It has room again once tasks cost less than estimated."""
    end(book, "t0", 4.0)
    lose(book)
    budget = Budget(limit, "run-1")
    assert claims_within(book, budget) == int(limit == 12.0)
    if restarted:
        budget = Budget(limit, "run-1")
    assert claims_within(book, budget) == 0
    spent = f"about {12 if limit == 12.0 else 8} spent, including in flight and in doubt"
    (why,) = budget.blocked.values()
    assert why == f"--max-credits {limit:g} reached: {spent}, and the next item needs about 4"
    book.cursor = (0, 0)
    end(book, "t1", 0.1)
    assert len(book.claim(5, budget=budget)) == 1
    assert budget.blocked == {}


def test_each_batch_has_its_own_budget(book: Book) -> None:
    end(book, "t0", 4.0)
    book.take_in("id,text\nx,aaaa\ny,bbbb\nz,cccc\n", batch="other")
    budget = Budget(8.0, "run-1")
    assert claims_within(book, budget) == 1 + 2
    assert len(budget.blocked) == 2


def test_a_budget_is_recounted_while_creates_cost_more_than_estimated(book: Book) -> None:
    """At most the last one exceeds it."""
    end(book, "t0", 1.0)
    budget = Budget(40.0, "run-1")
    number = 0
    book.cursor = (0, 0)
    while claimed := book.claim(5, budget=budget):
        number += 1
        book.record(book.accepted(claimed[0], f"u{number}", credits=10.0))
    assert number == 4
    assert book.do(spending.spending).total == 41.0


def test_a_budget_that_is_half_spent_is_recounted_at_once(book: Book) -> None:
    """Although many creates have shown their price: four more would be created before the next recount."""
    book.take_in("id,text\n" + "".join(f"r{n},tx{n:02}\n" for n in range(40)))
    book.cursor = (0, 0)
    for number in range(32):
        end(book, f"t{number}", 1.0)
    budget = Budget(36.0, "run-1")
    number = 0
    while claimed := book.claim(5, budget=budget):
        number += 1
        book.record(book.accepted(claimed[0], f"u{number}", credits=10.0))
    assert number == 2


@pytest.mark.parametrize(("left", "created"), [(19.5, 2), (4.0, 2), (3.0, 1)], ids=["an eighth", "half", "over half"])
def test_a_budget_is_recounted_after_an_eighth_of_the_batchs_creates_or_half_of_the_rest(
    book: Book, left: float, created: int
) -> None:
    """After two of sixteen, although more would fit at the known price. Creates of another batch do not count."""
    other = book.take_in("id,text\n" + "".join(f"o{n},ot{n:02}\n" for n in range(8)), batch="other", filename="o/{id}")
    mine = book.take_in("id,text\n" + "".join(f"r{n},tx{n:02}\n" for n in range(24)))
    for batch, number in ((other, 8), (mine, 16)):
        book.wanted, book.cursor = [batch], (0, 0)
        for n in range(number):
            end(book, f"{batch.name}{n}", 1.0)
    budget = Budget(16.0 + left, "run-1")
    number = 0
    while claimed := book.claim(5, budget=budget):
        number += 1
        book.record(book.accepted(claimed[0], f"u{number}", credits=10.0))
    assert number == created


def test_without_a_price_creates_go_one_at_a_time_and_stop_after_five(book: Book) -> None:
    """The balance is read after each, which may show one."""
    (batch,) = book.wanted
    budget = Budget(100.0, "run-1")
    for number in range(5):
        book.cursor = (0, 0)
        (claimed,) = book.claim(5, budget=budget)
        assert budget.unpriced
        assert budget.blocked == {}
        assert claims_within(book, budget) == 0
        assert "no price is known" in budget.blocked[batch.batch_id]
        book.record(book.accepted(claimed, f"t{number}"))
        budget.unpriced = False
        assert claims_within(book, budget) == 0  # its task is open
        (task,) = book.open_tasks()
        book.do(collection.record_failed, ending(task))
    assert claims_within(book, budget) == 0
    assert "after 5 creates" in budget.blocked[batch.batch_id]
    book.cursor = (0, 0)
    end(book, "priced", 4.0)
    assert claims_within(book, budget) == 4


@pytest.mark.parametrize(
    ("event", "cause", "number"),
    [(Event.LOST, "unclear", 1), (Event.LOST, "restored", 0), (Event.DEFERRED, "throttled", 0)],
)
def test_lost_creates_count_as_ended_without_a_price(book: Book, event: Event, cause: str, number: int) -> None:
    """Not those of a restored ledger, whose cost nobody knows, nor those that bought nothing."""
    (claimed,) = book.claim()
    book.record(book.answer(claimed, event, cause))
    (batch,) = book.wanted
    assert book.do(spending._ended_creates, batch.batch_id) == number
    assert book.do(spending._ended_creates, batch.batch_id + 1) == 0


def test_what_is_still_to_be_bought_comes_in_the_order_of_creates(book: Book) -> None:
    """Batch by batch, row by row; an item once; only pending ones of the wanted batches or chosen rows."""
    book.take_in("id,text,model\ny,other,m1\nx,txt9,\nz,,\n", batch="other", skip_empty=True)
    assert book.do(spending.next_need, book.wanted) is None
    assert book.do(spending.estimated_need, book.wanted) is None
    end(book, "t0", 8.0)
    sizes = [(None, 4)] * 9
    assert book.do(lambda conn: list(spending.sizes_to_buy(conn, book.wanted))) == [*sizes, ("m1", 5)]
    assert book.do(lambda conn: list(spending.sizes_to_buy(conn, book.wanted[1:]))) == [("m1", 5), (None, 4)]
    assert book.do(spending.next_need, book.wanted) == 8.0
    assert book.do(spending.estimated_need, book.wanted) == 9 * 8.0 + 10.0
    assert book.do(spending.estimated_need, book.wanted[1:]) == 18.0
    book.do(selection.choose_ids, book.wanted, ["y", "a"])
    assert book.do(lambda conn: list(spending.sizes_to_buy(conn, book.wanted, only_chosen=True))) == [("m1", 5)]
    assert book.do(spending.next_need, book.wanted, only_chosen=True) == 10.0
    book.do(selection.choose_ids, book.wanted, ["y", "b"])
    assert book.do(spending.next_need, book.wanted, only_chosen=True) == 8.0
    assert book.do(lambda conn: list(spending.sizes_to_buy(conn, book.wanted[1:], only_chosen=True))) == [("m1", 5)]


def test_the_next_item_is_needed_at_its_models_price(book: Book) -> None:
    end(book, "t0", 4.0)
    other = book.take_in("id,text,model\ny,other,m1\nz,third,m1\n", batch="other")
    book.wanted, book.cursor = [other], (0, 0)
    end(book, "t1", 50.0)
    assert book.do(spending.next_need, [other]) == 50.0


def test_nothing_is_needed_once_everything_is_created_although_no_price_is_known(book: Book) -> None:
    assert book.do(spending.estimated_need, book.wanted) is None
    for number in range(len(TEXTS)):
        book.submitted(f"t{number}")
    assert book.do(spending.estimated_need, book.wanted) == 0.0


def test_a_run_has_not_spent_what_a_task_costs_that_was_adopted_later(book: Book) -> None:
    """Whether it was this run's create is a person's word."""
    key = lose(book)
    book.do(decisions.adopt, key, 1, account_id=book.account_id, task_id="t1", at=AT, who="a person")
    (task,) = book.open_tasks()
    book.do(collection.record_rendered, ending(task, credits=5.0))
    assert book.do(spending.spent_in_run, RUN) == (None, True)


def test_a_run_knows_what_it_has_spent_once_every_task_reports_its_cost(book: Book) -> None:
    assert book.do(spending.spent_in_run, RUN) == (None, True)
    end(book, "t0", 4.0)
    end(book, "t1", 2.5)
    lose(book)
    assert book.do(spending.spent_in_run, RUN) == (6.5, True)
    end(book, "t2", None)
    assert book.do(spending.spent_in_run, RUN) == (6.5, False)
    assert book.do(spending.spent_in_run, "run-2") == (None, True)
