"""A BatchNorm with a flavour gives what that system gives: outputs and running values, over many steps."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import record_flavours
from hypothesis import given
from hypothesis import strategies as st
from record_flavours import CHANNELS, DATA, RUNS

import numbabn
from numbabn import BatchNorm, flavours

ALL = [(name, dtype) for name, run in RUNS.items() for dtype in run.dtypes]
RECORDED = [(name, dtype) for name, dtype in ALL if (DATA / f"{name}-{dtype}.npz").exists()]
DOCS = Path(__file__).parents[1] / "docs" / "flavours.md"


def of_run(name, **more):
    run = RUNS[name]
    return BatchNorm(**{"channels": CHANNELS, "flavour": run.flavour, **run.options, **more})


def assert_same(name, dtype, batches, test, y, mean, var, y_test):
    """A BatchNorm trained on the batches agrees with a system up to its rounding.

    A system that computes with roundoff u has a mean off by some u * max|x|, a variance by some u * max|x|^2, as with
    E[x^2] - E[x]^2, and an output by what these make of it.
    """
    bn = of_run(name)
    u = 16 * np.finfo(RUNS[name].precision or dtype).eps
    axes = bn._options.axes_of(test)
    reduced = tuple(d for d in range(test.ndim) if d not in axes)

    def assert_output(ours, theirs, x, mean, var, largest):
        assert ours.dtype == dtype
        gamma, beta, mean, var, largest = (
            np.expand_dims(np.broadcast_to(p, bn.channels), reduced)
            for p in (1 if bn.gamma is None else bn.gamma, 0 if bn.beta is None else bn.beta, mean, var, largest)
        )
        std = np.sqrt(var + bn.eps)
        std = np.where(std > 1e-9 * np.abs(mean), std, 1)
        deviation = np.abs(x - mean) / std
        off = largest / std + deviation * largest**2 / std**2 + np.abs(mean) / std + deviation
        allowed = u * (np.abs(gamma) * off + np.abs(beta))
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        error = np.abs(ours.astype(np.float64) - theirs)
        assert not (error > allowed).any(), f"off by {np.nanmax(error / allowed):.3g} times what is allowed"

    for step, x in enumerate(batches):
        ours, wide = bn(x, training=True), x.astype(np.float64)
        largest = np.maximum(np.nanmax(np.abs(wide), axis=reduced), np.abs(bn.running_mean))
        by = np.nanmean(wide, axis=reduced), np.nanvar(wide, axis=reduced)
        if bn.normalize_by == "running":
            by = bn.running_mean, bn.running_var
        assert_output(ours, y[step], wide, *by, largest)
        assert (np.abs(bn.running_mean - mean[step]) <= u * largest).all(), step
        assert (np.abs(bn.running_var - var[step]) <= u * (largest**2 + bn.running_var)).all(), step
    before = bn.copy()
    assert_output(bn(test), y_test, test.astype(np.float64), bn.running_mean, bn.running_var, largest)
    assert bn == before


@pytest.mark.parametrize(("name", "dtype"), RECORDED, ids=lambda value: value)
def test_as_the_system_gave_when_it_was_recorded(name, dtype):
    with np.load(DATA / f"{name}-{dtype}.npz") as kept:
        assert json.loads(str(kept["versions"]))
        assert len(kept["x"]) >= 10
        assert_same(name, dtype, *(kept[key] for key in ("x", "x_test", "y", "mean", "var", "y_test")))


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize(("name", "dtype"), [run for run in ALL if run not in RECORDED], ids=lambda value: value)
def test_as_the_system_itself(name, dtype, seed):
    if not record_flavours.installed(name):
        pytest.skip("not installed")
    assert_same(name, dtype, *record_flavours.trained(name, dtype, seed))


def test_every_row_is_compared():
    assert {run.flavour for run in RUNS.values()} == set(flavours.NAMES)
    live = {RUNS[name].flavour for name, dtype in ALL if (name, dtype) not in RECORDED}
    assert live == {"torch", "keras", "onnx", "sklearn"}  # what tests install
    assert {file.stem for file in DATA.glob("*.npz")} == {f"{name}-{dtype}" for name, dtype in RECORDED}


@pytest.mark.parametrize("row", flavours.ROWS, ids=lambda row: row.name)
def test_a_row_gives_the_defaults(row):
    bn = BatchNorm(4, flavour=row.name, **({"decay": 0.9} if row.name == "haiku" else {}))
    assert bn.flavour == row.name
    for option in ("eps", "ddof", "nonfinite", "single", "constant", "normalize_by", "prior", "average"):
        assert getattr(bn, option) == getattr(row, option), option
    assert (bn.gamma is not None) == row.gamma
    assert (bn.beta is not None) == row.beta
    assert row.gamma is False or (bn.gamma == 1).all()
    assert row.beta is False or (bn.beta == 0).all()
    assert bn.axis == ((1,) if row.axis is None else row.axis)
    if row.factor is not None:
        assert (bn.decay if row.weighs == "old" else bn.momentum) == pytest.approx(row.factor, rel=1e-15)
    assert (bn.running_mean == row.prior[1]).all()
    assert (bn.running_var == row.prior[2]).all()
    assert (bn.count == row.prior[0]).all()


def test_single_options_override_a_row():
    given = {
        "axis": -1,
        "momentum": 0.25,
        "eps": 0.5,
        "ddof": 0,
        "nonfinite": "skip",
        "single": "beta",
        "constant": "center",
        "normalize_by": "running",
        "prior": (0, 1, 2),
    }
    bn = BatchNorm(3, flavour="torch", gamma=None, beta=[1, 2, 3], **given)
    assert {name: getattr(bn, name) for name in given} == given
    assert bn.gamma is None
    assert bn.beta.tolist() == [1, 2, 3]
    assert bn.flavour == "torch"


def test_which_average_a_flavour_means():
    assert BatchNorm(3, flavour="torch", momentum=None).average == "equal"
    assert BatchNorm(3, flavour="keras", momentum=None).average == "cumulative"
    assert BatchNorm(3, flavour="sklearn").average == "cumulative"
    assert BatchNorm(3, flavour="sklearn", momentum=0.5).average == "exponential"
    assert BatchNorm(3, flavour="sklearn", average="mixture").momentum == 0.1
    assert BatchNorm(3, flavour="keras", average="cumulative").momentum is None
    assert BatchNorm(3, flavour="haiku", decay=0.75).average == "debiased"
    assert BatchNorm(3, flavour="torch", average="window", window=2).window == 2
    assert BatchNorm(3, flavour="torch").momentum == 0.1
    assert BatchNorm(3).flavour is None


def test_an_unknown_flavour_is_refused():
    with pytest.raises(ValueError, match="expected one of 'tf_contrib', 'tf_contrib_fused', 'keras'"):
        BatchNorm(3, flavour="caffe")
    with pytest.raises(TypeError, match="`flavour` is 3"):
        BatchNorm(3, flavour=3)


@pytest.mark.parametrize("name", ["keras", "flax", "onnx"])
def test_a_momentum_that_means_the_opposite_there_is_refused(name):
    with pytest.raises(ValueError, match=f"flavour='{name}': here it weighs the new batch.*give `decay`"):
        BatchNorm(3, flavour=name, momentum=0.99)
    assert BatchNorm(3, flavour=name, decay=0.75).momentum == 0.25


def test_haiku_has_no_default_decay():
    with pytest.raises(ValueError, match="no default for its decay_rate; give it as `decay`"):
        BatchNorm(3, flavour="haiku")


def test_the_fused_epsilon_has_a_floor():
    assert BatchNorm(3, flavour="tf_contrib_fused", eps=0).eps == 1.001e-5
    assert BatchNorm(3, flavour="tf_contrib_fused", eps=1e-4).eps == 1e-4
    assert BatchNorm(3, flavour="tf_contrib", eps=0).eps == 0


@pytest.mark.parametrize("name", flavours.NAMES)
def test_a_flavour_is_saved_copied_and_pickled(name, tmp_path):
    bn = BatchNorm(4, flavour=name, **({"decay": 0.9} if name == "haiku" else {}))
    bn(np.random.default_rng(0).normal(3, 2, (16, 4)), training=True)
    bn.save(tmp_path / "bn.npz")
    for twin in (BatchNorm.load(tmp_path / "bn.npz"), bn.copy(), pickle.loads(pickle.dumps(bn))):
        assert twin == bn
        assert twin.flavour == name
        assert twin._options == bn._options
    bn.reset()
    assert (bn.count == bn.prior[0]).all()


def test_a_file_with_a_flavour_that_is_not_known_is_refused(tmp_path):
    bn = BatchNorm(3)
    object.__setattr__(bn._options, "flavour", "caffe")
    bn.save(tmp_path / "bn.npz")
    with pytest.raises(numbabn.StateError, match="'caffe'"):
        BatchNorm.load(tmp_path / "bn.npz")


def test_scikit_learn_without_its_poison():
    """A column without a value in one batch is NaN there for good (scikit-learn 1.9.1); here it keeps what it had."""
    bn, seen = BatchNorm(2, flavour="sklearn"), np.array([[1.0, 2.0], [3.0, 8.0]])
    bn.update(seen)
    bn.update([[np.nan, 5.0], [np.nan, 5.0]])
    assert bn.running_mean.tolist() == [2, 5]
    assert bn.count.tolist() == [2, 4]
    before = bn.copy()
    with pytest.raises(ValueError, match="infinity in channel 1"):
        bn([[1.0, np.inf]], training=True)
    assert bn == before


# What the flavours differ in, as options of their own.


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_single_raise_refuses_one_value_per_channel_and_changes_nothing(shape, out):
    bn = BatchNorm(3, axis=1, single="raise")
    bn(np.random.default_rng(0).normal(size=(8, 3)), training=True)
    before, x, y = bn.copy(), np.ones(shape), np.full(shape, 7.0)
    with pytest.raises(ValueError, match=r"one value in channels 0, 1 and 2.*single='beta'"):
        bn(x, training=True, out=y if out else None)
    with pytest.raises(ValueError, match="one value"):
        bn.update(x)
    assert bn == before
    assert (y == 7).all()
    bn(x)  # inference has no need of a variance
    bn(np.ones((1, 3, 2)), training=True)
    bn(np.ones((0, 3)), training=True)


def test_torch_refuses_the_same():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        torch.nn.BatchNorm1d(3)(torch.ones(1, 3))
    with pytest.raises(ValueError, match="one value"):
        BatchNorm(3, flavour="torch")(np.ones((1, 3)), training=True)


@pytest.mark.parametrize("axis", [-1, 0])
def test_constant_center_does_not_divide_what_does_not_vary(axis):
    x = np.array([[0.1, 3.0, 1e8], [0.1, 5.0, 1e8], [0.1, 7.0, 1e8]])
    new = np.array([[0.35, 5.0, 1e8 + 2]])
    bn = BatchNorm(3, axis=axis, momentum=None, constant="center", eps=0, gamma=[2, 1, 3], beta=[1, 1, 1])
    y = bn(x if axis else x.T, training=True)
    wide = np.sqrt(8 / 3)
    np.testing.assert_allclose(y if axis else y.T, [[1, 1 - 2 / wide, 1], [1, 1, 1], [1, 1 + 2 / wide, 1]], atol=1e-14)
    np.testing.assert_allclose(bn(new if axis else new.T).reshape(-1), [1.5, 1, 7], rtol=1e-12)
    plain = BatchNorm(3, axis=axis, momentum=None, eps=0)
    plain.update(x if axis else x.T)
    np.testing.assert_allclose(plain(new if axis else new.T).reshape(-1)[1:], [0, 0], atol=1e-12)


@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.1, None]), st.integers(0, 1), st.integers(0, 99))
def test_normalize_by_running_is_update_then_inference(batches, rows, momentum, ddof, seed):
    rng = np.random.default_rng(seed)
    options = {"momentum": momentum, "ddof": ddof, "gamma": [2, -1, 1], "beta": [0, 1, 5]}
    bn, other = BatchNorm(3, normalize_by="running", **options), BatchNorm(3, **options)
    for _ in range(batches):
        x = rng.normal(5, 3, (rows, 3))
        y = bn(x, training=True)
        other.update(x)
        np.testing.assert_array_equal(y, other(x))
    assert bn.state_dict().keys() == other.state_dict().keys()
    for name, value in bn.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name])


def test_normalize_by_running_in_place_and_with_refusals():
    bn = BatchNorm(2, normalize_by="running", nonfinite="raise")
    x = np.arange(8.0).reshape(4, 2)
    expected, y = BatchNorm(2, normalize_by="running")(x, training=True), x.copy()
    assert bn(y, training=True, out=y) is y
    np.testing.assert_array_equal(y, expected)
    before, bad = bn.copy(), np.array([[1.0, np.inf], [2.0, 3.0]])
    with pytest.raises(ValueError, match="infinity in channel 1"):
        bn(bad, training=True, out=bad)
    assert bn == before
    assert np.isinf(bad[0, 1])


def test_normalize_by_running_skips_a_bad_channel():
    bn = BatchNorm(2, normalize_by="running", momentum=None)
    bn.update(np.arange(8.0).reshape(4, 2))
    with pytest.warns(RuntimeWarning, match="channel 1"):
        y = bn(np.array([[1.0, np.nan], [2.0, 3.0]]), training=True)
    assert bn.count.tolist() == [6, 4]
    np.testing.assert_allclose(y[1, 1], (3 - 4) / np.sqrt(5 + 1e-5))


@given(
    st.floats(1e-4, 50),
    st.floats(-10, 10),
    st.floats(0, 10),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_a_prior_is_so_many_values(count, mean, var, rows, seed):
    rng = np.random.default_rng(seed)
    bn = BatchNorm(2, momentum=None, prior=(count, mean, var))
    assert (bn.running_mean == mean).all()
    seen = np.concatenate([rng.normal(3, 2, (n, 2)) for n in rows])
    for part in np.split(seen, np.cumsum(rows)[:-1]):
        bn.update(part)
    n = count + len(seen)
    expected = (count * mean + seen.sum(axis=0)) / n
    spread = (count * (var + (mean - expected) ** 2) + ((seen - expected) ** 2).sum(axis=0)) / n
    np.testing.assert_allclose(bn.running_mean, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(bn.running_var, spread, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(bn.count, n, rtol=1e-13)
    bn.reset()
    assert (bn.count == count).all()
    assert (bn.running_var == var).all()


@given(st.sampled_from([0.0, 1e-4, 0.5, 20.0]), st.integers(0, 4), st.integers(0, 4), st.integers(0, 99))
def test_merging_counts_a_prior_once(count, mine, its, seed):
    x = np.random.default_rng(seed).normal(50, 2, (mine + its, 2))
    a, b, whole = (BatchNorm(2, momentum=None, prior=(count, 1, 4)) for _ in range(3))
    for bn, part in ((a, x[:mine]), (b, x[mine:]), (whole, x[:mine]), (whole, x[mine:])):
        bn.update(part)
    a.merge(b)
    np.testing.assert_allclose(a.running_mean, whole.running_mean, rtol=1e-9)
    np.testing.assert_allclose(a.running_var, whole.running_var, rtol=1e-9)
    np.testing.assert_allclose(a.count, whole.count, rtol=1e-12)
    assert a.num_batches == whole.num_batches
    with pytest.raises(ValueError, match="prior"):
        a.merge(BatchNorm(2, momentum=None, prior=(1, 2, 3)))


def test_where_the_other_averages_start():
    bn = BatchNorm(2, momentum=0.5, prior=(0, 4, 9))
    bn.update([[2.0, 8.0], [2.0, 8.0]])
    assert bn.running_mean.tolist() == [3, 6]
    assert bn.running_var.tolist() == [4.5, 4.5]
    np.testing.assert_array_equal(BatchNorm(2, prior=(0, 4, 9), eps=0)([[7.0, 4.0]]), [[1, 0]])


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (3, TypeError, r"expected \(count, mean, var\)"),
        ((1, 2), TypeError, r"expected \(count, mean, var\)"),
        ((1, "2", 3), TypeError, "expected a real number"),
        ((-1, 0, 1), ValueError, "0 or more"),
        ((0, 0, -1), ValueError, "0 or more"),
        ((0, np.nan, 1), ValueError, "finite"),
    ],
)
def test_a_prior_that_makes_no_sense_is_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        BatchNorm(2, momentum=None, prior=wrong)


def test_a_prior_that_counts_needs_an_average_that_counts():
    with pytest.raises(ValueError, match="average='exponential' does not weigh values; give a count of 0"):
        BatchNorm(2, prior=(1, 0, 1))


@pytest.mark.parametrize("option", ["single", "constant", "normalize_by"])
def test_wrong_words_are_refused(option):
    with pytest.raises(ValueError, match=f"`{option}` is 'wrong'; expected one of"):
        BatchNorm(2, **{option: "wrong"})


@pytest.mark.parametrize(
    "more", [{"renorm": True}, {"ghost": 4}, {"adjustment": lambda shape: (1.0, 0.0)}], ids="-".join
)
@pytest.mark.parametrize("how", [{"normalize_by": "running"}, {"constant": "center"}, {"flavour": "sb3"}], ids=str)
def test_what_corrects_a_batch_needs_normalization_by_the_batch(how, more):
    (name,) = more
    with pytest.raises(ValueError, match=f"`{name}` is .* normalizes otherwise; leave one of them out"):
        BatchNorm(2, **how, **more)


def test_an_option_that_is_not_given_says_so():
    assert repr(flavours.UNSET) == "<default>"
    assert pickle.loads(pickle.dumps(flavours.UNSET)) is flavours.UNSET


@pytest.mark.skipif(not DOCS.exists(), reason="needs the source tree")
def test_the_page_has_the_table():
    assert flavours.markdown() in DOCS.read_text()
