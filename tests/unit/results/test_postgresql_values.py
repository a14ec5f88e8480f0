"""Texts and notifications as PostgreSQL has them, without a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqpworker.results.postgresql_values import MAX_PAYLOAD, escaped, ids_in, payloads, stored_id, unescaped

ANY_TEXT = st.text(st.characters(codec=None, categories=None) | st.sampled_from('\\\0 "x\ud800'), max_size=30)


@given(ANY_TEXT)
def test_any_text_is_stored_as_ascii_without_nul_and_read_as_it_was(text: str) -> None:
    stored = escaped(text)
    assert stored.isascii()
    assert "\0" not in stored
    assert unescaped(stored) == text


@given(st.sets(ANY_TEXT | st.text("ab\\#", min_size=990, max_size=1010), max_size=5))
def test_different_ids_are_stored_as_different_ones_of_limited_length(ids: set[str]) -> None:
    stored = {stored_id(one) for one in ids}
    assert len(stored) == len(ids)
    assert all(len(one) <= 1000 for one in stored)


@given(ANY_TEXT, st.lists(ANY_TEXT | st.text("abc ", min_size=2000, max_size=3000), max_size=12))
def test_all_ids_are_notified_in_payloads_that_postgresql_accepts(namespace: str, ids: list[str]) -> None:
    made = payloads(namespace, ids)
    assert all(len(one) <= MAX_PAYLOAD and one.isascii() for one in made)
    found = [ids_in(one, namespace) for one in made]
    if None in found:
        assert len(made) == 1
        return
    assert [one for part in found for one in part or ()] == ids


@given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_a_notification_is_for_one_namespace(ours: str, theirs: str, ids: list[str]) -> None:
    (payload,) = payloads(theirs, ids)
    assert ids_in(payload, ours) == (ids if ours == theirs else [])


def test_a_usual_text_is_stored_as_it_is() -> None:
    assert escaped("0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071") == "0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
    assert escaped("shop:tasks@host 1/2") == "shop:tasks@host 1/2"
    assert escaped("ü\\") == "\\xfc\\\\"
