"""The private node: starts, keeps what is durable, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpworker.errors import ConfigError
from amqpworker.testing import processes
from amqpworker.testing.configuration import Record
from tests.nodes import Node
from tests.support import Broker, raw_channel, raw_publish, wait_until

MakeNode = Callable[..., Node]


def living(node: Node) -> list[int]:
    record = Record.read(node.folder)
    assert record is not None
    return processes.marked(record.mark)


def names(pids: list[int]) -> set[str]:
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


def test_a_stopped_node_leaves_no_process_and_starts_again_with_what_was_durable(make_node: MakeNode) -> None:
    node = make_node()
    node.stop()
    assert node.status().state == "stopped"
    node.start()
    first = node.status()
    assert (first.state, first.pid) == ("running", node.pid)
    assert Node(node.folder).start().pid == first.pid
    assert {"beam.smp", "epmd", "erl_child_setup"} <= names(living(node))

    node.management.declare_queue("/", "kept", {"x-queue-type": "quorum"})
    assert raw_publish(node.url(), "", "kept", "{}")
    node.stop()
    assert living(node) == []
    assert node.status().state == "stopped"
    assert not Path(f"/proc/{first.pid}").exists()

    node.start()
    broker = Broker(node, "/")
    wait_until(lambda: broker.count("kept") == 1, what="the durable message to be back")
    assert node.url() == first.url


def test_a_killed_node_comes_back_on_the_same_ports_while_clients_hold_on(make_node: MakeNode) -> None:
    node = make_node().start()
    ports, pid = node.ports, node.pid
    with raw_channel(node.url()):
        node.kill()
        assert node.status().state == "stopped"
        node.restart()
    assert node.ports == ports
    assert node.pid != pid


def test_two_nodes_run_side_by_side_in_folders_with_spaces_and_quotes(make_node: MakeNode) -> None:
    first, second = make_node("with a space"), make_node('it\'s "odd" $HOME ü')
    for node in (first, second):
        node.start()
    assert not set(first.ports) & set(second.ports)
    first.create_vhost("only here")
    with raw_channel(first.url("only here")), raw_channel(second.url()):
        pass
    first.stop()
    assert second.status().running
    second.stop()
    assert living(first) + living(second) == []


def test_a_stale_process_id_or_port_is_noticed_and_the_stranger_left_alone(make_node: MakeNode) -> None:
    node = make_node().start()
    node.stop()
    record = Record.read(node.folder)
    assert record is not None
    record.pid = record.epmd_pid = os.getpid()
    record.write(node.folder)
    assert node.status().state == "stopped"
    node.kill()
    node.stop()
    with socket.create_server(("127.0.0.1", record.ports.amqp)):
        node.start()
    assert node.pid != os.getpid()
    assert node.ports.amqp != record.ports.amqp
    with raw_channel(node.url()):
        pass


def test_everything_listens_on_loopback_only(node: Node) -> None:
    listing = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {fields[1].split(":")[1]: fields[1].split(":")[0] for fields in listing if fields[3] == "0A"}
    assert {listening[f"{port:04X}"] for port in node.ports} == {"0100007F"}


START_TIED = """
import sys
from pathlib import Path
from amqpworker.testing import Node
node = Node(Path(sys.argv[1]), tied=True).start()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_tied_node_ends_with_its_process_however_that_dies(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", START_TIED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        owner.send_signal(number)
    wait_until(lambda: not living(Node(tmp_path)), what="the tied node to end")


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    # a process that was started in the background of a shell ignores Ctrl-C, and so would its children
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)" + START_TIED
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        wait_until(lambda: (tmp_path / "node.json").exists() and living(Node(tmp_path)), what="the node to begin")
        owner.send_signal(signal.SIGINT)
        _, said = owner.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert living(Node(tmp_path)) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_interrupted_while_it_starts_a_node_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from amqpworker.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "broker", "start", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as owner:
        wait_until(lambda: (tmp_path / "node.json").exists() and living(Node(tmp_path)), what="the node to begin")
        owner.send_signal(number)
        _, said = owner.communicate(timeout=30)
    assert (owner.returncode, said) == (code, "")
    assert living(Node(tmp_path)) == []


def test_a_start_that_fails_gives_its_reason_in_one_line_and_leaves_nothing_behind(make_node: MakeNode) -> None:
    node = make_node(extra_config="nonsense = 1")
    with pytest.raises(ConfigError, match="unknown variable: nonsense") as caught:
        node.start()
    assert "\n" not in str(caught.value)
    assert living(node) == []


def test_rabbitmqctl_speaks_to_this_node_and_reports_its_errors(node: Node) -> None:
    assert node.rabbitmqctl("--quiet", "eval", "node().").strip() == f"'{node.name}'"
    with pytest.raises(ConfigError, match=r"rabbitmqctl delete_vhost: .*does not exist"):
        node.rabbitmqctl("delete_vhost", "never-made")


def test_an_administrator_closes_the_connections_of_one_vhost_only(vhost: Broker, node: Node) -> None:
    with raw_channel(vhost.url) as closed, raw_channel(node.url()) as open_one:
        vhost.close_connections()
        with pytest.raises(Exception, match="CONNECTION_FORCED"):
            closed.queue_declare("", exclusive=True)
        assert open_one.queue_declare("", exclusive=True).method.queue


def test_the_ui_moves_messages_from_one_queue_to_another(vhost: Broker) -> None:
    for queue in ("from", "to"):
        vhost.declare_queue(queue)
    for _ in range(3):
        assert vhost.publish("", "from", "{}")
    address = f"amqp:///{vhost.vhost}"
    move = {
        "src-uri": address,
        "src-queue": "from",
        "src-protocol": "amqp091",
        "src-prefetch-count": 1000,
        "src-delete-after": "queue-length",
        "dest-protocol": "amqp091",
        "dest-uri": address,
        "dest-add-forward-headers": False,
        "ack-mode": "on-confirm",
        "dest-queue": "to",
    }
    name = "Move from from"
    body = {"component": "shovel", "vhost": vhost.vhost, "name": name, "value": move}
    vhost.management.request("PUT", "parameters", "shovel", vhost.vhost, name, body=body)
    vhost.wait_for_count("to", 3)
    assert vhost.count("from") == 0
