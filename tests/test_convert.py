"""State goes to other systems and comes back: tested with those that are installed, and by names and shapes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import record_flavours
from hypothesis import given
from hypothesis import strategies as st

from numbabn import BatchNorm

SHAPES = {"1d": (16, 5), "2d": (4, 5, 3, 6), "3d": (2, 5, 2, 3, 2)}


def trained(channels=5, *, axis=1, shape=(16, 5), seed=0, **options):
    """A BatchNorm with something to say."""
    rng = np.random.default_rng(seed)
    options = {"gamma": rng.uniform(0.5, 2, channels), "beta": rng.normal(size=channels), **options}
    bn = BatchNorm(channels, axis=axis, **options)
    for _ in range(3):
        bn.update(rng.normal(3, 2, shape))
    return bn


def same_state(a, b, *, count=False):
    """Whether what both have learned, and their parameters, agree to the last bit."""
    mine, its = a.state_dict(), b.state_dict()
    assert mine.keys() == its.keys()
    for name in mine.keys() - (set() if count else {"count", "num_batches"}):
        np.testing.assert_array_equal(mine[name], its[name], err_msg=name)


# torch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_torch_module_loads_ours_and_gives_our_outputs(dims, dtype):
    torch = pytest.importorskip("torch")
    bn = trained(flavour="torch", shape=SHAPES[dims])
    module = {"1d": torch.nn.BatchNorm1d, "2d": torch.nn.BatchNorm2d, "3d": torch.nn.BatchNorm3d}[dims](5)
    module = module.to(getattr(torch, dtype)).eval()
    module.load_state_dict({name: torch.from_numpy(a) for name, a in bn.to_torch_state_dict().items()})
    x = np.random.default_rng(1).normal(3, 2, SHAPES[dims]).astype(dtype)
    with torch.no_grad():
        np.testing.assert_allclose(bn(x), module(torch.from_numpy(x)), rtol=8 * np.finfo(dtype).eps, atol=1e-5)

    x = np.random.default_rng(2).normal(1, 2, SHAPES[dims]).astype(dtype)
    with torch.no_grad():
        module.train()(torch.from_numpy(x))
    bn(x, training=True)
    back = BatchNorm.from_torch_state_dict(module.state_dict())
    assert back.num_batches == bn.num_batches == 4
    np.testing.assert_allclose(back.running_var, bn.running_var, rtol=1e-5 if dtype == "float32" else 1e-13)
    assert (back.flavour, back.axis, back.ddof) == ("torch", 1, 1)


def test_torch_there_and_back_is_the_same_to_the_last_bit():
    bn = trained(flavour="torch")
    back = BatchNorm.from_torch_state_dict(bn.to_torch_state_dict(), count=bn.count)
    assert back == bn
    assert back._options == bn._options
    part = {f"model.bn.{name}": a for name, a in bn.to_torch_state_dict().items()} | {"model.fc.weight": np.ones(3)}
    assert BatchNorm.from_torch_state_dict(part, prefix="model.bn.", count=bn.count) == bn
    assert bn.to_torch_state_dict(prefix="model.bn.").keys() == part.keys() - {"model.fc.weight"}


def test_a_torch_module_without_parameters_and_one_that_trains_on():
    torch = pytest.importorskip("torch")
    module = torch.nn.BatchNorm1d(3, affine=False, momentum=None).double()
    x = np.random.default_rng(0).normal(size=(4, 8, 3))
    for k in range(2):
        module(torch.from_numpy(x[k]))
    bn = BatchNorm.from_torch_state_dict(module.state_dict(), momentum=None)
    assert (bn.gamma, bn.beta, bn.average, bn.num_batches) == (None, None, "equal", 2)
    for k in (2, 3):
        np.testing.assert_allclose(bn(x[k], training=True), module(torch.from_numpy(x[k])), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bn.running_var, module.running_var, rtol=1e-13)
    assert "weight" not in bn.to_torch_state_dict()


def test_torch_tensors_of_bfloat16_are_read():
    torch = pytest.importorskip("torch")
    state = torch.nn.BatchNorm1d(3, dtype=torch.bfloat16).state_dict()
    assert BatchNorm.from_torch_state_dict(state).gamma.tolist() == [1, 1, 1]


def test_torch_state_that_does_not_fit_is_refused():
    good = trained(flavour="torch").to_torch_state_dict()
    with pytest.raises(ValueError, match=r"lacks running_mean, running_var.*which layer"):
        BatchNorm.from_torch_state_dict({"weight": [1.0]})
    with pytest.raises(ValueError, match=r"unknown 'other'"):
        BatchNorm.from_torch_state_dict(good | {"other": 1})
    with pytest.raises(ValueError, match=r"lacks running_mean"):
        BatchNorm.from_torch_state_dict(good, prefix="bn.")
    with pytest.raises(TypeError, match="is list; expected a mapping"):
        BatchNorm.from_torch_state_dict([good])
    with pytest.raises(ValueError, match="`gamma` has shape"):
        BatchNorm.from_torch_state_dict(good | {"weight": np.ones(3)})
    with pytest.raises(ValueError, match="negative in channel 0"):
        BatchNorm.from_torch_state_dict(good | {"running_var": [-1.0, 1, 1, 1, 1]})
    with pytest.raises(TypeError, match=r"`num_batches` is 1\.5"):
        BatchNorm.from_torch_state_dict(good | {"num_batches_tracked": 1.5})
    with pytest.raises(ValueError, match=r"average='window' needs window_count.*other systems do not keep"):
        BatchNorm.from_torch_state_dict(good, average="window", window=3)
    with pytest.raises(ValueError, match=r"one channel axis; use state_dict"):
        BatchNorm((2, 3), axis=(1, 2)).to_torch_state_dict()
    with pytest.raises(TypeError, match="`dtype` is int64; expected float16"):
        BatchNorm(2).to_torch_state_dict(dtype=int)


def test_what_is_given_is_a_copy():
    bn = trained(flavour="torch")
    before = bn.copy()
    for form in (bn.to_torch_state_dict(), bn.to_flax_variables()["params"], bn.to_tf_variables()):
        for a in form.values():
            a[...] = 7
    for a in (*bn.to_keras_weights(), *bn.to_scale_shift()):
        a[...] = 7
    plain = trained(gamma=None, beta=None)
    saved = plain.copy()
    for a in list(plain.to_sklearn_attributes().values())[:3]:
        a[...] = 7
    assert bn == before
    assert plain == saved


# keras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_a_keras_layer_takes_ours_and_gives_our_outputs(scale, center):
    if not record_flavours.installed("keras"):
        pytest.skip("keras is not installed")
    import keras

    bn = trained(axis=-1, flavour="keras", **({} if scale else {"gamma": None}), **({} if center else {"beta": None}))
    layer = keras.layers.BatchNormalization(scale=scale, center=center)
    layer.build((None, 5))
    layer.set_weights(bn.to_keras_weights())
    x = np.random.default_rng(1).normal(3, 2, (8, 5)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # between keras, torch and NumPy
        y = keras.ops.convert_to_numpy(layer(x, training=False))
        np.testing.assert_allclose(bn(x), y, rtol=1e-5, atol=1e-5)
        weights = layer.get_weights()
    back = BatchNorm.from_keras_weights(weights, scale=scale, center=center)
    np.testing.assert_allclose(back(x), y, rtol=1e-5, atol=1e-5)
    assert (back.flavour, back.decay) == ("keras", 0.99)


def test_keras_weights_by_their_flags():
    bn = trained(axis=-1, gamma=None, beta=[1, 2, 3, 4, 5])
    assert [len(bn.to_keras_weights()), len(bn.to_keras_weights(scale=True))] == [3, 4]
    np.testing.assert_array_equal(bn.to_keras_weights(scale=True)[0], np.ones(5))
    np.testing.assert_array_equal(bn.to_keras_weights(scale=True)[1], [1, 2, 3, 4, 5])
    assert bn.to_keras_weights(scale=True, dtype=np.float16)[0].dtype == np.float16
    with pytest.raises(ValueError, match="`center` is False, but `beta` is not 0 everywhere"):
        bn.to_keras_weights(center=False)
    bn.beta = np.zeros(5)
    assert len(bn.to_keras_weights(center=False)) == 2
    back = BatchNorm.from_keras_weights(bn.to_keras_weights(), scale=False, num_batches=7, count=40, axis=-1)
    same_state(back, bn)
    assert back.num_batches == 7
    assert (back.count == 40).all()
    with pytest.raises(ValueError, match=r"3 weights; expected 4 with scale=True and center=True: gamma, beta, mov"):
        BatchNorm.from_keras_weights(bn.to_keras_weights())
    with pytest.raises(TypeError, match="`scale` is 1; expected a bool"):
        bn.to_keras_weights(scale=1)


# flax and TensorFlow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [True, False])
def test_flax_and_tensorflow_variables_there_and_back(parameters):
    bn = trained(axis=-1, **({} if parameters else {"gamma": None, "beta": None}))
    for back in (
        BatchNorm.from_flax_variables(bn.to_flax_variables(), eps=bn.eps),
        BatchNorm.from_tf_variables(bn.to_tf_variables(scope="a/bn"), scope="a/bn", eps=bn.eps),
        BatchNorm.from_tf_variables(bn.to_tf_variables(scope=""), scope="", eps=bn.eps),
    ):
        same_state(back, bn)
        x = np.random.default_rng(3).normal(size=(4, 5))
        np.testing.assert_array_equal(back(x), bn(x))


def test_flax_variables_of_several_feature_axes():
    bn = BatchNorm((2, 3), axis=(1, 2), flavour="flax")
    bn.update(np.random.default_rng(0).normal(size=(4, 2, 3)))
    variables = bn.to_flax_variables()
    assert variables["batch_stats"]["mean"].shape == (2, 3)
    same_state(BatchNorm.from_flax_variables(variables, axis=(1, 2)), bn)


def test_a_checkpoint_may_hold_more_and_name_tensors():
    d = {"bn/moving_mean:0": [1.0], "bn/moving_variance:0": [4.0], "bn/beta:0": [2.0], "global_step:0": 3}
    bn = BatchNorm.from_tf_variables(d, scope="bn", eps=0)
    assert bn([[5.0]]).item() == 4
    assert (bn.flavour, bn.gamma) == ("tf_contrib", None)
    with pytest.raises(ValueError, match=r"tf.contrib state lacks moving_mean"):
        BatchNorm.from_tf_variables(d, scope="other")
    with pytest.raises(ValueError, match="flax state has unknown 'opt_state'"):
        BatchNorm.from_flax_variables({"batch_stats": {"mean": [1.0], "var": [1.0]}, "opt_state": {}})
    with pytest.raises(ValueError, match="flax state lacks var"):
        BatchNorm.from_flax_variables({"batch_stats": {"mean": [1.0]}})


def test_what_the_original_learned_becomes_a_batchnorm():
    with np.load(record_flavours.DATA / "tf_contrib_fused-images-float32.npz") as kept:
        learned = {
            "bn/moving_mean": kept["mean"][-1],
            "bn/moving_variance": kept["var"][-1],
            "bn/gamma": record_flavours.GAMMA,
            "bn/beta": record_flavours.BETA,
        }
        bn = BatchNorm.from_tf_variables(learned, scope="bn", flavour="tf_contrib_fused")
        np.testing.assert_allclose(bn(kept["x_test"]), kept["y_test"], rtol=1e-4, atol=2e-4)


# scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scaler_takes_ours_transforms_and_learns_on(dtype):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    first, second, x = (rng.normal(3, [1, 5, 0, 2], (n, 4)).astype(dtype) for n in (20, 7, 5))
    bn = BatchNorm(4, flavour="sklearn")
    bn.update(first)
    scaler = preprocessing.StandardScaler()
    assert bn.to_sklearn(scaler) is scaler
    assert scaler.n_samples_seen_ == 20
    tolerance = {"rtol": 32 * np.finfo(dtype).eps, "atol": 32 * np.finfo(dtype).eps}
    np.testing.assert_allclose(scaler.transform(x), bn(x), **tolerance)
    np.testing.assert_allclose(scaler.inverse_transform(bn(x)), x, rtol=1e-5)

    scaler.partial_fit(second)
    bn.update(second)
    np.testing.assert_allclose(scaler.var_, bn.running_var, rtol=1e-12)
    np.testing.assert_allclose(scaler.transform(x), bn(x), **tolerance)

    back = BatchNorm.from_sklearn(scaler)
    np.testing.assert_array_equal(back.running_mean, scaler.mean_)
    np.testing.assert_array_equal(back.running_var, scaler.var_)
    assert (back.count == 27).all()
    back.update(x)
    scaler.partial_fit(x)
    np.testing.assert_allclose(back.running_var, scaler.var_, rtol=1e-12, atol=1e-30)
    np.testing.assert_allclose(back.running_mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(back(x), scaler.transform(x), **tolerance)


def test_eps_and_missing_values_in_a_scaler():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.random.default_rng(0).normal(3, 0.1, (50, 2))
    bn = BatchNorm(2, momentum=None, eps=0.5, ddof=1)
    bn.update(x)
    scaler = bn.to_sklearn(preprocessing.StandardScaler())
    np.testing.assert_allclose(scaler.transform(x), bn(x), rtol=1e-12)
    np.testing.assert_allclose(scaler.var_, x.var(axis=0), rtol=1e-12)

    x[:7, 0] = np.nan
    fitted = preprocessing.StandardScaler().fit(x)
    back = BatchNorm.from_sklearn(fitted)
    assert back.count.tolist() == [43, 50]
    np.testing.assert_array_equal(back.to_sklearn_attributes()["n_samples_seen_"], fitted.n_samples_seen_)
    np.testing.assert_allclose(back.to_sklearn_attributes()["scale_"], fitted.scale_, rtol=1e-15)


def test_scalers_that_differ_are_refused():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.random.default_rng(0).normal(size=(9, 2))
    bn = BatchNorm(2)
    for flag in ("with_mean", "with_std"):
        other = preprocessing.StandardScaler(**{flag: False})
        with pytest.raises(ValueError, match=f"without {flag}=True"):
            bn.to_sklearn(other)
        assert not hasattr(other, "n_samples_seen_")
        with pytest.raises(ValueError, match=f"{flag}=False.*from_scale_shift"):
            BatchNorm.from_sklearn(other.fit(x))
    with pytest.raises(ValueError, match="no mean_, var_, n_samples_seen_"):
        BatchNorm.from_sklearn(preprocessing.StandardScaler())
    with pytest.raises(ValueError, match="no var_"):
        BatchNorm.from_sklearn({"mean_": [1.0], "n_samples_seen_": 3})
    bn.gamma = [1, 2]
    with pytest.raises(ValueError, match=r"`gamma` is not 1 everywhere.*to_scale_shift"):
        bn.to_sklearn_attributes()
    bn.gamma, bn.beta = [1, 1], [0, 0]
    assert bn.to_sklearn_attributes()["n_features_in_"] == 2
    with pytest.raises(ValueError, match="one channel axis"):
        BatchNorm((2, 3), axis=(1, 2)).to_sklearn_attributes()


# scale and shift -----------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(0, 99), st.booleans(), st.sampled_from([1e-5, 0.5]))
def test_scale_and_shift_are_inference(channels, seed, parameters, eps):
    rng = np.random.default_rng(seed)
    bn = BatchNorm(channels, eps=eps, **({"gamma": rng.normal(size=channels), "beta": 3} if parameters else {}))
    bn.update(rng.normal(5, 2, (8, channels)))
    x = rng.normal(5, 2, (4, channels))
    scale, shift = bn.to_scale_shift()
    np.testing.assert_allclose(x * scale + shift, bn(x), rtol=1e-10, atol=1e-10)
    back = BatchNorm.from_scale_shift(scale, shift)
    np.testing.assert_allclose(back(x), x * scale + shift, rtol=1e-13, atol=1e-13)
    assert back.num_batches == 0


def test_scale_and_shift_of_several_axes_and_of_channels_that_do_not_vary():
    bn = BatchNorm((2, 3), axis=(0, 2), beta=np.arange(6.0).reshape(2, 3))
    bn.update(np.random.default_rng(0).normal(size=(2, 9, 3)))
    scale, shift = bn.to_scale_shift()
    x = np.random.default_rng(1).normal(size=(2, 4, 3))
    np.testing.assert_allclose(bn(x), x * scale[:, None] + shift[:, None], rtol=1e-12, atol=1e-12)
    back = BatchNorm.from_scale_shift(scale, shift, axis=(0, 2))
    np.testing.assert_allclose(back(x), bn(x), rtol=1e-12, atol=1e-12)

    bn = BatchNorm(1, flavour="sklearn")
    bn.update([[4.0], [4.0]])
    assert [a.item() for a in bn.to_scale_shift()] == [1, -4]
    assert BatchNorm.from_scale_shift([2.0, 3.0], 1.0)([[1.0, 1.0]]).tolist() == [[3, 4]]
    with pytest.raises(ValueError, match="one for each channel"):
        BatchNorm.from_scale_shift(2.0, 1.0)


@pytest.mark.parametrize("average", ["cumulative", "debiased", "mixture", "debiased-mixture", "equal"])
def test_any_average_takes_a_state_and_learns_on(average):
    bn = BatchNorm.from_keras_weights([[1.0], [4.0]], scale=False, center=False, average=average, num_batches=3)
    assert bn.running_mean.tolist() == [1]
    assert bn.running_var.tolist() == [4]
    bn.update([[7.0], [7.0]])
    assert 1 < bn.running_mean.item() < 7
    assert bn.num_batches == 4


def test_a_window_has_its_batches_to_itself_but_not_its_result():
    bn = BatchNorm(2, average="window", window=2)
    bn.update([[1.0, 2.0], [3.0, 6.0]])
    assert bn.to_keras_weights()[0].tolist() == [2, 4]


def test_a_subclass_stays_one():
    class Mine(BatchNorm):
        pass

    assert type(Mine.from_torch_state_dict(Mine(2).to_torch_state_dict())) is Mine
    assert type(Mine.from_scale_shift([1.0], [2.0])) is Mine


@pytest.mark.parametrize("page", ["flavours", "conversions"])
def test_the_code_of_the_pages_runs(page):
    file = Path(__file__).parents[1] / "docs" / f"{page}.md"
    if not file.exists():
        pytest.skip("needs the source tree")
    if page == "conversions":
        pytest.importorskip("onnx")
    blocks = [part.split("```")[0] for part in file.read_text().split("```python\n")[1:]]
    assert blocks
    exec("\n".join(blocks), {})
