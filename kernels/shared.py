"""The memory that a caller and its helpers share (see `crew.py`), by its words: none of it needs numba.

Whether the call is closed, which phase is under way, and the phases. Of each the kernel, the length of its slots, how
many items there are and for how many threads, whether the last come first, whether memory was missing, whose turn is
next, how many items have ended, and the slots. What several threads write has a line of its own.
"""

CLOSED, NOW, FIRST, PHASE, PHASES = 0, 1, 16, 96, 3
WORDS = FIRST + PHASES * PHASE
KERNEL, ROW, ITEMS, TEAM, LAST_FIRST, FAILED, TURN, ENDED, SLOTS = 0, 1, 2, 3, 4, 5, 16, 32, 48  # of a phase
LONGEST = PHASE - SLOTS  # slots that a kernel may have
