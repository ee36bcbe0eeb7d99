"""Hints of two histories, as a primary that was replaced while it stood still sends them, are told apart."""

from app.streams.heard_hints import REMEMBERED, HeardHints


def heard(*hints: tuple[int, bytes]) -> HeardHints:
    made = HeardHints()
    for first, payload in hints:
        made.contradict(first, payload)
    return made


def test_a_hint_that_comes_again_contradicts_nothing_and_another_one_of_the_same_entry_does() -> None:
    hints = heard((1, b"a"), (2, b"b"))
    assert not hints.contradict(2, b"b")
    assert not hints.doubted
    assert hints.contradict(2, b"another")
    assert hints.doubted == {2}


def test_what_the_store_has_is_no_longer_in_doubt_and_what_it_lost_may_be_another_entry() -> None:
    hints = heard((1, b"a"), (2, b"b"), (3, b"c"), (2, b"another"))
    hints.drop(3)
    hints.agree(1)
    assert not hints.doubted
    assert not hints.contradict(3, b"new")
    assert hints.contradict(1, b"new")


def test_what_is_heard_while_the_store_is_read_is_still_known_afterwards() -> None:
    hints = heard((1, b"a"))
    hints.drop(1)
    hints.contradict(2, b"of the one")
    hints.agree(1)
    assert hints.contradict(2, b"of the other")


def test_hints_that_were_dropped_are_forgotten() -> None:
    hints = heard((1, b"a"), (2, b"b"))
    hints.drop(1)
    assert not hints.contradict(2, b"new")


def test_only_the_newest_are_remembered() -> None:
    hints = heard(*((seq, b"x") for seq in range(REMEMBERED + 1)))
    assert not hints.contradict(0, b"another")
    assert hints.contradict(REMEMBERED, b"another")
