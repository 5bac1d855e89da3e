"""Imports and cold start, each in a new process."""

import numbabn


class ImportTime:
    """What a program pays before it computes anything."""

    def timeraw_numpy(self):
        """NumPy alone, for comparison."""
        return "import numpy"

    def timeraw_numbabn(self):
        return """
        import numbabn, sys
        assert "numba" not in sys.modules
        """

    def timeraw_batchnorm(self):
        """The class made, nothing computed yet."""
        return """
        import numbabn
        assert numbabn.BatchNorm(3).channels == (3,)
        """


class FirstCall:
    """From the start of Python to the first answer, with the kernels in the cache on disk."""

    def setup(self):
        numbabn.warmup(["float32"])

    def timeraw_moments(self):
        return """
        import numpy as np, numbabn
        m = numbabn.moments(np.arange(12, dtype="float32").reshape(4, 3))
        assert m.mean.tolist() == [4.5, 5.5, 6.5]
        """

    def timeraw_normalize(self):
        return """
        import numpy as np, numbabn
        y = numbabn.normalize(np.full((4, 3), 7, dtype="float32"), mean=3, var=4, eps=0)
        assert (y == 2).all()
        """

    def timeraw_training(self):
        return """
        import numpy as np, numbabn
        bn = numbabn.BatchNorm(1, eps=0)
        y = bn(np.array([[1], [3]], dtype="float32"), training=True)
        assert y.tolist() == [[-1], [1]] and bn.num_batches == 1
        """
