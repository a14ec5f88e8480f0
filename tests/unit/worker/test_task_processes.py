"""What a process has started: adopted orphans are reaped, and the app's own children are left to the app."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import multiprocessing, os, signal, subprocess, sys, threading, time
from amqpworker.log.format import configure
from amqpworker.worker import task_processes as taskprocesses
from amqpworker.worker.task_processes import TaskProcesses
from amqpworker.ipc.descendants import children_of, stat_of

configure("info", True)
taskprocesses.REAP_AFTER = 0.2
taskprocesses.CHECK_SECONDS = 0.05
children = TaskProcesses()

def daemon(seconds):
    subprocess.run(["/bin/sh", "-c", f"(setsid sleep {seconds}) & exit"], check=True)

def ends(code):
    return ["/bin/sh", "-c", f"exit {code}"]

def in_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(8)
    return pid

def process():
    made = multiprocessing.get_context("fork").Process(target=sys.exit, args=(9,))
    made.start()
    return made

# Of threads that have ended, so that they are among the children of the first one, as orphans are.
started, made, forked = in_thread(lambda: subprocess.Popen(ends(7))), in_thread(process), in_thread(fork)
mine = {started.pid, made.pid, forked}
for number in range(5):
    daemon(0)
until = time.monotonic() + 20
while children_of(os.getpid()) != mine and time.monotonic() < until:
    children.tidy(time.monotonic())
    time.sleep(0.01)
assert children_of(os.getpid()) == mine, (mine, children_of(os.getpid()))
assert all(stat_of(pid)[0] == "Z" for pid in mine)
assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 8
assert started.wait() == 7
made.join()
assert made.exitcode == 9

# And all of it is ended in the end.
daemon(600)
subprocess.Popen(["sleep", "600"])
called = []
children.end(lambda: called.append(True))
assert called == [True]
assert all(stat_of(pid)[0] == "Z" for pid in children_of(os.getpid()))
children.end(lambda: called.append(True))
assert called == [True], "there was nothing any more"
print("ok")
"""


def test_adopted_processes_are_reaped_and_the_apps_own_are_left_to_it_until_all_are_ended() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("ok\n"), done.stderr
    assert '"children_ended"' in done.stdout + done.stderr


def test_a_process_that_does_not_belong_to_a_worker_ends_and_reaps_no_children() -> None:
    program = """
import os, subprocess, time
from amqpworker.worker.task_processes import TaskProcesses
children = TaskProcesses(ours=False)
other = subprocess.Popen(["sleep", "600"])
children.end()
children.tidy(time.monotonic())
assert other.poll() is None
other.kill()
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


IN_FIRST_THREAD = """
import os, subprocess, time
from amqpworker.worker import task_processes as taskprocesses
from amqpworker.worker.task_processes import TaskProcesses
from amqpworker.ipc.descendants import children_of, stat_of

taskprocesses.REAP_AFTER = 0.1
taskprocesses.CHECK_SECONDS = 0.02
children = TaskProcesses(tasks_here=True)

def tidied_for(seconds, until=lambda: False):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        children.tidy(time.monotonic())
        time.sleep(0.01)

# It has no object in Python, and no fork handler of Python is called for it.
mine = os.posix_spawn("/bin/true", ["true"], os.environ)
daemon = subprocess.Popen(["/bin/sh", "-c", "sleep 0.6 & sleep 0.3"])
tidied_for(0.3)
daemon.wait()
tidied_for(20, lambda: children_of(os.getpid()) == {mine})
assert children_of(os.getpid()) == {mine}, children_of(os.getpid())
assert stat_of(mine)[0] == "Z"
assert os.waitpid(mine, 0) == (mine, 0)

# No code waits for what a run has left.
os.posix_spawn("/bin/true", ["true"], os.environ)
children.on_run_ended()
tidied_for(20, lambda: not children_of(os.getpid()))
assert children_of(os.getpid()) == set()
"""


def test_a_child_that_a_task_spawned_in_the_main_thread_is_not_reaped_while_the_task_runs() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_FIRST_THREAD], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
