"""What a desk holds (see `boxes.py`), each a whole number: none of it needs numba.

First how boxes are numbered, by axes of which there is more than one: COUNT boxes along an axis, the last of which is
another kind of box where BIT is not 0. For each kind, a sum of such bits, a desk says where it has what is done: lists
of moves, of copies, of calls, and of copies back. Strides are bytes, from box to box or from element to element.
"""

AXES, KINDS, HEAD = range(3)  # how many axes there are, where the kinds begin, and where the axes do: (COUNT, BIT)
COUNT, BIT, AXIS = range(3)  # of an axis, which takes AXIS numbers

# What is done: how many of each there are, and where they begin.
MOVES, FIRST_MOVE, COPIES, FIRST_COPY, CALLS, FIRST_CALL, BACK, FIRST_BACK, DONE = range(9)
# A move: which number of the desk is to be an address, that of the first box, and the strides of the axes.
SLOT, ADDRESS, BOX_STRIDES = range(3)
# A copy: from which address, of the first box, to which, of elements of how many bytes, which are turned around or not;
# the strides of the axes, and from outermost to innermost the loops over a box. ALL: how many numbers it takes.
ARRAY, SCRATCH, SIZE, TURNED, LOOPS, ALL, STRIDES = range(7)
TIMES, ARRAY_STEP, SCRATCH_STEP, LOOP = range(4)  # of a loop, which takes LOOP numbers
FUNCTION, SLOTS, ROW = range(3)  # of a call: the C function, how many slots it has, and where they begin
