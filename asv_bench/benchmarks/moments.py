"""Mean and variance of each channel, in one pass over memory."""

import numbabn

from . import LAYOUTS, Timed, array, check_moments


class Layouts(Timed):
    """float32 in every order of memory."""

    params = tuple(LAYOUTS)
    param_names = ("layout",)

    def prepare(self, layout):
        self.x, self.axis = array(layout)
        check_moments(numbabn.moments(self.x, axis=self.axis), self.x, self.axis)

    def time_moments(self, layout):
        numbabn.moments(self.x, axis=self.axis)


class DTypes(Timed):
    """Other types, which the kernels convert as they read."""

    params = ("float64", "float16", "bfloat16", "uint8", "int32", ">f4")
    param_names = ("dtype",)

    def prepare(self, dtype):
        self.x, self.axis = array("rows-64", dtype)
        check_moments(numbabn.moments(self.x, axis=self.axis), self.x, self.axis)

    def time_moments(self, dtype):
        numbabn.moments(self.x, axis=self.axis)


class Threads(Timed):
    """One array, by the number of threads."""

    params = (("rows-64", "nchw"), (1, 2))
    param_names = ("layout", "threads")

    def prepare(self, layout, threads):
        self.x, self.axis = array(layout)
        with numbabn.num_threads(threads):
            check_moments(numbabn.moments(self.x, axis=self.axis), self.x, self.axis)

    def time_moments(self, layout, threads):
        with numbabn.num_threads(threads):
            numbabn.moments(self.x, axis=self.axis)
