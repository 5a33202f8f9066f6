"""The states of an item, its key and its request."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest

from batcher.item import KEY_VERSION, TARGET, TRANSITIONS, Event, Inputs, State, canonical, sources

DESIGNED = """
pending    claim         submitting
pending    adopted       submitted
submitting accepted      submitted
submitting deferred      pending
submitting rejected      rejected
submitting lost          in_doubt
in_doubt   evidence      submitted
in_doubt   adopted       submitted
in_doubt   buy_again     pending
in_doubt   abandon       abandoned
submitted  rendered      rendered
submitted  remote_failed failed
submitted  unfunded      pending
submitted  gone          gone
rendered   saved         done
rendered   uncollectable gone
rejected   retry         pending
failed     retry         pending
gone       retry         pending
rejected   abandon       abandoned
failed     abandon       abandoned
gone       abandon       abandoned
abandoned  retry         pending
rejected   adopted       submitted
failed     adopted       submitted
gone       adopted       submitted
abandoned  adopted       submitted
done       retake        done
"""
MACHINE = {(state, event): target for state, event, target in map(str.split, DESIGNED.strip().splitlines())}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_each_pair_of_state_and_event_leads_where_the_design_says(state: State, event: Event) -> None:
    assert TRANSITIONS.get((state, event)) == MACHINE.get((state.value, event.value))


def test_the_table_of_transitions_matches_the_design() -> None:
    """It names every state and event, and no other transition."""
    assert {state for state, _ in MACHINE} | {*MACHINE.values()} == {*map(str, State)}
    assert {event for _, event in MACHINE} == {*map(str, Event)}
    assert len(TRANSITIONS) == len(MACHINE)


@pytest.mark.parametrize("event", list(Event))
def test_an_event_leads_to_one_state(event: Event) -> None:
    """`sources` names exactly the states where it may occur."""
    targets = {target for (_, when), target in TRANSITIONS.items() if when is event}
    assert targets == {TARGET[event]}
    assert set(sources(event)) == {state for state in State if (state, event) in TRANSITIONS}


def test_no_event_leaves_done() -> None:
    """Audio on disk stays bought; another take is another item."""
    assert {event for event in Event if State.DONE in sources(event)} == {Event.RETAKE}
    assert TARGET[Event.RETAKE] is State.DONE


def test_of_all_polls_only_unfunded_leads_back_to_pending() -> None:
    """No other event of a poll or download may lead to another create."""
    asked = (Event.RENDERED, Event.REMOTE_FAILED, Event.UNFUNDED, Event.GONE, Event.SAVED, Event.UNCOLLECTABLE)
    assert [event for event in asked if TARGET[event] is State.PENDING] == [Event.UNFUNDED]


PLAIN = Inputs(text="Hello", voice="anna")
GOLDEN: list[tuple[Inputs, str]] = [
    (PLAIN, "bdd09c08d6c3c543989f24473c36d7ab91ff0a7e9e06d83383d3e74c5c360dbe"),
    (Inputs(text="Hello", voice="anna", take=2), "803e464a434e6b2226277cd242a6d0447140b7903ad81d3c27ebf69cac1fd4f8"),
    (
        Inputs(text='Grüße, 世界! \U0001f399\n"quoted" \\', voice="zoë", model="fishaudio-s1", format="wav"),
        "cb38d15ea37d82ec6c17c30518742e4f2d9e4a6618373971bb6a243c08827817",
    ),
    (
        Inputs(text="Hello", voice="anna", params={"speed": 1, "emotion": "calm"}),
        "77a689d15761f49c766ca60c0c048ea0765642ac0889049c25ac9baf5961e467",
    ),
    (
        Inputs(text="Hello", voice="anna", params={"speed": 1.5}),
        "285f54c8266a0c4d4980af1ec5df514fa9a2b6a34d92b29019b25ff60276c789",
    ),
    (
        Inputs(text="Hello", voice="anna", params={"x": {"b": [1, 2.0, None, True], "a": "ä"}}),
        "1237571e0743e1e8a892b569c520c9e4a75876fbe68bfd808097e02ec104ff73",
    ),
]


@pytest.mark.parametrize(("inputs", "key"), GOLDEN)
def test_known_keys_never_change(inputs: Inputs, key: str) -> None:
    """Existing ledgers hold them."""
    assert inputs.key() == key


@pytest.mark.parametrize("plane", range(17))
def test_the_key_of_plain_inputs_is_that_of_their_canonical_json(plane: int) -> None:
    """For each character that a text can have, although another encoder writes it."""
    codes = range(plane << 16, (plane + 1) << 16)
    inputs = Inputs(text="".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000), voice='a"\\b', take=3)
    written = canonical({"v": KEY_VERSION, "take": 3, "body": inputs.body()})
    assert inputs.key() == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"speed": 1, "emotion": "calm"}, {"emotion": "calm", "speed": 1}),
        ({"speed": 1}, {"speed": 1.0}),
        ({"x": [{"y": -2}]}, {"x": [{"y": -2.0}]}),
        ({"speed": 0}, {"speed": -0.0}),
    ],
)
def test_spellings_of_one_request_have_one_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The order of parameters and the spelling of a whole number do not matter."""
    assert Inputs(text="a", voice="v", params=one).key() == Inputs(text="a", voice="v", params=other).key()
    assert Inputs(text="a", voice="v", params=one).body() == Inputs(text="a", voice="v", params=other).body()


def test_each_input_and_the_take_change_the_key() -> None:
    others = [
        Inputs(text="Hello ", voice="anna"),
        Inputs(text="Hello", voice="Anna"),
        Inputs(text="Hello", voice="anna", model="fishaudio-s1"),
        Inputs(text="Hello", voice="anna", format="wav"),
        Inputs(text="Hello", voice="anna", params={"speed": 2}),
        Inputs(text="Hello", voice="anna", params={"speed": "2"}),
        Inputs(text="Hello", voice="anna", params={"speed": True}),
        Inputs(text="Hello", voice="anna", take=2),
        Inputs(text="He\u0301llo", voice="anna"),
        Inputs(text="H\u00e9llo", voice="anna"),
    ]
    assert len({inputs.key() for inputs in [PLAIN, *others]}) == 1 + len(others)


def test_the_take_is_never_sent() -> None:
    assert Inputs(text="a", voice="v", take=2).body() == Inputs(text="a", voice="v").body()


def test_the_request_uses_the_apis_own_field_names() -> None:
    """No legacy aliases, and no model unless one was chosen."""
    full = Inputs(text="a", voice="v", model="m", format="wav", params={"speed": 2.0, "language": "de"})
    expected = {"text": "a", "voiceId": "v", "engineModelId": "m", "format": "wav", "speed": 2, "language": "de"}
    assert full.body() == expected
    assert type(full.body()["speed"]) is int
    assert Inputs(text="a", voice="v").body() == {"text": "a", "voiceId": "v", "format": "mp3"}
    assert not {"reference_id", "modelId"} & full.body().keys()


def test_canonical_json_is_sorted_compact_utf_8() -> None:
    """At every depth."""
    value = {"b": [1, {"d": "ü", "c": None}], "a": 1.5}
    assert canonical(value) == '{"a":1.5,"b":[1,{"c":null,"d":"ü"}]}'.encode()
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_value_outside_json_has_no_key(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Inputs(text="a", voice="v", params={"speed": number}).key()


def test_the_repr_of_inputs_hides_the_text() -> None:
    """It cannot reach a log that way."""
    assert "my words" not in repr(Inputs(text="my words", voice="v"))


def test_an_item_that_is_done_stays_done() -> None:
    """Claims rely on it: they pass rows that have their audio without looking at their items."""
    assert {target for (source, _), target in TRANSITIONS.items() if source is State.DONE} <= {State.DONE}
