"""Mistakes that would lose or repeat messages, and the tests that must notice each."""

from __future__ import annotations

from mutation import Mutant, Mutation

MUTANTS = (
    Mutant(
        "ignore basic.cancel",
        (
            "tests/faults/test_consuming_faults.py::test_a_queue_that_is_deleted_under_a_worker_is_declared_and_consumed_again",
        ),
        (Mutation("PikaChannel.on_cancel", "C.add_on_cancel_callback(F)", "C.add_on_cancel_callback(lambda _: None)"),),
    ),
    Mutant(
        "requeue for an idle process again and again",
        ("tests/unit/worker/test_receiver.py",),
        (
            Mutation(
                "DeliveryReceiver._requeue_for_others",
                "self._requeue(G)",
                "self._requeue(waiting)",
            ),
        ),
    ),
    Mutant(
        "report a drain as ended while a paused queue still delivers",
        ("tests/unit/broker/test_consumer.py",),
        (
            Mutation(
                "SuspendedQueues.suspend_if_wanted",
                "C.cancel(T, F)",
                "C.cancel(T, F)\nF()",
            ),
        ),
    ),
    Mutant(
        "report a drain as ended while the second of two consumers still delivers",
        ("tests/unit/broker/test_prefetch_changes.py",),
        (
            Mutation(
                "Consumer._on_consumed",
                "partial(self._on_replaced, C)",
                "partial(self._on_cancel_ok, C)",
            ),
        ),
    ),
    Mutant(
        "make suspects of what the broker takes back from a consumer that is replaced",
        ("tests/unit/worker/test_redelivery.py",),
        (Mutation("redelivery_action", "SUSPECT_DELIVERIES + replacements", "SUSPECT_DELIVERIES"),),
    ),
    Mutant(
        "forget what was in flight when the connection is lost",
        ("tests/unit/broker/test_publisher_ends.py",),
        (Mutation("Lane.on_lost", "reversed([*A, *B])", "reversed(B)"),),
    ),
    Mutant(
        "publish a call again that was written",
        ("tests/unit/broker/test_publisher_ends.py",),
        (Mutation("Lane.on_lost", "X.resend and not Y", "True"),),
    ),
    Mutant(
        "acknowledge before the task runs",
        ("tests/unit/worker/test_threads.py", "tests/integration/test_retry.py"),
        (
            Mutation(
                "Pipeline.execute",
                "C = X if I else Y\nO = C(R)",
                """
                C = X if I else Y
                from amqpworker.model import outcome as _outcome
                self._settler.settle(R.delivery, _outcome.Done())
                C(R)
                return
                """,
            ),
        ),
    ),
    Mutant(
        "let forked children inherit the handlers of their worker",
        ("tests/unit/worker/test_after_fork.py",),
        (Mutation("default_signals_in_forks.reset", "signal.getsignal(N) == H", "signal.getsignal(N) is None"),),
    ),
    Mutant(
        "let a forked child lose a signal that is sent to it at once",
        ("tests/unit/worker/test_after_fork.py",),
        (
            Mutation(
                "default_signals_in_forks.block",
                "signal.pthread_sigmask(signal.SIG_BLOCK, S)",
                "signal.pthread_sigmask(signal.SIG_BLOCK, ())",
            ),
        ),
    ),
    Mutant(
        "answer about a message before what its last run has started has ended",
        ("tests/unit/supervisor/test_crash_history.py",),
        (Mutation("CrashHistory.answers", "Q.key in blocked", "False"),),
    ),
    Mutant(
        "reap children that the app waits for",
        ("tests/unit/worker/test_task_processes.py",),
        (Mutation("TaskProcesses.tidy", "H |= D & waited_for()", "pass"),),
    ),
    Mutant(
        "count a run whose processes were ended as done",
        ("tests/unit/worker/test_threads.py",),
        (Mutation("Acceptance.accepts", "self.results and X", "X"),),
    ),
    Mutant(
        "let the threads of a queue serve all queues",
        ("tests/unit/worker/test_threads.py",),
        (Mutation("RunnerThreads.__init__", "self._to_start_queue if C else S", "S"),),
    ),
    Mutant(
        "acknowledge before the copy is confirmed",
        ("tests/unit/worker/test_settle.py",),
        (
            Mutation(
                "CopyPublisher.publish",
                "self._attempt(C, R)",
                "self._attempt(C, R)\nC.on_confirmed()",
            ),
        ),
    ),
    Mutant(
        "do not declare the other queue that a run continues in",
        ("tests/integration/test_own_decisions.py",),
        (Mutation("CopyPublisher.publish", "() if A == B else C", "()"),),
    ),
    Mutant(
        "ignore the limits of a message",
        ("tests/unit/worker/test_executor.py",),
        (Mutation("message_limit", "None if A else L", "None"),),
    ),
    Mutant(
        "retry what a task expects",
        ("tests/unit/worker/test_outcomes.py",),
        (Mutation("from_exception", "isinstance(error, R.registered.throws)", "False"),),
    ),
    Mutant(
        "forget mandatory",
        ("tests/unit/broker/amqp/test_encode.py", "tests/integration/test_publishing.py"),
        (Mutation("_publish_method", 'b"\\x01" if M else F', "F"),),
    ),
    Mutant(
        "keep x-death in what is published again",
        ("tests/unit/routing/test_envelope.py", "tests/integration/test_retry.py"),
        (Mutation("_may_stay", '("x-", P)', "(P,)"),),
    ),
    Mutant(
        "reuse delivery tags after a reconnect",
        (
            "tests/faults/test_consuming_faults.py::test_an_outcome_that_is_late_for_its_channel_acknowledges_nothing_on_the_next",
        ),
        (
            Mutation(
                "Consumer._subscribe",
                "C = ConsumerChannel(S, R, T)",
                """
                C = self._channels.get(S.queue)
                if C is None:
                    C = ConsumerChannel(S, R, T)
                C.is_open = True
                """,
            ),
            Mutation(
                "Consumer.on_lost",
                "self._channels.clear()",
                "pass",
            ),
        ),
    ),
    Mutant(
        "floor instead of ceil in the ladder",
        ("tests/unit/routing/test_delay.py",),
        (Mutation("units", "math.ceil(X)", "math.floor(X)"),),
    ),
    Mutant(
        "drop the allow-list of properties",
        ("tests/unit/routing/test_envelope.py",),
        (Mutation("KEPT_PROPERTIES", '"priority"', '*("priority", "expiration", "user_id", "content_encoding")'),),
    ),
    Mutant(
        "withhold acknowledgements behind a long task",
        ("tests/unit/broker/test_ack_tracker.py::test_what_is_settled_behind_a_long_task_is_acknowledged_at_once",),
        (
            Mutation(
                "AckTracker.settle",
                """
                if L in F:
                    F.remove(L)
                    H = L
                elif L in A:
                    A.remove(L)
                else:
                    break
                """,
                """
                if L in F:
                    F.remove(L)
                    H = L
                elif L in A:
                    A.remove(L)
                    H = L
                else:
                    break
                """,
            ),
            Mutation("AckTracker.settle", "[Ack(T, False) for T in S]", "[]"),
        ),
    ),
    Mutant(
        "swallow a runner's exception",
        ("tests/unit/worker/test_executor.py",),
        (
            Mutation(
                "TaskExecutor.call",
                "return outcomes.from_exception(R, E, N)",
                """
                from amqpworker.model import outcome as _outcome
                return _outcome.Done()
                """,
            ),
        ),
    ),
    Mutant(
        "raise a time limit once only",
        ("tests/unit/worker/limits/test_limits.py",),
        (Mutation("Limits._raise", "D.raise_at = N + self.pace.repeat_after", "D.raise_at = float('inf')"),),
    ),
    Mutant(
        "interrupt a thread that acquires a lock",
        ("tests/unit/worker/limits/test_interruption.py",),
        (
            Mutation(
                "safety_of",
                "if not W and A:\n    return Safety.UNSAFE",
                "if not W and A:\n    return Safety.SAFE",
            ),
        ),
    ),
    Mutant(
        "forget what ran in a process that has died",
        (
            "tests/supervised/test_crashes.py::test_what_takes_its_process_down_is_tried_alone_and_dies_with_the_evidence_while_neighbours_run",
        ),
        (Mutation("Supervisor._reap", "self._crash_history.record_death(R)", "pass"),),
    ),
    Mutant(
        "let the count of deliveries decide though a supervisor can be asked",
        ("tests/unit/worker/test_redelivery.py", "tests/unit/worker/test_receiver.py"),
        (
            Mutation(
                "redelivery_action",
                "if supervised:\n    return RedeliveryAction.ASK",
                "pass",
            ),
        ),
    ),
    Mutant(
        "run as many suspects at once as there are threads",
        ("tests/unit/worker/isolation/test_permits.py", "tests/unit/worker/test_threads.py"),
        (Mutation("Permits.acquire", "not self._free", "False"),),
    ),
    Mutant(
        "start an isolated run though its connection is gone",
        ("tests/unit/worker/isolation/test_isolation.py",),
        (Mutation("Isolation.run", "not C.is_open", "False"),),
    ),
    Mutant(
        "do not count a crash in an isolated process",
        ("tests/unit/worker/test_outcomes.py",),
        (Mutation("from_crash", "Snooze(D, F, C)", "Snooze(D, F)"),),
    ),
    Mutant(
        "write down ticks that are not confirmed as sent",
        ("tests/unit/scheduler/test_ticks.py",),
        (Mutation("Ticks.lagging", "return X", "return {}"),),
    ),
    Mutant(
        "start from the oldest token",
        ("tests/unit/scheduler/test_token.py", "tests/unit/scheduler/test_election.py"),
        (Mutation("latest_of", "A >= B", "A <= B"),),
    ),
    Mutant(
        "acknowledge a command although its token was refused",
        ("tests/unit/scheduler/test_leader.py",),
        (Mutation("Leader.on_token_ended", "E is not None", "False"),),
    ),
    Mutant(
        "send a tick with a new id each time",
        ("tests/unit/schedules/test_tick.py",),
        (Mutation("tick_message", "tick_id(A, B, C, D)", "new_id()"),),
    ),
    Mutant(
        "take new work of a bounded queue before what it accepted",
        ("tests/unit/worker/test_start_queue.py",),
        (Mutation("DueFirst.put", "D.channel.goes_first", "not D.channel.goes_first"),),
    ),
    Mutant(
        "have messages that are due meet the bound of their queue",
        ("tests/unit/routing/test_topology.py",),
        (Mutation("work_queue", "due = due_queue(N)", "due = N"),),
    ),
    Mutant(
        "send retries to the queue beside the bounded one by its own name",
        ("tests/unit/broker/test_consumer.py",),
        (Mutation("ConsumerChannel.on_delivery", "self.work_queue", "self.queue"),),
    ),
    Mutant(
        "dead-letter at once what newer code has sent",
        ("tests/unit/worker/test_unknown_task_counts.py",),
        (Mutation("_deferred_or_dead", "W is None", "True"),),
    ),
    Mutant(
        "let a message that no worker knows wait for ever",
        ("tests/unit/policies/test_unknown_wait.py",),
        (Mutation("next_wait", "W >= P", "False"),),
    ),
    Mutant(
        "run a message of a newer version as if it were of this one",
        ("tests/unit/worker/test_unknown_task_counts.py",),
        (Mutation("TaskExecutor.admit", "A > B", "False"),),
    ),
)
