"""JAX on the CPU: compiled functions of arrays that lie on its device beforehand, and always a new array.

JAX takes a compact copy of an array that is not in C order. 16-bit values are computed in float32, as flax does it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .contender import Contender
from .problem import EPS

jax.config.update("jax_enable_x64", True)


def contenders(task, p):
    if task not in _MAKERS:
        return []
    function, arguments = _MAKERS[task](p)
    compiled, given = jax.jit(function), jax.block_until_ready([_put(a) for a in arguments])
    answer = (lambda r: jax.tree.map(np.asarray, r)) if task != "backward" else _gradients
    return [Contender("JAX", "", lambda: jax.block_until_ready(compiled(*given)), answer)]


def _put(a):
    return a if callable(a) else jax.device_put(a, jax.devices("cpu")[0])


def _wide(x):
    return x.astype(jnp.float32) if x.dtype.itemsize == 2 else x


def _taken(p, x, keepdims=False, **how):
    x = _wide(x)
    return jnp.mean(x, p.reduced, keepdims=keepdims, **how), jnp.var(x, p.reduced, keepdims=keepdims, **how)


def _moments(p):
    return lambda x: _taken(p, x), [p.x]


def _inference(p):
    def function(x, mean, var):
        return ((_wide(x) - mean) * jax.lax.rsqrt(var + EPS)).astype(x.dtype)

    return function, [p.x, *_given(p)]


def _given(p):
    dtype = np.float32 if p.x.itemsize == 2 else p.x.dtype
    return p.along(p.mean, dtype), p.along(p.var, dtype)


def _denormalize(p):
    def function(x, mean, var):
        return (_wide(x) * jnp.sqrt(var + EPS) + mean).astype(x.dtype)

    return function, [p.x, *_given(p)]


def _trained(p, x, gamma=1.0, beta=0.0):
    mean, var = _taken(p, x, keepdims=True)
    return ((_wide(x) - mean) * jax.lax.rsqrt(var + EPS) * gamma + beta).astype(x.dtype)


def _train(p):
    return lambda x: _trained(p, x), [p.x]


def _backward(p):
    """The way back alone: what it needs of the forward pass is there before."""
    gamma = p.along(np.ones(p.channels), np.float64 if p.x.itemsize == 8 else np.float32)
    arguments = [_put(a) for a in (p.x, gamma, np.zeros_like(gamma))]
    _, back = jax.vjp(lambda *a: _trained(p, *a), *arguments)
    return lambda back, dy: back(dy), [back, p.dy]


def _gradients(result):
    dx, dgamma, dbeta = map(np.asarray, result)
    return dx, dgamma.reshape(-1), dbeta.reshape(-1)


def _masked(p):
    return lambda x, where: _taken(p, x, where=where), [p.x, p.where]


def _counted(task):
    return lambda p: (lambda x, where: _taken(p, x, where=where), [p.x, p.beside(task)])


def _weighted(task):
    def made(p):
        def function(x, weights):
            total = weights.sum() * (p.n / weights.size)
            mean = (x * weights).sum(p.reduced, keepdims=True) / total
            return mean, ((x - mean) ** 2 * weights).sum(p.reduced) / total

        return function, [p.x, p.beside(task).astype(p.x.dtype)]

    return made


def _omitting(p):
    return lambda x: (jnp.nanmean(x, p.reduced), jnp.nanvar(x, p.reduced)), [p.holes]


_MAKERS = {
    "moments": _moments,
    "inference": _inference,
    "denormalize": _denormalize,
    "train": _train,
    "backward": _backward,
    "masked": _masked,
    "positions": _counted("positions"),
    "samples": _counted("samples"),
    "weighted": _weighted("weighted"),
    "lines": _weighted("lines"),
    "omitting": _omitting,
}
