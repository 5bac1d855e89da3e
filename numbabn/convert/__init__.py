"""A BatchNorm's state in the form that other systems keep it in, and back; none of them is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ..arrays import NDArray
from . import forms, scaler


class Conversions:
    """The methods of a BatchNorm that carry its state to other systems and back.

    What is given may be arrays of any library that NumPy can read on the CPU; what is returned are NumPy
    arrays, copies. Every ``from_`` makes a new BatchNorm, with the flavour of the system and any other options
    that are given. What a system does not keep has to be guessed or told: how many values were seen
    (`count`, for `merge`), how many batches (`num_batches`); by default one value in each of its batches.
    """

    def to_torch_state_dict(self, *, prefix: str = "", dtype: Any = "float64") -> dict[str, NDArray]:
        """What ``torch.nn.BatchNorm1d`` (2d, 3d) calls its state dict.

        Parameters
        ----------
        prefix : str, default ""
            The layer's name in a model and a dot: ``"features.1."``.
        dtype : dtype, default float64
            Of the arrays; a module converts what it loads to its own.

        Returns
        -------
        dict
            weight and bias where there are gamma and beta, running_mean, running_var and
            num_batches_tracked. A module takes tensors: ``{k: torch.from_numpy(v) for k, v in d.items()}``.

        Examples
        --------
        >>> import numbabn
        >>> list(numbabn.BatchNorm(3, flavour="torch").to_torch_state_dict(prefix="bn1."))
        ['bn1.weight', 'bn1.bias', 'bn1.running_mean', 'bn1.running_var', 'bn1.num_batches_tracked']
        """
        return forms.to_torch_state_dict(self, prefix, dtype)

    @classmethod
    def from_torch_state_dict(
        cls, d: Mapping[str, Any], *, prefix: str = "", count: Any = None, **options: Any
    ) -> Self:
        """A BatchNorm from the state dict of a ``torch.nn.BatchNorm1d`` (2d, 3d), or of a model with one.

        Parameters
        ----------
        d : mapping
            Names to tensors or arrays; num_batches_tracked, weight and bias may be absent.
        prefix : str, default ""
            The layer's name in a model and a dot.
        count : array_like, optional
            How many values each channel has seen.
        **options
            For `BatchNorm`; eps and momentum are not in a state dict.

        Examples
        --------
        >>> import numbabn
        >>> numbabn.BatchNorm.from_torch_state_dict({"running_mean": [1.0, 2.0], "running_var": [1.0, 4.0]})([[3, 2]])
        array([[1.99999, 0.     ]])
        """
        return forms.from_torch_state_dict(cls, d, prefix, count, options)

    def to_keras_weights(
        self, *, scale: bool | None = None, center: bool | None = None, dtype: Any = "float64"
    ) -> list[NDArray]:
        """What ``keras.layers.BatchNormalization.set_weights`` takes: gamma, beta, moving_mean, moving_variance.

        Parameters
        ----------
        scale, center : bool, optional
            Whether the layer has gamma, and beta; by default, whether this BatchNorm has.
        dtype : dtype, default float64
            Of the arrays; a layer converts what it is given to its own.

        Raises
        ------
        ValueError
            If the layer is to have no gamma but this one is not 1 everywhere, or no beta that is not 0.

        Examples
        --------
        >>> import numbabn
        >>> [w.tolist() for w in numbabn.BatchNorm(2).to_keras_weights(scale=True)]
        [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
        """
        return forms.to_keras_weights(self, scale, center, dtype)

    @classmethod
    def from_keras_weights(
        cls,
        weights: Sequence[Any],
        *,
        scale: bool = True,
        center: bool = True,
        num_batches: int = 1,
        count: Any = None,
        **options: Any,
    ) -> Self:
        """A BatchNorm from what ``keras.layers.BatchNormalization.get_weights`` gives.

        Parameters
        ----------
        weights : sequence of arrays
            gamma if `scale`, beta if `center`, moving_mean, moving_variance.
        scale, center : bool, default True
            As of the layer.
        num_batches : int, default 1
            How many batches it has seen.
        count : array_like, optional
            How many values each channel has seen.
        **options
            For `BatchNorm`; eps and the momentum of the layer are not among its weights.

        Examples
        --------
        >>> import numbabn
        >>> numbabn.BatchNorm.from_keras_weights([[1.0], [3.0]], scale=False, center=False).running_var
        array([3.])
        """
        return forms.from_keras_weights(cls, weights, scale, center, num_batches, count, options)

    def to_flax_variables(self, *, dtype: Any = "float64") -> dict[str, dict[str, NDArray]]:
        """The variables of a ``flax.linen.BatchNorm``: scale and bias in "params", mean and var in "batch_stats".

        Examples
        --------
        >>> import numbabn
        >>> numbabn.BatchNorm(1, beta=0.5).to_flax_variables()
        {'params': {'bias': array([0.5])}, 'batch_stats': {'mean': array([0.]), 'var': array([1.])}}
        """
        return forms.to_flax_variables(self, dtype)

    @classmethod
    def from_flax_variables(
        cls, variables: Mapping[str, Any], *, num_batches: int = 1, count: Any = None, **options: Any
    ) -> Self:
        """A BatchNorm from the variables of a ``flax.linen.BatchNorm``, without "params" perhaps.

        Examples
        --------
        >>> import numbabn
        >>> numbabn.BatchNorm.from_flax_variables({"batch_stats": {"mean": [1.0], "var": [3.0]}}).running_mean
        array([1.])
        """
        return forms.from_flax_variables(cls, variables, num_batches, count, options)

    def to_tf_variables(self, *, scope: str = "BatchNorm", dtype: Any = "float64") -> dict[str, NDArray]:
        """The variables of a ``tf.contrib.layers.batch_norm``, by their names in a checkpoint.

        Examples
        --------
        >>> import numbabn
        >>> list(numbabn.BatchNorm(1, flavour="tf_contrib").to_tf_variables(scope="conv1/bn"))
        ['conv1/bn/beta', 'conv1/bn/moving_mean', 'conv1/bn/moving_variance']
        """
        return forms.to_tf_variables(self, scope, dtype)

    @classmethod
    def from_tf_variables(
        cls,
        variables: Mapping[str, Any],
        *,
        scope: str = "BatchNorm",
        num_batches: int = 1,
        count: Any = None,
        **options: Any,
    ) -> Self:
        """A BatchNorm from the variables of a ``tf.contrib.layers.batch_norm``; others may be among them.

        Parameters
        ----------
        variables : mapping
            Names, as in a checkpoint or with ":0", to arrays.
        scope : str, default "BatchNorm"
            What their names begin with.
        num_batches, count, **options
            As for `from_keras_weights`; give ``flavour="tf_contrib_fused"`` for a fused one.

        Examples
        --------
        >>> import numbabn
        >>> d = {"bn/beta:0": [5.0], "bn/moving_mean:0": [1.0], "bn/moving_variance:0": [3.0]}
        >>> numbabn.BatchNorm.from_tf_variables(d, scope="bn").beta
        array([5.])
        """
        return forms.from_tf_variables(cls, variables, scope, num_batches, count, options)

    def to_sklearn_attributes(self) -> dict[str, Any]:
        """The fitted attributes of a ``sklearn.preprocessing.StandardScaler`` that transforms as inference does.

        Returns
        -------
        dict
            mean_, var_, scale_, n_samples_seen_ and n_features_in_. `scale_` has eps in it, until ``partial_fit``
            computes it anew from `var_`.

        Raises
        ------
        ValueError
            If gamma or beta do something: a StandardScaler has neither.

        Examples
        --------
        >>> import numbabn
        >>> bn = numbabn.BatchNorm(1, flavour="sklearn")
        >>> _ = bn.update([[1.0], [3.0], [5.0]])
        >>> bn.to_sklearn_attributes()["mean_"], int(bn.to_sklearn_attributes()["n_samples_seen_"])
        (array([3.]), 3)
        """
        return scaler.to_attributes(self)

    def to_sklearn(self, scaler_: Any, /) -> Any:
        """Set `to_sklearn_attributes` on a StandardScaler, fitted or not; returns it.

        Examples
        --------
        >>> import numbabn
        >>> from sklearn.preprocessing import StandardScaler
        >>> numbabn.BatchNorm(2, eps=0).to_sklearn(StandardScaler()).transform([[3.0, 4.0]])
        array([[3., 4.]])
        """
        return scaler.put_on(self, scaler_)

    @classmethod
    def from_sklearn(cls, fitted: Any, /, **options: Any) -> Self:
        """A BatchNorm from a fitted StandardScaler, or a mapping of its attributes.

        Parameters
        ----------
        fitted : StandardScaler or mapping
            With mean_, var_ and n_samples_seen_.
        **options
            For `BatchNorm`.

        Examples
        --------
        >>> import numbabn
        >>> bn = numbabn.BatchNorm.from_sklearn({"mean_": [1.0], "var_": [4.0], "n_samples_seen_": 10})
        >>> bn([[5.0]]), bn.count
        (array([[2.]]), array([10.]))
        """
        return scaler.from_fitted(cls, fitted, options)

    def to_scale_shift(self) -> tuple[NDArray, NDArray]:
        """Inference as ``x * scale + shift``.

        Returns
        -------
        scale, shift : array
            float64, shape of the channels. Where the mean is many times the deviation, keep them in float64:
            ``x * scale`` and `shift` then cancel.

        Examples
        --------
        >>> import numbabn
        >>> bn = numbabn.BatchNorm.from_keras_weights([[2.0], [4.0]], scale=False, center=False, eps=0)
        >>> bn.to_scale_shift()
        (array([0.5]), array([-1.]))
        """
        return forms.to_scale_shift(self)

    @classmethod
    def from_scale_shift(cls, scale: Any, shift: Any, **options: Any) -> Self:
        """A BatchNorm that has learned nothing, whose inference is ``x * scale + shift``.

        Parameters
        ----------
        scale, shift : array_like, shape of the channels
            They become gamma and beta, over mean 0, variance 1 and eps 0.
        **options
            For `BatchNorm`.

        Examples
        --------
        >>> import numbabn
        >>> numbabn.BatchNorm.from_scale_shift([0.5], [-1.0])([[4.0]])
        array([[1.]])
        """
        return forms.from_scale_shift(cls, scale, shift, options)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        shape: Sequence[int | str | None] | None = None,
        dtype: Any = "float32",
        opset: int | None = None,
        input_name: str = "x",
        output_name: str = "y",
    ) -> None:
        """Write inference as an ONNX model: one input, one output, of one shape.

        One channel axis becomes a node BatchNormalization, with a Transpose on either side unless the
        axis is 1; other channel axes become Sub, Mul and Add. An activation follows as nodes of its
        own. float16 is cast to float32 inside, so that parameters keep their precision.

        Parameters
        ----------
        path : str or path-like
            Written under a temporary name that is then renamed.
        shape : sequence, optional
            The shape of x: an int for a fixed size, a name or None for any. By default ``("N", channels)``, where
            the one channel axis is 1 or -1.
        dtype : float32, float64 or float16, default float32
            Of x and y.
        opset : int, optional
            The version of the operator set, 15 or later; by default the earliest that has what is needed.
        input_name, output_name : str, default "x" and "y"
            What to call them.

        Raises
        ------
        ImportError
            If the package onnx is not installed.
        TypeError, ValueError
            If an argument does not fit, or the activation has no node; nothing is written then.

        Notes
        -----
        A runtime may fold the mean into an offset, as onnxruntime does: in float32 that loses digits where the
        mean is many times the deviation. Export float64 there. The erf of a float64 "gelu" is that of
        float32, as onnxruntime has no other.

        Examples
        --------
        >>> import numbabn, onnx, os, tempfile
        >>> with tempfile.TemporaryDirectory() as d:
        ...     numbabn.BatchNorm(3, axis=-1).to_onnx(os.path.join(d, "bn.onnx"), shape=("N", 32, 32, 3))
        ...     [node.op_type for node in onnx.load(os.path.join(d, "bn.onnx")).graph.node]
        ['Transpose', 'BatchNormalization', 'Transpose']
        """
        from . import onnx_model

        onnx_model.write(self, path, shape, dtype, opset, input_name, output_name)
