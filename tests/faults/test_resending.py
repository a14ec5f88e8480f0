"""What lost its confirm, or was refused, is published again under its id: a broker that restarts shows in no sender's errors."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from amqpworker import App, BatchFailed, CallTimeout, ConfigError, InvalidArguments, SendError, Settings, Unconfirmed
from amqpworker.testing.processes import free_ports
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

MakeApp = Callable[..., App]


def ids_of(broker: Broker, queue: str = QUEUE) -> Counter[str]:
    """Count the ids in a queue, and leave what is there."""
    found: Counter[str] = Counter()
    with raw_channel(broker.url) as channel:
        for _ in range(broker.count(queue)):
            _, properties, _ = channel.basic_get(queue)
            found[str(properties.message_id)] += 1
    return found


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_broker_that_is_restarted_under_many_threads_fails_no_send(spare_vhost: Broker, how: str) -> None:
    node = spare_vhost.node
    app = App(spare_vhost.url, settings=Settings(app_id="shop"))
    echo = echo_of(app)
    stop = threading.Event()
    sent: list[str] = []

    def send_until_stopped() -> None:
        while not stop.is_set():
            sent.append(echo.send("x").id)

    with app, ThreadPoolExecutor(20) as pool:
        sent.append(echo.send("makes the queue").id)
        # RabbitMQ 3.10 loses a queue that was declared some seconds before it is killed, and never reports it.
        node.save_queues()
        sending = [pool.submit(send_until_stopped) for _ in range(20)]
        wait_until(lambda: len(sent) > 200, 30, "messages are sent")
        (node.stop if how == "restarted" else node.kill)()
        before = len(sent)
        node.start()
        wait_until(lambda: len(sent) > before + 200, 30, "messages are sent again")
        stop.set()
        for one in sending:
            one.result()
    assert set(sent) <= set(ids_of(spare_vhost))


def test_a_message_whose_confirm_is_lost_is_published_again_under_its_id(
    make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(vhost.url) as proxy, ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO):
        app = make_app(proxy.url, send_timeout=20.0)
        echo = echo_of(app)
        echo.send("before")
        proxy.swallow("to_client")
        sending = pool.submit(echo.send, "during")
        wait_until(lambda: vhost.count(QUEUE) == 2, what="it has arrived, and the sender does not know")
        proxy.heal()
        proxy.reset()
        again = sending.result(20)
        wait_until(lambda: vhost.count(QUEUE) == 3, what="it arrives again")
    assert ids_of(vhost)[again.id] == 2
    assert "publications_resent" in caplog.text


def test_a_message_that_must_not_run_twice_is_unconfirmed_at_once(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy, ThreadPoolExecutor(2) as pool:
        app = make_app(proxy.url, send_timeout=60.0)
        echo = echo_of(app)
        with pytest.raises(CallTimeout):
            echo.options(timeout=0.5).call("opens the channel for calls")
        echo.send("opens the channel for sends")
        proxy.swallow("to_client")
        sending = pool.submit(echo.options(resend=False).send, "during")
        calling = pool.submit(echo.options(timeout=60).call, "asked")
        wait_until(lambda: vhost.count(QUEUE) == 4, what="both have arrived")
        proxy.heal()
        proxy.reset()
        with pytest.raises(Unconfirmed):
            sending.result(20)
        with pytest.raises(Unconfirmed):
            calling.result(20)


def test_a_call_that_was_not_written_yet_waits_for_the_broker(spare_vhost: Broker) -> None:
    node = spare_vhost.node
    app = App(spare_vhost.url)
    echo = echo_of(app)
    with app, ThreadPoolExecutor(1) as pool:
        echo.send("before")
        node.stop()
        wait_until(lambda: not app.producer.publisher.connected, what="the connection is lost")
        calling = pool.submit(echo.options(timeout=30).call, "asked")
        node.start()
        wait_until(lambda: spare_vhost.count(QUEUE) == 2, 30, "it was asked")
        serving = App(spare_vhost.url)
        serving.task(name=echo.name, queue=QUEUE)(lambda text: text)
        with running(serving, threads=1):
            assert calling.result(30) == "asked"


def test_calls_to_a_queue_that_does_not_exist_hold_up_no_others(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    stop = threading.Event()

    def call_unconsumed() -> None:
        while not stop.is_set():
            with pytest.raises(Exception, match="'nowhere'"):
                echo.options(queue="nowhere").call("x")

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(call_unconsumed)
        # One send a second would be a sign of declaring everything again for each call.
        for _ in range(100):
            echo.send("x")
        stop.set()
        asking.result()
    assert vhost.count(QUEUE) == 101


LIMIT = 1000


def test_a_message_above_the_brokers_limit_fails_alone_and_the_next_one_never_leaves(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(extra_config=f"max_message_size = {LIMIT}").start()
    app = App(node.url())
    echo = echo_of(app)
    stop = threading.Event()

    def send_small() -> int:
        count = 0
        while not stop.is_set():
            count += len(app.send_many(messages(echo, 50)))
        return count

    with app, ThreadPoolExecutor(4) as pool:
        echo.send("before")
        sending = [pool.submit(send_small) for _ in range(4)]
        for _ in range(5):
            with pytest.raises(InvalidArguments, match=f"at most {LIMIT}"):
                echo.send("x" * LIMIT)
        stop.set()
        assert all(one.result() for one in sending)
        assert app.producer.publisher.session.max_body == LIMIT


def test_a_batch_with_a_message_that_cannot_be_sent_fails_for_that_one_only(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    vhost.declare_queue("other", x_delivery_limit=7)  # not as this app declares it
    wrong = app.remote(name="test.wrong", queue="other")(lambda: None)
    with pytest.raises(BatchFailed) as caught:
        app.send_many([*messages(echo, 5), wrong.message(), *messages(echo, 5)])
    assert len(caught.value.sent) == vhost.count(QUEUE) == 10
    (error,) = caught.value.exceptions
    assert error.message is not None
    assert error.message.queue == "other"
    assert isinstance(error.__cause__, ConfigError)


STOPPED = """
import os, signal, sys
from amqpworker import App, Settings
app = App(sys.argv[1], settings=Settings(resend=False, heartbeat=0))
@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...
for number in range(5):
    echo.send("x")
    print("stops", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
echo.send("x")
app.close()
"""


def test_the_first_send_of_a_process_that_was_stopped_is_not_written_into_a_closed_connection(vhost: Broker) -> None:
    program = subprocess.Popen([sys.executable, "-c", STOPPED, vhost.url], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        for _ in range(5):
            assert program.stdout.readline() == "stops\n"
            wait_until(lambda: stopped(program.pid), what="it is stopped")
            threading.Event().wait(1.1)  # for as long as an application may well be quiet
            vhost.close_connections()
            wait_until(lambda: has_unread(vhost.node.ports.amqp), what="the broker has closed the connection")
            program.send_signal(signal.SIGCONT)
        assert program.wait(30) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert vhost.count(QUEUE) == 6


def has_unread(port: int) -> bool:
    """Return whether a client of the server at this port has not read what was sent to it."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(int(row[2].split(":")[1], 16) == port and int(row[4].split(":")[1], 16) for row in rows)


def stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def test_a_batch_over_a_slow_network_is_sent_at_the_pace_of_the_network(make_app: MakeApp, vhost: Broker) -> None:
    """Half of it would be late if all were written at once: 40 messages of 40 kB, at 200 kB a second."""
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=4.0)
        echo = echo_of(app)
        echo.send("before")
        proxy.limit("to_broker", 200_000)
        outcomes = list(app.send_each(messages(echo, 40, "x" * 40_000)))
    assert [one for one in outcomes if isinstance(one, SendError)] == []
    assert vhost.count(QUEUE) == 41


INTERRUPTED = """
import sys
from amqpworker import App, Settings
app = App(sys.argv[1], settings=Settings(send_timeout=3600))
@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...
with app:
    print("sends", flush=True)
    echo.send("x")
"""


def test_ctrl_c_during_a_send_waits_for_no_broker() -> None:
    port = free_ports(1)[0]
    command = [sys.executable, "-c", INTERRUPTED, f"amqp://127.0.0.1:{port}/"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "sends\n"
        wait_until(lambda: waits(program.pid), what="the main thread waits")
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=30)
        assert errors.rstrip().endswith("KeyboardInterrupt")
    finally:
        program.kill()
        program.wait()


def waits(pid: int) -> bool:
    """Return whether there is a thread beside the main one, and none of them runs."""
    states = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as stat:
            states.append(stat.read().rpartition(")")[2].split()[0])
    return len(states) > 1 and set(states) == {"S"}
