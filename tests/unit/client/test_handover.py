"""What an event loop and other threads hand over to each other."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

from amqpworker.client.handover import handover_to_this_loop


class Woken:
    """A keeper that counts how often it is woken."""

    def __init__(self) -> None:
        self.times = 0

    def wake(self) -> None:
        self.times += 1


def test_a_thread_is_woken_once_for_all_messages_of_a_turn_of_the_loop() -> None:
    keeper, another = Woken(), Woken()

    async def send(keeper: Woken) -> None:
        handover_to_this_loop().wake(cast("Any", keeper))
        await asyncio.sleep(0)

    async def turns() -> None:
        for turn in range(1, 4):
            await asyncio.gather(*(send(keeper) for _ in range(100)), send(another))
            assert (keeper.times, another.times) == (turn, turn)

    asyncio.run(turns())


def test_functions_of_other_threads_are_called_in_the_loop_in_their_order() -> None:
    async def wait() -> None:
        handover, called = handover_to_this_loop(), []
        done = asyncio.Event()

        def put_all() -> None:
            for number in range(1000):
                handover.put(lambda number=number: called.append((number, threading.get_ident())))
            handover.put(done.set)

        await asyncio.to_thread(put_all)
        await done.wait()
        assert called == [(number, threading.get_ident()) for number in range(1000)]

    asyncio.run(wait())


def test_a_loop_that_is_closed_is_not_woken() -> None:
    async def take() -> Any:
        return handover_to_this_loop()

    asyncio.run(take()).put(lambda: None)
