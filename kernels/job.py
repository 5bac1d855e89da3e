"""What a job for a small array holds (see `small.py`), each a whole number: none of it needs numba.

At which word of an array object the address of its elements is; how many channels; the bytes of x. Then of two kernels,
the one that measures and the one that writes: its C function, where its slots begin in the job and how many they are,
and which of them are for the arrays named in ARRAYS. Then the slots.
"""

DATA, CHANNELS, BYTES, MEASURE, WRITE, SLOTS = 0, 1, 2, 3, 10, 18
ARRAYS = {MEASURE: ("x", "count", "mean", "m2"), WRITE: ("x", "out", "mean", "scale", "shift")}
NOTHING, DONE, UNLEARNED = 0, 1, 2  # what is done: all but the running average, where the batch is not finite
