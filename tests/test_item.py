"""The item's machine, its key and its request."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from batcher.item import TARGET, TRANSITIONS, Event, Inputs, State, canonical, sources

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
abandoned  retry         pending
rejected   adopted       submitted
failed     adopted       submitted
gone       adopted       submitted
abandoned  adopted       submitted
done       retake        done
"""
MACHINE = {(state, event): target for state, event, target in map(str.split, DESIGNED.strip().splitlines())}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_and_event(state: State, event: Event) -> None:
    """Each pair of a state and an event leads where the design says, or nowhere."""
    assert TRANSITIONS.get((state, event)) == MACHINE.get((state.value, event.value))


def test_the_machine_is_whole() -> None:
    """The design names every state and every event, and the table has no other step."""
    assert {state for state, _ in MACHINE} | {*MACHINE.values()} == {*map(str, State)}
    assert {event for _, event in MACHINE} == {*map(str, Event)}
    assert len(TRANSITIONS) == len(MACHINE)


@pytest.mark.parametrize("event", list(Event))
def test_an_event_has_one_target(event: Event) -> None:
    """An event leads to the same state wherever it starts, and `sources` names exactly where it may."""
    targets = {target for (_, when), target in TRANSITIONS.items() if when is event}
    assert targets == {TARGET[event]}
    assert set(sources(event)) == {state for state in State if (state, event) in TRANSITIONS}


def test_done_is_left_by_nothing() -> None:
    """What is on disk stays bought: no event leads out of done, another take is another item."""
    assert {event for event in Event if State.DONE in sources(event)} == {Event.RETAKE}
    assert TARGET[Event.RETAKE] is State.DONE


def test_a_question_never_buys() -> None:
    """Of the events that a poll or a download can cause only `unfunded` leads back to where a create may leave."""
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
def test_golden_keys(inputs: Inputs, key: str) -> None:
    """Keys that ledgers in the field hold never change."""
    assert inputs.key() == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"speed": 1, "emotion": "calm"}, {"emotion": "calm", "speed": 1}),
        ({"speed": 1}, {"speed": 1.0}),
        ({"x": [{"y": -2}]}, {"x": [{"y": -2.0}]}),
        ({"speed": 0}, {"speed": -0.0}),
    ],
)
def test_same_request_same_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Neither the order of the parameters nor the spelling of a whole number makes another item."""
    assert Inputs(text="a", voice="v", params=one).key() == Inputs(text="a", voice="v", params=other).key()
    assert Inputs(text="a", voice="v", params=one).body() == Inputs(text="a", voice="v", params=other).body()


def test_whatever_changes_the_audio_changes_the_key() -> None:
    """Each input by itself, and the take, makes another item."""
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


def test_the_take_is_ours_alone() -> None:
    """Takes tell items apart and are never sent."""
    assert Inputs(text="a", voice="v", take=2).body() == Inputs(text="a", voice="v").body()


def test_body() -> None:
    """The request names the API's own fields, never their legacy aliases, and no model where none was chosen."""
    full = Inputs(text="a", voice="v", model="m", format="wav", params={"speed": 2.0, "language": "de"})
    expected = {"text": "a", "voiceId": "v", "engineModelId": "m", "format": "wav", "speed": 2, "language": "de"}
    assert full.body() == expected
    assert type(full.body()["speed"]) is int
    assert Inputs(text="a", voice="v").body() == {"text": "a", "voiceId": "v", "format": "mp3"}
    assert not {"reference_id", "modelId"} & full.body().keys()


def test_canonical_json() -> None:
    """The hashed spelling is sorted at every depth, without white space, in plain UTF-8."""
    value = {"b": [1, {"d": "ü", "c": None}], "a": 1.5}
    assert canonical(value) == '{"a":1.5,"b":[1,{"c":null,"d":"ü"}]}'.encode()
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_key_without_a_number(number: float) -> None:
    """What JSON cannot say is refused rather than hashed."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        Inputs(text="a", voice="v", params={"speed": number}).key()


def test_the_text_stays_out_of_a_repr() -> None:
    """An item's text does not reach logs through its inputs' repr."""
    assert "my words" not in repr(Inputs(text="my words", voice="v"))
