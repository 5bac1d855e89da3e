"""What a job holds (see `whole.py`), each a whole number: none of it needs numba.

First what is below, then forms of kernels, then the slots of these, the lengths and the strides. A form: the C
function, where its slots begin in the job, how many they are, whether the last items come first, where helpers find it
in the memory that they share, and which slots are for what PLACES names.
"""

DATA = 0  # at which word of an array object the address of its elements is
CHANNELS = 1  # how many
BYTES = 2  # from the first element to the end of the last one, of the array that reaches furthest
PARTS = 3  # of the moments
ROW = 4  # the longest row of slots
# What arrays have to be: see `fits.py`.
ARRAY = 5  # the type of arrays, by its address, as the dtypes
DOUBLE, SINGLE = 6, 7  # the dtypes float64 and float32
DIMENSIONS, LENGTHS = 8, 9  # of the channels: how many, and where they begin in the job
STRIDES = 10  # where those of the result begin in the job; 0 where all arrays are C-contiguous
IN_PLACE = 11  # whether the result may be x

FUNCTION, BEGIN, LENGTH, BACKWARDS, PLACE, WHERE = range(6)  # of a form
MEASURE, MERGE, WRITE, BOTH, SUMS, INPUTS, SLOTS = 12, 22, 31, 42, 56, 66, 79  # where the forms begin, and the slots
PLACES = {
    MEASURE: ("x", "count", "mean", "m2"),
    MERGE: ("count", "mean", "m2"),
    WRITE: ("x", "out", "mean", "gamma", "beta"),
    BOTH: ("x", "out", "count", "mean", "m2", "gamma", "beta", "eps"),
    SUMS: ("dy", "x", "mean", "sums"),
    INPUTS: ("dy", "x", "out", "mean", "a", "b", "k"),
}
LEARN = 10  # arguments of a kernel that learns: see `learn.py`
# What is done: all but the running average, where the batch is not finite; a part, for want of memory.
NOTHING, DONE, UNLEARNED, LOST = 0, 1, 2, 3
# The header of an array object, from the word with the address of its elements on, as NumPy's C interface has it.
TYPE, NDIM, SHAPE, STEPS, DTYPE, FLAGS = -1, 1, 2, 3, 5, 6
HALF = (1 << 32) - 1  # of the word that NDIM and FLAGS have
CONTIGUOUS, ALIGNED, WRITABLE = 0x0001, 0x0100, 0x0400  # flags
