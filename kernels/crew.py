"""One call by several threads: who takes which items of a kernel is agreed on in memory, without Python.

The caller publishes a phase (a kernel, a row of its slots, how many items there are), takes items itself, and waits for
those that others have taken. Helpers come when they wake, or never; they leave when the call is closed, or nothing has
been published for some time. The memory is theirs too: whoever gives it keeps it until the last of them has left.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .flat import place_of
from .jit import helper, kernel
from .job import BACKWARDS, FUNCTION, LENGTH, PLACE
from .memory import at
from .objects import call
from .operation import operation
from .room import copy, free_room, is_missing, new_room, seen_as
from .shared import CLOSED, ENDED, FAILED, ITEMS, KERNEL, LAST_FIRST, LONGEST, NOW, ROW, SLOTS, TEAM, TURN

PATIENCE = 20_000  # looks at what nobody changes before a helper leaves: about a millisecond
BRIEFLY = 2000  # looks before a core is offered to others


def added(words, i, n):
    """Add to a word at once; what it was."""
    before = words[i]
    words[i] = before + n
    return before


def seen(words, i):
    """A word that another thread has published, and all that it has written before."""
    return words[i]


def publish(words, i, value):
    """Write a word after all that has been written before."""
    words[i] = value


def pause():
    """Tell the processor that this thread looks at one word again and again."""


def offer():
    """Let another thread have this core."""


@operation(added)
def _added(words, i, n):
    def codegen(context, builder, signature, args):
        place = place_of(builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), codegen


@operation(seen)
def _seen(words, i):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(place_of(builder, signature.args[0], *args), "acquire", 8)

    return types.int64(words, types.intp), codegen


@operation(publish)
def _publish(words, i, value):
    def codegen(context, builder, signature, args):
        place = place_of(builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), codegen


@operation(pause)
def _pause():
    def codegen(context, builder, signature, args):
        if llvm.get_process_triple().startswith("x86_64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@operation(offer)
def _offer():
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@helper
def _bound(items, team, k):
    """Where turn k of the items begins: each round of a turn for all of the team takes half of what is left."""
    left, after = items >> (k // team), items >> (k // team + 1)
    return items - left + (left - after) * (k % team) // team


@helper
def _take(phase, slots):
    """Items of a phase until there are none, by a row of slots that is this thread's own."""
    items, team, lo = phase[ITEMS], phase[TEAM], 0
    while lo < items:
        k = added(phase, TURN, 1)
        lo, hi = _bound(items, team, k), _bound(items, team, k + 1)
        if lo < hi:
            backwards = phase[LAST_FIRST] != 0
            slots[0] = items - hi if backwards else lo
            slots[1] = items - lo if backwards else hi
            if call(phase[KERNEL], slots) == 0:
                publish(phase, FAILED, 1)
            added(phase, ENDED, hi - lo)


@helper
def together(crew, helpers, form, slots):
    """All items of the form of a kernel (see `job.py`), with whoever comes; whether there was memory for them."""
    phase, items, row = at(crew, form[PLACE]), slots[1], form[LENGTH]
    phase[ITEMS], phase[KERNEL], phase[ROW] = items, form[FUNCTION], row
    phase[TEAM], phase[LAST_FIRST] = helpers + 1, form[BACKWARDS]
    copy(slots, 0, phase, SLOTS, row)
    publish(crew, NOW, form[PLACE])
    _take(phase, slots)
    looks = 0
    while seen(phase, ENDED) < items:
        pause()
        looks += 1
        if looks > BRIEFLY:
            offer()
    return phase[FAILED] == 0


@kernel
def help(crew):
    """Take a share of a call, as long as there is something to take."""
    room = new_room(LONGEST)
    if is_missing(room):
        return False
    slots = seen_as(room, crew, LONGEST)
    last = looks = 0
    while looks < PATIENCE and seen(crew, CLOSED) == 0:
        now = seen(crew, NOW)
        if now == last:
            pause()
            looks += 1
        else:
            phase = at(crew, now)
            copy(phase, SLOTS, slots, 0, phase[ROW])
            _take(phase, slots)
            last, looks = now, 0
    free_room(room)
    return True
