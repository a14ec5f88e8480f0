"""
Break the package in ways that would lose or repeat messages, and see that the tests notice each.

Each mutant is a copy of the checkout in which one piece of text was replaced. The tests that must notice it run on the
copy: they have to pass before and fail after. Exit code 0 means that every mutant was caught.

Usage: python scripts/mutants.py [--only NAME] [--list]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("amqpworker", "tests", "pyproject.toml", "README.md", "examples", "docs", "scripts", "bench")


@dataclass(frozen=True)
class Mutant:
    """One way to break a file of the package: texts and what stands in their place, and the tests that must notice."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "requeue for an idle process again and again",
        "amqpworker/worker/receiver.py",
        (("now - UNCLAIMED_SECONDS, keep_redelivered=True)", "now - UNCLAIMED_SECONDS)"),),
        ("tests/unit/worker/test_receiver.py",),
    ),
    Mutant(
        "tell that a drain has ended before a queue that is held brings nothing any more",
        "amqpworker/broker/consumer.py",
        (
            (
                "        channel.cancel(tag, on_cancelled)\n",
                "        channel.cancel(tag, on_cancelled)\n        on_cancelled()\n",
            ),
        ),
        ("tests/unit/broker/test_consumer.py",),
    ),
    Mutant(
        "forget what was in flight when the connection is lost",
        "amqpworker/broker/lane.py",
        (("reversed([*again, *unwritten])", "reversed(unwritten)"),),
        ("tests/unit/broker/test_publisher_ends.py",),
    ),
    Mutant(
        "publish a call again that was written",
        "amqpworker/broker/lane.py",
        (("again = [one for one in in_flight if one.resend and not is_last]", "again = in_flight"),),
        ("tests/unit/broker/test_publisher_ends.py",),
    ),
    Mutant(
        "acknowledge before the task runs",
        "amqpworker/worker/executor.py",
        (
            (
                "                outcome = call(run)\n",
                (
                    '                self._settler.settle(delivery, __import__("amqpworker.model.outcome").model.outcome.Done())\n'
                    "                call(run)\n"
                    "                return\n"
                ),
            ),
        ),
        ("tests/unit/worker/test_threads.py", "tests/integration/test_retry.py"),
    ),
    Mutant(
        "let forked children inherit the handlers of their worker",
        "amqpworker/worker/forked_children.py",
        (
            (
                "            if signal.getsignal(number) == handler:\n",
                "            if signal.getsignal(number) is None:\n",
            ),
        ),
        ("tests/unit/worker/test_forked_children.py",),
    ),
    Mutant(
        "let a forked child lose a signal that is sent to it at once",
        "amqpworker/worker/forked_children.py",
        (("pthread_sigmask(signal.SIG_BLOCK, ours)", "pthread_sigmask(signal.SIG_BLOCK, ())"),),
        ("tests/unit/worker/test_forked_children.py",),
    ),
    Mutant(
        "answer about a message before what its last run has started has ended",
        "amqpworker/supervisor/crash_history.py",
        (("            if query.key in blocked:\n", "            if query.key in blocked and now < 0:\n"),),
        ("tests/unit/supervisor/test_crash_history.py",),
    ),
    Mutant(
        "reap children that the app waits for",
        "amqpworker/worker/child_processes.py",
        (("self._held |= due & waited_for()", "pass"),),
        ("tests/unit/worker/test_child_processes.py",),
    ),
    Mutant(
        "count a run whose processes were ended as done",
        "amqpworker/worker/executor.py",
        (("(self.results and isinstance(outcome, Done))", "isinstance(outcome, Done)"),),
        ("tests/unit/worker/test_threads.py",),
    ),
    Mutant(
        "let the threads of a queue serve all queues",
        "amqpworker/worker/threads.py",
        (("self._to_work_queue if concurrency.own else self._shared.put", "self._shared.put"),),
        ("tests/unit/worker/test_threads.py",),
    ),
    Mutant(
        "acknowledge before the copy is confirmed",
        "amqpworker/worker/republish.py",
        (
            (
                "            self._attempt(copy, ())\n        except",
                "            self._attempt(copy, ())\n            copy.confirmed()\n        except",
            ),
        ),
        ("tests/unit/worker/test_settle.py",),
    ),
    Mutant(
        "forget mandatory",
        "amqpworker/broker/amqp/encode.py",
        (('b"\\x01" if mandatory else b"\\x00"', 'b"\\x00"'),),
        ("tests/unit/broker/amqp/test_encode.py", "tests/integration/test_publishing.py"),
    ),
    Mutant(
        "keep x-death in what is published again",
        "amqpworker/routing/envelope.py",
        (('return not lowered.startswith(("x-", WAIT_PREFIX))', "return not lowered.startswith(WAIT_PREFIX)"),),
        ("tests/unit/routing/test_envelope.py", "tests/integration/test_retry.py"),
    ),
    Mutant(
        "ignore basic.cancel",
        "amqpworker/broker/channel.py",
        (
            (
                "self.pika.add_on_cancel_callback(lambda _: on_cancelled())",
                "self.pika.add_on_cancel_callback(lambda _: None)",
            ),
        ),
        (
            "tests/faults/test_consuming_faults.py::test_a_queue_that_is_deleted_under_a_worker_is_declared_and_consumed_again",
        ),
    ),
    Mutant(
        "reuse delivery tags after a reconnect",
        "amqpworker/broker/consumer.py",
        (
            (
                "        consumer_channel = ConsumerChannel(subscription, self.receiver, self.io.start_ticking)\n",
                (
                    "        consumer_channel = self._channels.get(subscription.queue)\n"
                    "        if consumer_channel is None:\n"
                    "            consumer_channel = ConsumerChannel(subscription, self.receiver, self.io.start_ticking)\n"
                    "        consumer_channel.is_open = True\n"
                ),
            ),
            (
                "            self._invalidate(consumer_channel)\n        self._channels.clear()\n",
                "            self._invalidate(consumer_channel)\n",
            ),
        ),
        (
            "tests/faults/test_consuming_faults.py::test_an_outcome_that_is_late_for_its_channel_acknowledges_nothing_on_the_next",
        ),
    ),
    Mutant(
        "floor instead of ceil in the ladder",
        "amqpworker/routing/delay.py",
        (("math.ceil(delay / UNIT)", "math.floor(delay / UNIT)"),),
        ("tests/unit/routing/test_delay.py",),
    ),
    Mutant(
        "drop the allow-list of properties",
        "amqpworker/routing/envelope.py",
        (('"priority")', '"priority", "expiration", "user_id", "content_encoding")'),),
        ("tests/unit/routing/test_envelope.py",),
    ),
    Mutant(
        "withhold acknowledgements behind a long task",
        "amqpworker/broker/ack_tracker.py",
        (
            (
                "                ahead.remove(lowest)\n            else:",
                "                ahead.remove(lowest)\n                highest = lowest\n            else:",
            ),
            ("        acks = [Ack(tag, False) for tag in singly]\n", "        acks: list[Ack] = []\n"),
        ),
        ("tests/unit/broker/test_ack_tracker.py", "tests/unit/worker/test_settle_acks.py"),
    ),
    Mutant(
        "swallow a runner's exception",
        "amqpworker/worker/executor.py",
        (
            (
                "            return outcomes.from_exception(run, error)\n        return outcomes.from_result(run, value, self._wants_result(run))\n\n    async def",
                "            return Done()\n        return outcomes.from_result(run, value, self._wants_result(run))\n\n    async def",
            ),
        ),
        ("tests/unit/worker/test_executor.py",),
    ),
    Mutant(
        "raise a time limit once only",
        "amqpworker/worker/limits/deadlines.py",
        (
            (
                "        deadline.raise_at = now + self.pace.again\n        return True\n",
                "        deadline.raise_at = math.inf\n        return True\n",
            ),
        ),
        ("tests/unit/worker/limits/test_deadlines.py",),
    ),
    Mutant(
        "interrupt a thread that acquires a lock",
        "amqpworker/worker/limits/interruption.py",
        (("        return Hold.FULL\n    # Ours,", "        return Hold.NONE\n    # Ours,"),),
        ("tests/unit/worker/limits/test_interruption.py",),
    ),
    Mutant(
        "forget what ran in a process that has died",
        "amqpworker/supervisor/supervisor.py",
        (("                self._crash_history.record_death(recording)\n", ""),),
        (
            (
                "tests/supervised/test_crashes.py::"
                "test_what_takes_its_process_down_is_tried_alone_and_dies_with_the_evidence_while_neighbours_run"
            ),
        ),
    ),
    Mutant(
        "let the count of deliveries decide though a supervisor can be asked",
        "amqpworker/worker/isolation/crashes.py",
        (("    if supervised:\n        return RedeliveryAction.ASK\n", ""),),
        ("tests/unit/worker/isolation/test_crashes.py", "tests/unit/worker/test_receiver.py"),
    ),
    Mutant(
        "run as many suspects at once as there are threads",
        "amqpworker/worker/isolation/permits.py",
        (("            if not self._free:\n", "            if False:\n"),),
        ("tests/unit/worker/isolation/test_permits.py", "tests/unit/worker/test_threads.py"),
    ),
    Mutant(
        "start an isolated run though its connection is gone",
        "amqpworker/worker/isolation/pool.py",
        (("        if not run.delivery.channel.is_open:\n", "        if False:\n"),),
        ("tests/unit/worker/isolation/test_pool.py",),
    ),
    Mutant(
        "blame nobody for a crash in an isolated process",
        "amqpworker/worker/outcomes.py",
        (("LONGEST_CRASH_DELAY), failure, crashes)", "LONGEST_CRASH_DELAY), failure)"),),
        ("tests/unit/worker/test_outcomes.py",),
    ),
)


def main() -> int:
    """Run the mutants; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only mutants whose name contains this")
    parser.add_argument("--list", action="store_true", help="list the mutants and stop")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not arguments.only or arguments.only in mutant.name]
    console = Console()
    if arguments.list:
        for mutant in chosen:
            console.print(f"{mutant.name}: {mutant.file}", highlight=False)
        return 0
    results = run_all(chosen, console)
    table = Table("mutant", "file", "caught", "seconds")
    for mutant, caught, seconds in results:
        table.add_row(mutant.name, mutant.file, "yes" if caught else "[red]NO[/red]", f"{seconds:.0f}")
    console.print(table)
    count = sum(caught for _, caught, _ in results)
    console.print(f"{count} of {len(results)} mutants caught")
    return 0 if count == len(results) else 1


def run_all(chosen: list[Mutant], console: Console) -> list[tuple[Mutant, bool, float]]:
    """Check that the tests pass unbroken, then break the package in each way."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    results = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("unbroken", total=len(chosen) + 1)
        with copied() as folder:
            done = run_tests(folder, tests)
            if done.returncode != 0:
                console.print(done.stdout[-4000:], highlight=False, markup=False)
                console.print("The tests fail on the unbroken package: nothing can be said of mutants.")
                sys.exit(1)
        progress.advance(bar)
        for mutant in chosen:
            progress.update(bar, description=mutant.name)
            started = time.monotonic()
            with copied() as folder:
                apply(mutant, folder)
                caught = run_tests(folder, list(mutant.tests)).returncode == 1
            results.append((mutant, caught, time.monotonic() - started))
            if not console.is_terminal:
                console.print(f"{'caught' if caught else 'NOT CAUGHT'}: {mutant.name}", highlight=False)
            progress.advance(bar)
    return results


class copied:  # noqa: N801 - used as a function
    """A copy of the checkout, for as long as the block runs."""

    def __enter__(self) -> Path:
        self.folder = Path(tempfile.mkdtemp(prefix="amqpworker-mutant-"))
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, self.folder / name, ignore=shutil.ignore_patterns("__pycache__", ".venv", ".build")
                )
            elif source.exists():
                shutil.copy(source, self.folder / name)
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def apply(mutant: Mutant, folder: Path) -> None:
    """Replace the texts in the copy; that one is not there exactly once is an error of this script."""
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    for old, new in mutant.edits:
        if text.count(old) != 1:
            sys.exit(
                f"mutant {mutant.name!r}: a text stands {text.count(old)} times in {mutant.file}, not once: {old!r}"
            )
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def run_tests(folder: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests on the copy, which hides the installed package."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(  # noqa: S603 - our own tests
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
