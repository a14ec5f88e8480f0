"""
Whether an exception may be raised in a thread right now, by its frames.

Decides where it would leave a lock held forever (just after a call has acquired it, and in the code of logging, importlib and
threading), and where Python would ignore it. `limits` decides which thread is interrupted, and when.
"""

from __future__ import annotations

import dis
import gc
import os
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import lru_cache
from types import CodeType, FrameType

from amqpworker.log.writer import LineHandler

ACQUIRES = frozenset({"acquire", "acquire_lock", "__enter__", "flock", "lockf"})
"""Names of calls that return with a lock held. The bytecode of `with lock:` cannot be interrupted between that and its body."""

LOCKING = frozenset({*ACQUIRES, "release", "release_lock", "__exit__", "_acquire_restore", "_release_save"})
"""Names of functions in Python that are part of a lock: an exception at their first line leaves it held as well."""

WAITS = frozenset({"wait", "join", "_wait_for_tstate_lock"})
"""Functions of `threading` that wait by acquiring a lock of their own, and restore everything whatever is raised then."""

AT_FORK = frozenset({"_note_fork", "block", "unblock", "_before_fork", "_after_in_parent"})
"""Functions of ours that Python calls around a fork, which ignores whatever is raised there and forks nevertheless."""

FINALIZERS = frozenset({"__del__", "_remove", "remove"})
"""Functions that Python calls when an object is freed, ignoring what they raise."""

WEAK = frozenset({"weakref", "_weakrefset"})
"""The modules in which `remove` and `_remove` are such functions."""

CALLS = frozenset({"PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX"})
JUMPS = frozenset(dis.hasjrel + dis.hasjabs)
MIN_INTERVAL = 1e-6


class Safety(Enum):
    """
    Whether an exception may be raised at the present line of a thread.

    * `SAFE`: it may.
    * `DISRUPTIVE`: it would do no harm to locks, and cut off something that usually ends soon: a log line, an import, code of a
      lock or of ours, or what Python calls on its own and whose exceptions it ignores: a finalizer, a callback of `gc`.
    * `UNSAFE`: it may leave a lock held forever.
    """

    SAFE = 0
    DISRUPTIVE = 1
    UNSAFE = 2


def safety_at(thread: int, never: AbstractSet[CodeType] = frozenset()) -> Safety:
    """
    Return whether an exception may be raised in a thread now: never in the code of `never`, nor if the thread has just moved.

    The caller has to act at once: the thread cannot move while the caller holds the interpreter's lock.
    """
    current = sys._current_frames  # noqa: SLF001 - documented, and made for this
    frame = current().get(thread)
    if frame is None:
        return Safety.UNSAFE
    position = frame.f_lasti
    found = Safety.UNSAFE if frame.f_code in never else safety_of(frame)
    return found if current().get(thread) is frame and frame.f_lasti == position else Safety.UNSAFE


def wait_and_preempt(seconds: float) -> None:
    """
    Sleep, then take the interpreter's lock from the thread that runs, wherever it is.

    By default a thread releases that lock when it next waits for something. A thread that acquires locks or writes lines all
    the time would then always be found at one of these places.
    """
    interval = sys.getswitchinterval()
    if interval > MIN_INTERVAL:
        _intervals[:] = [interval]
        sys.setswitchinterval(MIN_INTERVAL)
    # Else another watcher of this program does this now: its interval must not be taken for the one to restore.
    try:
        time.sleep(seconds)
    finally:
        if interval > MIN_INTERVAL:
            sys.setswitchinterval(interval)


_intervals: list[float] = []
"""The interval of thread switches that was replaced last, if any was."""


def _restore_interval() -> None:
    """In a forked child: the thread that would restore the interval exists only in its parent."""
    if _intervals and sys.getswitchinterval() <= MIN_INTERVAL:
        sys.setswitchinterval(_intervals[0])


os.register_at_fork(after_in_child=_restore_interval)


def safety_of(frame: FrameType) -> Safety:
    """Return whether an exception may be raised at a frame, the innermost one of its thread."""
    module, code = _module_of(frame), frame.f_code
    acquires = frame.f_lasti in acquiring(code)
    waits = module == "threading" and code.co_name in WAITS and (acquires or code.co_name == "join")
    if not waits and (module == "threading" or acquires):
        return Safety.UNSAFE
    # Ours, such as that of a send, keeps accounts that others rely on.
    disruptive = module.startswith("amqpworker.")
    in_module_body = False
    ignored = _codes_of_gc_callbacks()
    for outer in outwards(frame):
        module, code = _module_of(outer), outer.f_code
        if code in ignored or _finalizes(module, code):
            return Safety.DISRUPTIVE
        if code in SINKS:
            return Safety.DISRUPTIVE
        if code.co_name in AT_FORK and module.startswith("amqpworker."):
            return Safety.UNSAFE
        if module == "logging" or module.startswith("logging."):
            return Safety.UNSAFE
        if code.co_filename.startswith("<frozen importlib"):
            return Safety.DISRUPTIVE if in_module_body else Safety.UNSAFE
        in_module_body = in_module_body or code.co_name == "<module>"
        # A semaphore that waits for its turn has taken nothing yet.
        disruptive = disruptive or (code.co_name in LOCKING and not (waits and module == "threading"))
    return Safety.DISRUPTIVE if disruptive else Safety.SAFE


def _codes_of_gc_callbacks() -> frozenset[object]:
    # https://docs.python.org/3/library/gc.html#gc.callbacks
    return frozenset(getattr(one, "__code__", None) for one in list(gc.callbacks)) - {None}


def _finalizes(module: str, code: CodeType) -> bool:
    return code.co_name in FINALIZERS and (code.co_name == "__del__" or module in WEAK)


SINKS = frozenset({LineHandler.emit.__code__})
"""Where a line of ours is written: what logging holds then is released in a `finally`, and nothing is swallowed."""


def is_inside(thread: int, code: CodeType) -> bool:
    """Return whether a thread is in a function with this code, or in what it has called."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - as above
    return frame is not None and any(outer.f_code is code for outer in outwards(frame))


def outwards(frame: FrameType) -> Iterator[FrameType]:
    """Yield the frames from the innermost to the outermost one."""
    found: FrameType | None = frame
    while found is not None:
        yield found
        found = found.f_back


def _module_of(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__", "")
    return name if isinstance(name, str) else ""


@lru_cache(maxsize=256)
def acquiring(code: CodeType) -> frozenset[int]:
    """Return the offsets of a function's instructions that call something whose name means that it acquires a lock."""
    if not ACQUIRES.intersection((*code.co_names, *code.co_varnames, *code.co_freevars)):
        return frozenset()
    instructions = [one for one in dis.get_instructions(code) if one.opname != "CACHE"]
    return frozenset(
        one.offset
        for number, one in enumerate(instructions)
        if one.opname in CALLS and _called(instructions, number) in ACQUIRES
    )


def _called(instructions: list[dis.Instruction], number: int) -> object:
    """
    Return the name of what an instruction calls, as far as the instructions before it show that.

    They are followed backwards to the one after which the stack was as high as it was when the callable had been loaded.
    """
    call = instructions[number]
    if call.opname == "CALL_FUNCTION_EX":
        surplus = 1 + ((call.arg or 0) & 1)
    else:
        surplus = (call.arg or 0) + (call.opname == "CALL_KW")
    before = list(reversed(instructions[:number]))
    while before and before[0].opname in {"PRECALL", "KW_NAMES"}:
        del before[0]  # they belong to the call itself
    for position, one in enumerate(before):
        if one.opcode in JUMPS:
            # One argument or another is loaded, and the stack does not show what is before both: the line does.
            line = call.positions and call.positions.lineno
            alike = [early for early in before[position:] if early.positions and early.positions.lineno == line]
            return next((early.argval for early in alike if early.argval in ACQUIRES), None)
        if surplus <= 0 and one.opname != "PUSH_NULL":
            return one.argval
        surplus -= dis.stack_effect(one.opcode, one.arg, jump=False)
    return None


def where(thread: int) -> str:
    """Return the innermost line of Python that a thread is at, "" if it has ended."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - as above
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
