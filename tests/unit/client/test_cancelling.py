"""Announcing a cancel, without a broker: what is published, what the result store gets, and what a `Sent` knows."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqpworker import App, ConfigError, InvalidArguments, Message, ResultStoreError, Unroutable
from amqpworker.broker.keeper import CLOSED
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.client.cancelling import BATCH, announce, report_removed
from amqpworker.client.producer import Producer
from amqpworker.client.sent import Sent
from amqpworker.errors import AmqpWorkerError, NotConnected, Unconfirmed
from amqpworker.model.cancel import HOLDS, Cancel, decode_cancel
from amqpworker.model.headers import FIRST_SENT, time_text
from amqpworker.model.message import Delivery, Properties, Publication
from amqpworker.results.row import ResultRow
from amqpworker.settings import Settings
from tests.unit.worker.settling import Store

HOUR = 3600.0


class Lanes:
    """A publisher that ends every publication at once, with the next of these errors, if any."""

    def __init__(self) -> None:
        self.is_over = False
        self.errors: list[AmqpWorkerError] = []
        self.sends = self.replies = self.keeper = self
        self.owner: str | None = None
        self.published: list[tuple[Publication, tuple[Any, ...]]] = []

    def publish(
        self, publication: Publication, requirements: tuple[Any, ...], *_: object, **__: object
    ) -> PendingPublish:
        self.published.append((publication, requirements))
        pending = PendingPublish(publication, 5.0)
        pending.finish(self.errors.pop(0) if self.errors else None)
        return pending

    def wake(self) -> None:
        """Everything is written already."""

    def retire(self) -> None:
        self.is_over = True


class Scene:
    def __init__(self, *, stores: bool = False, declare: bool = True) -> None:
        self.lanes = Lanes()
        self.app = App("amqp://localhost", settings=Settings(declare=declare))
        made: Callable[..., Any] = lambda _: self.lanes  # noqa: E731
        self.app._producer = Producer(self.app.plan, self.app.settings, made)
        self.store = Store()
        if stores:
            self.app.store = lambda: self.store  # type: ignore[method-assign]

    def sent(self, **options: Any) -> Sent[Any]:
        sent = self.app.send(Message("shop.welcome", "emails", b"{}", "m-1", **options))
        self.lanes.published.clear()
        return sent

    @property
    def cancels(self) -> list[Cancel]:
        return [decode_cancel(publication.body) for publication, _ in self.lanes.published]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_sent_message_is_cancelled_by_one_publication_that_is_later_than_the_message(scene: Scene) -> None:
    sent = scene.sent()
    sent.cancel()
    ((publication, requirements),) = scene.lanes.published
    (cancel,) = scene.cancels
    assert (publication.exchange, publication.routing_key) == ("amqpworker.tasks", "amqpworker.cancelled")
    assert requirements == (scene.app.plan.cancelled,)
    assert cancel.id == "m-1"
    assert not cancel.force
    assert cancel.at > (sent._first_sent or 0)
    assert abs(cancel.until - (time.time() * 1000 + HOLDS)) < 5000


def test_a_cancel_is_later_than_its_message_although_the_clock_was_set_back(scene: Scene) -> None:
    ahead = int((time.time() + HOUR) * 1000)
    announce(scene.app, ["m-1"], first_sent=ahead)
    assert scene.cancels[0].at == ahead + 1


def test_a_sent_message_knows_when_it_is_due(scene: Scene) -> None:
    scene.sent(delay=2 * HOUR).cancel(force=True)
    ((publication, requirements),) = scene.lanes.published
    assert publication.exchange == "amqpworker.delay.14", "it waits for an hour"
    assert requirements == (scene.app.plan.cancelled, scene.app.plan.ladder)
    (cancel,) = scene.cancels
    assert cancel.force
    assert abs(cancel.until - (time.time() + 2 * HOUR) * 1000 - HOLDS) < 5000
    scene.sent(at=datetime.now(UTC) + timedelta(days=365)).cancel()
    assert scene.cancels[0].until > (time.time() + 364 * 86_400) * 1000 + HOLDS


def test_a_copy_of_a_sent_message_has_no_app_to_cancel_with(scene: Scene) -> None:
    copied = pickle.loads(pickle.dumps(scene.sent()))
    with pytest.raises(ConfigError, match=r"app\.pending\.cancel\('m-1'\)"):
        copied.cancel()


def test_a_coroutine_cancels_in_another_thread(scene: Scene) -> None:
    sent = scene.sent()
    asyncio.run(sent.acancel(force=True))
    assert scene.cancels[0].force


def test_many_are_announced_in_batches_and_the_time_until_which_they_hold_is_returned(scene: Scene) -> None:
    due = time.time() + 1000
    until = announce(scene.app, (f"m-{number}" for number in range(BATCH + 1)), due=due)
    assert [one.id for one in scene.cancels] == [f"m-{number}" for number in range(BATCH + 1)]
    assert until == pytest.approx(due + HOLDS / 1000, abs=0.01)
    assert announce(scene.app, []) > 0


@pytest.mark.parametrize("task_id", ["", "x" * 256, 5, None])
def test_an_id_that_amqp_cannot_carry_is_refused(scene: Scene, task_id: Any) -> None:
    with pytest.raises(InvalidArguments, match="id of a message"):
        announce(scene.app, [task_id])
    assert not scene.lanes.published


def test_without_the_stream_nothing_is_cancelled_and_the_error_names_the_command() -> None:
    scene = Scene(declare=False)
    scene.lanes.errors = [Unroutable("no queue")]
    with pytest.raises(Unroutable, match="amqpworker topology declare"):
        announce(scene.app, ["m-1"])
    assert scene.lanes.published[0][1] == (), "it declares nothing"


def test_what_a_publisher_that_was_just_closed_did_not_send_is_published_again(scene: Scene) -> None:
    scene.lanes.errors = [NotConnected(CLOSED)]
    announce(scene.app, ["m-1"])
    assert len(scene.lanes.published) == 2


def test_a_cancel_is_stored_once_it_is_announced() -> None:
    scene = Scene(stores=True)
    sent = scene.sent(delay=60)
    sent.cancel()
    row = scene.store.rows["aw-cancelled:m-1"]
    assert decode_cancel(row.reply) == scene.cancels[0]
    assert row.state == "cancelled"
    assert row.expires_at == scene.cancels[0].until / 1000
    scene.store.rows.clear()
    scene.lanes.errors = [Unconfirmed("lost")]
    with pytest.raises(Unconfirmed):
        sent.cancel()
    assert not scene.store.rows


def test_a_store_that_cannot_be_written_is_an_error_of_a_cancel_that_is_announced() -> None:
    scene = Scene(stores=True)
    scene.store.failures = 1
    with pytest.raises(ResultStoreError, match=r"announced, but not stored: .*the disk is full"):
        scene.sent().cancel()
    assert len(scene.cancels) == 1


# ---- what was removed -----------------------------------------------------------------------------------------------


def removed(task_id: str, reply_to: str | None = None) -> Delivery:
    properties = Properties(
        type="shop.welcome", message_id=task_id, reply_to=reply_to, headers={FIRST_SENT: "1790000000000"}
    )
    return Delivery(1, False, "amqpworker.delay.05", "emails", properties, b"{}")


def test_what_was_removed_is_stored_as_cancelled_unless_a_result_is_there() -> None:
    scene = Scene(stores=True)
    done = ResultRow("m-2", "done", "shop.welcome", b'{"status":"done","value":1}', time_text(1790000000000), 0, 1e12)
    scene.store.rows["m-2"] = done
    report_removed(scene.app, [removed("m-1"), removed("m-2")])
    assert scene.store.reply("m-1")["reason"] == "cancelled"
    assert (scene.store.rows["m-1"].state, scene.store.rows["m-1"].first_sent) == (
        "cancelled",
        time_text(1790000000000),
    )
    assert scene.store.rows["m-2"] is done
    assert not scene.lanes.published


def test_a_caller_of_what_was_removed_gets_a_reply(scene: Scene) -> None:
    report_removed(scene.app, [removed("m-1", reply_to="answers"), removed("m-2", reply_to="amq.rabbitmq.reply-to.x")])
    ((publication, _),) = scene.lanes.published
    assert (publication.exchange, publication.routing_key) == ("", "answers")
    assert b'"reason":"cancelled"' in publication.body


def test_if_a_removal_cannot_be_stored_it_is_an_error() -> None:
    scene = Scene(stores=True)
    scene.store.failures = 1
    with pytest.raises(ResultStoreError, match="the disk is full"):
        report_removed(scene.app, [removed("m-1")])
