"""Which error a publication ends with: "it did not arrive" is said only where that is certain."""

from __future__ import annotations

from amqpworker.broker.channel import Prepared
from amqpworker.broker.outgoing import Outgoing
from amqpworker.broker.reasons import ConnectionProblem
from amqpworker.broker.refusals import culprits, not_confirmed, not_connected, not_written, refusal
from amqpworker.errors import Blocked, ConfigError, Forbidden, NotConnected, NotRouted, QueueFull, Unconfirmed
from amqpworker.message import Properties, Publication


def outgoing(exchange: str = "tasks", needs: tuple[str, ...] = ()) -> Outgoing:
    return Outgoing(Prepared(Publication(exchange, "work", Properties(), b"{}"), b"frames", 131_072), 0.0, needs)


def test_a_missing_exchange_is_the_end_of_all_that_named_it() -> None:
    mine, others = [outgoing(), outgoing()], [outgoing("due"), outgoing("")]
    assert culprits(NotRouted("gone"), "tasks", [*mine, *others]) == set(mine)
    assert culprits(NotRouted("gone"), None, [*mine, *others]) == set()


def test_an_exchange_that_was_declared_here_may_have_taken_some_before_it_went() -> None:
    two = [outgoing(needs=("queue work",)), outgoing(needs=("queue work",))]
    assert culprits(NotRouted("gone"), "tasks", two) == set()
    assert culprits(NotRouted("gone"), "tasks", [two[0], outgoing("due")]) == {two[0]}


def test_a_right_that_is_missing_was_missing_all_the_time() -> None:
    two = [outgoing(needs=("queue work",)), outgoing()]
    assert culprits(Forbidden("no"), "tasks", two) == set(two)


def test_nobody_is_blamed_for_what_names_no_message() -> None:
    assert culprits(ConfigError("odd"), "tasks", [outgoing()]) == set()


def test_the_error_tells_what_is_known() -> None:
    assert type(not_written(blocked=True)) is type(not_confirmed(blocked=True)) is Blocked
    assert type(not_written(blocked=False)) is NotConnected
    assert type(not_confirmed(blocked=False)) is Unconfirmed
    assert "still connecting" in str(not_connected(None))
    assert "Nothing listens" in str(not_connected(ConnectionProblem("Nothing listens.", "away", "host:1")))
    assert type(refusal(outgoing(), ack=False)) is QueueFull
    assert type(refusal(outgoing(), ack=True)) is NotRouted
    assert "'work'" in str(refusal(outgoing(), ack=True))
