"""Markup and placeholders: what is found in texts, what is left alone, and what remains once it is removed."""

from __future__ import annotations

import random
import time

import pytest

from batcher.manifest.markup.markup import find, strip
from batcher.manifest.markup.nouns import NOUNS

MARKUP = [
    ("html", "Hello <b>there</b>, traveller.", "Hello there, traveller."),
    ("html", "the dog<br><i>m.</i>", "the dog m."),
    ("html", "Hel<b>lo</b> you", "Hello you"),
    ("html", "Ich hei&szlig;e Anna.&nbsp;", "Ich heiße Anna."),
    ("html", "&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
    ("html", "<p>Hello", "Hello"),
    ("html", "<!-- aside -->Hi<style>p x</style>", "Hi"),
    ("html", "<color=#ff0000>Run!</color>", "Run!"),
    ("html", '<a href="https://a.b/?x=1&y=2">here</a>', "here"),
    ("ssml", '<speak>Breathe <break time="300ms"/> out.</speak>', "Breathe out."),
    ("ssml", "<prosody rate='slow'>slow</prosody>", "slow"),
    ("ssml", '<sub alias="World Wide Web">WWW</sub> x', "WWW x"),
    ("ssml", "<speak><p>One.</p><p>Two.</p></speak>", "One. Two."),
    ("braces", "Wait...{w=0.5} did you hear that?{nw}", "Wait... did you hear that?"),
    ("braces", "Hello {name}, welcome!", "Hello, welcome!"),
    ("braces", "{name}, welcome!", "welcome!"),
    ("braces", "Score:{score}", "Score:"),
    ("braces", "${user} has {{count}} items", "has items"),
    ("braces", "{n, plural, one {# item} other {# items}} left", "left"),
    ("braces", "{\\an8}At the top", "At the top"),
    ("bbcode", "[center]Press [img]res://key.png[/img] now[/center]", "Press now"),
    ("bbcode", "[b]Bold[/b] and [url=https://a.b]here[/url]", "Bold and here"),
    ("bbcode", "[list][*]one[*]two[/list]", "one two"),
    ("sound", "My name is Anna. [sound:a1.mp3]", "My name is Anna."),
    ("placeholders", "Hi %s, you have %d mails", "Hi, you have mails"),
    ("placeholders", "%1 of %2 done", "of done"),
    ("placeholders", "Dear %NAME%, you owe %(amount)s and %1$s", "Dear, you owe and"),
    ("placeholders", "That makes %.2f.", "That makes."),
    ("placeholders", "Come here, <player_name>", "Come here,"),
    ("placeholders", "Hello [insert name] there", "Hello there"),
    ("escapes", "First.\\n\\nSecond.", "First. Second."),
    ("escapes", "Hello\\tWorld", "Hello World"),
    ("escapes", 'Say \\"hi\\" in a caf\\u00e9', 'Say "hi" in a café'),
    ("markdown", "**Never** do that", "Never do that"),
    ("markdown", "See [the manual](https://a.b/c) first", "See the manual first"),
    ("lost", "F\ufffdr die T\ufffd\ufffdr", "Fr die Tr"),
    ("todo", "TODO", ""),
    ("todo", "tbd", ""),
    ("todo", "TK", ""),
    ("todo", "(n/a)", ""),
    ("todo", "TODO: record again", ""),
    ("todo", "[TODO] say goodbye", ""),
    ("todo", "The price is TBD.", ""),
    ("todo", "Lorem ipsum dolor sit amet", ""),
]


@pytest.mark.parametrize(("kind", "text", "rest"), MARKUP)
def test_markup_is_found_and_removed(kind: str, text: str, rest: str) -> None:
    """Removing other types leaves it."""
    assert list(find(text)) == [kind]
    assert strip(text, [kind]) == rest
    assert find(rest) == {}
    assert strip(text, NOUNS.keys() - {kind}) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Note: bring water",
            "3 < 5",
            "5 > 3 and 3 < 5",
            "a <b and c> d",
            "a<b",
            "x <y> z",
            "I <3 you",
            "C++ <-> Java",
        ),
        *("Dr. Who: the film", "10:30", "It is 10:30: go", "the ratio 3:1", "Mr. Smith: the plumber", "Hi :-) ;-)"),
        *(":{ and :-} and {:", "{1, 2, 3}", "100%", "100% sure", "50% discount, 20% off", "100 % sicher", "100%safe"),
        *(
            "Y\u00fczde %5 ve %1 art\u0131\u015f",
            "%50 indirim",
            "https://a.b/c%20d?x=%s&lt=1",
            "www.a.b/%d",
            "AT&T",
            "R&D; more",
        ),
        *("C:\\new\\temp", "\\\\server\\name\\x", "\\o/ yay", "[laugh] Oh no", "[clears throat] Well", "(break) hello"),
        *("<#0.5#> ok", "Todo", "¡TODO!", "TODO EL MUNDO GRITA", "Add it to your todo list", "see [1] and [2]"),
        *("option [b] is right", "turn [right] here", "****", "f**k", "2**3", "It's 5*3*2", "*sighs* fine"),
        *(
            "<Hai>",
            "john@example.com",
            "Write to <john@example.com>",
            "<<bonjour>>",
            "rock & roll; ok",
            "# 1 in the charts",
        ),
        *("N/A is short for it", "~10% of 5%", "5%, 6% and 7%.", "He said: no", "Do not!!!", "What?!"),
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert find(text) == {}
    assert strip(text, NOUNS) == text


def test_a_draft_is_shown_by_its_mark_only() -> None:
    """Messages do not contain whole texts."""
    assert find("The code of the safe is TBD.") == {"todo": ["TBD"]}


def test_any_text_is_searched_in_proportion_to_its_length() -> None:
    """No combination of signs makes a pattern slow, and what remains has none of the removed types."""
    dice = random.Random(1)
    signs = [*"<>/={}[]()%\\&;:*\"' ", "b", "name", "TODO", "br", "&lt;", "</", "{a", "[img]", "http://", "%1"]
    for _ in range(300):
        text = "".join(dice.choices(signs, k=60))
        assert find(strip(text, NOUNS)) == {}
    began = time.process_time()
    for sign in signs:
        find(sign * 5000)
        find(f"<b{sign * 5000}")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "part",
    [
        *("[TODO", "<style>", "<script ", "<!DOCTYPE ", "<?xml ", "<!--", "<foo>", "</foo ", "[img]", "[b]", "[/bq]"),
        *("[a](", "[a](http://", "[a [b] ", "{a,", "%(a", "**a ", "&amp", "[audio:a."),
    ],
)
def test_marks_without_an_end_take_no_longer_the_more_there_are(part: str) -> None:
    """Each would otherwise be compared with the whole rest of the text: minutes for a megabyte."""
    text = f"{part * 40_000}>"
    begun = time.process_time()
    find(text)
    strip(text, set(NOUNS))
    assert time.process_time() - begun < 3


def test_a_long_name_that_looks_like_a_placeholder_takes_no_time() -> None:
    """Each further underscore would otherwise double it."""
    assert find(f"Press <a{'_a' * 60} now.") == {}
    assert find(f"Press <a{'_a' * 60}> now.") == {"placeholders": [f"<a{'_a' * 60}>"]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello (TBD) there", {"todo": ["TBD"]}),
        ("Hello ( TODO: write <this> there", {"todo": ["TODO"]}),
        ("Hello (TODO there", {}),
        ("a<!-- b --> c --> d", {"html": ["<!-- b -->"]}),
        ("--> a <!-- b", {}),
        ("<STYLE a>x</style >y</style>", {"html": ["<STYLE a>x</style >", "</style>"]}),
        ("[img]a[/IMG] b [img]c", {"bbcode": ["[img]a[/IMG]", "[img]"]}),
        ("[quest]a[/quest] [other]", {"bbcode": ["[quest]", "[/quest]"]}),
    ],
)
def test_what_is_enclosed_ends_at_the_next_end(text: str, found: dict[str, list[str]]) -> None:
    assert find(text) == found
