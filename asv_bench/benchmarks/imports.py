"""Imports and cold start, each in a new process. Measured is the code alone, not the start of Python."""

import subprocess
import sys
import textwrap

IMPORTS = {
    "numpy": "import numpy",
    "numbabn": """
        import numbabn, sys
        assert "numba" not in sys.modules
        """,
    "BatchNorm": """
        import numbabn
        assert numbabn.BatchNorm(3).channels == (3,)
        """,
}
FIRST = {
    "moments": """
        import numpy as np, numbabn
        m = numbabn.moments(np.arange(12, dtype="float32").reshape(4, 3))
        assert m.mean.tolist() == [4.5, 5.5, 6.5]
        """,
    "normalize": """
        import numpy as np, numbabn
        y = numbabn.normalize(np.full((4, 3), 7, dtype="float32"), mean=3, var=4, eps=0)
        assert (y == 2).all()
        """,
    "training": """
        import numpy as np, numbabn
        bn = numbabn.BatchNorm(1, eps=0)
        y = bn(np.array([[1], [3]], dtype="float32"), training=True)
        assert y.tolist() == [[-1], [1]] and bn.num_batches == 1
        """,
}
# Before numbabn is imported: a kernel cache that holds nothing, and is gone afterwards.
EMPTY_CACHE = """
    import atexit, os, tempfile
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    os.environ["NUMBA_CACHE_DIR"] = folder.name
    """


class ImportTime:
    """What a program pays before it computes anything; NumPy alone for comparison."""

    params = tuple(IMPORTS)
    param_names = ("what",)

    def timeraw_import(self, what):
        return IMPORTS[what]


class FirstCall:
    """From the import to the first answer, with the kernels in the cache on disk."""

    params = tuple(FIRST)
    param_names = ("verb",)

    def setup(self, verb):
        code = textwrap.dedent(FIRST[verb])
        subprocess.run([sys.executable, "-c", code], check=True)

    def timeraw_warm_cache(self, verb):
        return FIRST[verb]


class ColdCall:
    """From the import to the first answer, with nothing in the cache: all that this call needs is compiled."""

    params = tuple(FIRST)
    param_names = ("verb",)
    number, repeat, warmup_time = 1, 3, 0

    def timeraw_cold_cache(self, verb):
        return FIRST[verb], EMPTY_CACHE
