"""What a BatchNorm learns from a small batch, in one call: NumPy takes longer to begin each operation than to do it."""

import numpy as np

from .jit import uncontracted


@uncontracted
def exponential(count, mean, var, n, batch_mean, m2, free, momentum, new):
    """`numbabn.averages.exponential` to the last bit; new: (3, channels), for count, mean and var.

    n: values of each channel in the batch; free: the degrees of freedom that m2 is divided by. Returns whether
    all of the batch is finite.
    """
    rest = 1.0 - momentum
    finite = True
    for c in range(mean.size):
        new[0, c] = count[c] + n
        new[1, c] = rest * mean[c] + momentum * batch_mean[c]
        new[2, c] = rest * var[c] + momentum * (m2[c] / free)
        finite &= abs(batch_mean[c]) < np.inf and abs(m2[c]) < np.inf
    return finite
