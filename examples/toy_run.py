"""One object, told at each call whether it trains: the toy run that this project started from.

Two features with means 0 and 100 are learned over 100 training steps of 4 samples; then ten single
samples are normalized in inference and compared with the formula done by hand. Saving and loading gives
the same inference, and no inference changes a bit of the state.

    python examples/toy_run.py
"""

import tempfile
from pathlib import Path

import numpy as np

import numbabn


def main() -> None:
    np.set_printoptions(precision=4, suppress=True)
    rng = np.random.default_rng(1006)
    bn = numbabn.BatchNorm(2, decay=0.9, eps=1e-3, gamma=1.0, beta=0.0)

    def run(batch: np.ndarray, is_training: np.ndarray) -> np.ndarray:
        """The same object in both modes; the mode is a run-time value, here a 0-d boolean array."""
        return bn(batch, training=is_training)

    for step in range(1, 101):
        run(rng.normal([0.0, 100.0], 1.0, (4, 2)), np.array(True))
        if step in (1, 10, 100):
            print(f"after {step:3d} training steps: mean {bn.running_mean}, var {bn.running_var}")

    learned = bn.state_dict()
    print("\ninference, sample by sample, beside (x - mean) / sqrt(var + eps) by hand:")
    samples = rng.normal([0.0, 100.0], 1.0, (10, 2))
    for x in samples:
        y = run(x[None, :], np.array(False))[0]
        by_hand = (x - bn.running_mean) / np.sqrt(bn.running_var + bn.eps)
        assert np.allclose(y, by_hand, rtol=1e-12, atol=1e-12)
        print(f"  x {x}  ->  y {y}  by hand {by_hand}")

    unchanged = all(np.array_equal(value, learned[name]) for name, value in bn.state_dict().items())
    assert unchanged
    print("\nrunning averages, gamma and beta after inference: not a bit has changed")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bn.npz"
        bn.save(path)
        restored = numbabn.BatchNorm.load(path)
    assert restored == bn
    assert np.array_equal(restored(samples), bn(samples))
    print("saved and loaded: the same state, the same inference")
    print(bn)


if __name__ == "__main__":
    main()
