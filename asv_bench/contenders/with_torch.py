"""PyTorch in eager mode, on the same memory: contiguous as it is, channels-last for arrays whose channels are last.

"out=" are its operators `native_batch_norm` and `native_batch_norm_backward`, which its public functions do not offer;
"mkldnn off" is the public function with torch.backends.mkldnn disabled, "mkldnn" the same on a tensor in the layout
of mkldnn, converted beforehand.
"""

import numpy as np
import torch

from .contender import Contender
from .problem import EPS


def contenders(task, p):
    return _FORMS[task](p) if task in _FORMS else []


def tensor(a):
    """A tensor on the memory of an array; bfloat16 is unknown to torch.from_numpy."""
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def array(t, dtype):
    """The array on the memory of a tensor."""
    t = t.detach()
    return t.view(torch.uint16).numpy().view(dtype) if t.dtype is torch.bfloat16 else t.numpy()


def _second(p, a):
    """A tensor on the memory of an array, with the channels second."""
    return tensor(a).movedim(p.axis, 1)


def _output(p):
    """How an output becomes an array."""
    return lambda y: array((y.to_dense() if y.is_mkldnn else y).movedim(1, p.axis), p.x.dtype)


def _forms(p, given, answer):
    return [Contender("PyTorch", form, work, answer) for form, work in given]


def _parameters(p):
    """(mean, variance) in the type of parameters: float32 beside 16-bit values."""
    dtype = torch.float64 if p.x.itemsize == 8 else torch.float32
    return torch.from_numpy(p.mean).to(dtype), torch.from_numpy(p.var).to(dtype)


def _statistics(result):
    return tuple(t.double().numpy() for t in result)


def _moments(p):
    x, second = tensor(p.x), _second(p, p.x)

    def update_stats():
        with torch.no_grad():
            return torch.batch_norm_update_stats(second, None, None, 0.1)

    forms = [
        ("", lambda: tuple(reversed(torch.var_mean(x, dim=p.reduced, correction=0)))),
        ("update_stats", update_stats),
    ]
    return _forms(p, forms, _statistics)


def _update(p):
    x = _second(p, p.x)
    mean, var = (torch.zeros_like(t) for t in _parameters(p))

    def work():
        with torch.no_grad():
            return torch.batch_norm_update_stats(x, mean, var, 0.1)

    return _forms(p, [("update_stats", work)], _statistics)


def _batch_norm(p, training):
    x, out = _second(p, p.x), _second(p, p.out)
    mean, var = (None, None) if training else _parameters(p)
    # NaN: of x with gaps between its rows the operator writes no mean, but normalizes by the one it finds here.
    saved = [torch.full((p.channels,), np.nan, dtype=x.dtype) if training else mean.new_empty(0) for _ in "mv"]
    native = torch.ops.aten.native_batch_norm.out

    def public():
        with torch.no_grad():
            return torch.nn.functional.batch_norm(x, mean, var, training=training, eps=EPS)

    def without_mkldnn():
        torch.backends.mkldnn.enabled = False
        try:
            return public()
        finally:
            torch.backends.mkldnn.enabled = True

    def into_out():
        with torch.no_grad():
            native(x, None, None, mean, var, training, 0.1, EPS, out=out, save_mean=saved[0], save_invstd=saved[1])
        return out

    forms = [("", public), ("out=", into_out)]
    if torch.backends.mkldnn.is_available() and not (p.workload and p.workload.small):
        forms.append(("mkldnn off", without_mkldnn))
        if not training and x.ndim == 4 and p.axis == 1 and x.dtype is torch.float32:
            forms.append(("mkldnn", _on_mkldnn(x, mean, var)))
    return _forms(p, forms, _output(p))


def _on_mkldnn(x, mean, var):
    converted, weight, bias = x.to_mkldnn(), torch.ones_like(mean), torch.zeros_like(mean)

    def work():
        with torch.no_grad():
            return torch.nn.functional.batch_norm(converted, mean, var, weight, bias, False, eps=EPS)

    return work


def _inference(p):
    return _batch_norm(p, False)


def _train(p):
    return _batch_norm(p, True)


def _denormalize(p):
    x, out = _second(p, p.x), _second(p, p.out)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = (t.to(x.dtype).reshape(shape) for t in _parameters(p))
    std = (var + EPS).sqrt()
    forms = [
        ("addcmul", lambda: torch.addcmul(mean, x, std)),
        ("addcmul out=", lambda: torch.addcmul(mean, x, std, out=out)),
    ]
    return _forms(p, forms, _output(p))


def _backward(p):
    x, dy, out = (_second(p, a) for a in (p.x, p.dy, p.out))
    mean, var = _parameters(p)
    inverse, weight = (var + EPS).rsqrt(), torch.ones_like(mean)
    sums = [torch.full_like(mean, np.nan) for _ in range(2)]
    rest = (weight, None, None, mean, inverse, True, EPS, [True] * 3)
    operator = torch.ops.aten.native_batch_norm_backward

    def into_out():
        with torch.no_grad():
            return operator.out(dy, x, *rest, out0=out, out1=sums[0], out2=sums[1])

    def fresh():
        with torch.no_grad():
            return operator(dy, x, *rest)

    leaves = (x.detach().requires_grad_(), weight.clone().requires_grad_(), torch.zeros_like(mean).requires_grad_())
    y = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=EPS)
    forms = [
        ("autograd", lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)),
        ("", fresh),
        ("out=", into_out),
    ]
    output = _output(p)
    return _forms(p, forms, lambda r: (output(r[0]), *_statistics(r[1:])))


def _layer_of(p):
    kind = torch.nn.BatchNorm1d if p.x.ndim < 4 else torch.nn.BatchNorm2d
    layer = kind(p.channels, eps=EPS, affine=False, dtype=_parameters(p)[0].dtype)
    mean, var = _parameters(p)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(var)
    return layer


def _called(p, layer):
    x = _second(p, p.x)

    def work():
        with torch.no_grad():
            return layer(x)

    return _forms(p, [("", work)], _output(p))


def _step(p):
    return _called(p, _layer_of(p).train())


def _layer(p):
    return _called(p, _layer_of(p).eval())


_FORMS = {
    "moments": _moments,
    "inference": _inference,
    "denormalize": _denormalize,
    "train": _train,
    "backward": _backward,
    "update": _update,
    "step": _step,
    "layer": _layer,
}
