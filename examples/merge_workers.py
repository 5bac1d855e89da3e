"""Statistics of data that lies in several places: each worker reduces its part, the parts merge exactly.

python examples/merge_workers.py
"""

from concurrent.futures import ProcessPoolExecutor

import numpy as np

import numbabn


def part(seed: int) -> numbabn.Moments:
    """What one worker sees: images as (N, C, H, W), a different number for each worker."""
    rng = np.random.default_rng(seed)
    return numbabn.moments(rng.normal(seed, 1.0, (10 + seed, 3, 32, 32)).astype(np.float32), axis=1)


def main() -> None:
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(part, range(5)))
    together = numbabn.Moments.merge_all(parts)
    print(together)

    everything = np.concatenate(
        [np.random.default_rng(s).normal(s, 1.0, (10 + s, 3, 32, 32)).astype(np.float32) for s in range(5)]
    )
    at_once = numbabn.moments(everything, axis=1)
    print("largest relative difference from all data at once:", np.abs(together.var() / at_once.var() - 1).max())
    assert np.allclose(together.var(), at_once.var(), rtol=1e-13)


if __name__ == "__main__":
    main()
