"""Two small real data sets; README.md beside this file tells where they come from."""

from importlib.resources import files
from pathlib import Path

NAMES = ("spectra.npy", "photographs.npy")


def path(name: str) -> Path:
    """Where a shipped file lies.

    Parameters
    ----------
    name : {"spectra.npy", "photographs.npy"}

    Returns
    -------
    Path

    Examples
    --------
    >>> import numpy as np
    >>> from numbabn import data
    >>> np.load(data.path("spectra.npy")).shape
    (250, 1047)
    """
    if name not in NAMES:
        raise ValueError(f"there is no data set {name!r}; expected one of {', '.join(map(repr, NAMES))}")
    return Path(str(files(__name__) / name))
