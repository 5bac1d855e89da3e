"""The tasks that are timed, by numbabn, PyTorch, torch.compile and CuPy, on tensors of PyTorch, or arrays of CuPy."""

import importlib
import importlib.util
import math
from dataclasses import dataclass
from functools import cache

from gpu import own
from numbabn.devices import DeviceArray

# The shapes of versus.py, larger, and those of ResNet-50 at a batch of 256; name: (shape, channel axis).
SHAPES = {
    "(N, 3)": ((1 << 27, 3), 1),
    "(N, 16)": ((1 << 25, 16), 1),
    "(N, 64)": ((1 << 23, 64), 1),
    "(N, 1024)": ((1 << 19, 1024), 1),
    "(N, 16384)": ((1 << 15, 16_384), 1),
    "NCHW 224": ((3328, 3, 224, 224), 1),
    "NCHW 112": ((640, 64, 112, 112), 1),
    "NCHW 56": ((640, 256, 56, 56), 1),
    "NCHW 7": ((5120, 2048, 7, 7), 1),
    "ResNet 64x112": ((256, 64, 112, 112), 1),
    "ResNet 64x56": ((256, 64, 56, 56), 1),
    "ResNet 256x56": ((256, 256, 56, 56), 1),
    "ResNet 512x28": ((256, 512, 28, 28), 1),
    "ResNet 1024x14": ((256, 1024, 14, 14), 1),
    "ResNet 2048x7": ((256, 2048, 7, 7), 1),
    "small (256, 64)": ((256, 64), 1),
}
BYTES = {"eval": 2, "train": 3, "backward": 5}  # arrays that are read or written
L2 = 50 << 20
EPS = 1e-5


@dataclass(frozen=True)
class Problem:
    """Input sets of one shape and dtype, as tensors; together larger than the cache."""

    name: str
    axis: int
    sets: list

    @property
    def nbytes(self):
        """Bytes of x."""
        x = self.sets[0][0]
        return math.prod(x.shape) * (x.element_size() if hasattr(x, "element_size") else x.dtype.itemsize)


# What shows that a library computes on this device, and not only that it is there.
TRIALS = {"torch": lambda torch: torch.zeros(1, device="cuda") + 1, "cupy": lambda cupy: cupy.zeros(1) + 1}


@cache
def libraries():
    """Which of PyTorch and CuPy can compute here, with their versions."""
    found = {}
    for name, trial in TRIALS.items():
        if importlib.util.find_spec(name):
            try:
                library = importlib.import_module(name)
                trial(library)
                found[name] = str(library.__version__)
            except Exception as error:  # for the CPU alone, of another CUDA version, or without a part of it
                print(f"{name} is there and does not compute here: {type(error).__name__}: {error}")
    return found


def problem(name, dtype, scale=1.0):
    """Random arrays of a shape: (x, y, dy) for each set; tensors where PyTorch is there, else numbabn's own."""
    shape, axis = SHAPES[name]
    if not name.startswith("small"):
        shape = (max(2, int(shape[0] * scale)), *shape[1:])
    itemsize = 4 if dtype == "float32" else 2
    number = max(2, min(8, -(-4 * L2 // (math.prod(shape) * itemsize))))
    make = _tensors if "torch" in libraries() else own.arrays
    return Problem(name, axis, [make(shape, dtype) for _ in range(number)])


def _tensors(shape, dtype):
    import torch

    x = torch.empty(shape, dtype=getattr(torch, dtype), device="cuda").normal_(3, 2)
    return x, torch.full_like(x, math.nan), torch.empty_like(x).normal_()


def ours(p, task):
    """(works of numbabn, one for each set; the BatchNorm that each of them uses)."""
    import numbabn

    channels = p.sets[0][0].shape[p.axis]
    bn = numbabn.BatchNorm(channels, axis=p.axis, eps=EPS, gamma=1.0, beta=0.0).to("cuda")
    bn(p.sets[0][0], training=True)
    same = [bn] * len(p.sets)
    if task == "eval":
        return [lambda x=x, y=y: bn(x, out=y) for x, y, _ in p.sets], same
    if task == "train":
        return [lambda x=x, y=y: bn(x, training=True, out=y) for x, y, _ in p.sets], same
    bns = [bn.copy() for _ in p.sets]
    pairs = list(zip(bns, p.sets, strict=True))
    for one, (x, _, _) in pairs:
        one(x, training=True)
    return [lambda one=one, x=x, y=y, dy=dy: one.backward(dy, x, out=y) for one, (x, y, dy) in pairs], bns


def wrong(p, task, works, bns):
    """What is wrong with an answer, by float64, in the first and last channel; "" for nothing, None if not looked at.

    Arrays of PyTorch are looked at on the device, others on the host where they are not large.
    """
    x, y, dy = p.sets[0]
    if isinstance(x, DeviceArray):
        return own.wrong(p, task, works, bns) if p.nbytes <= own.LOOKED_AT else None
    import torch

    y.fill_(math.nan)
    works[0]()
    for c in (0, x.shape[p.axis] - 1):
        values, g = x.select(p.axis, c).double(), dy.select(p.axis, c).double()
        wanted = expected(task, values, g, bns[0], c)
        bad = ~((y.select(p.axis, c).double() - wanted).abs() <= 8 * torch.finfo(x.dtype).eps * (wanted.abs() + 1))
        if bad.any():
            return f"{int(bad.sum())} of {bad.numel()} values of channel {c} are wrong"
    return ""


def expected(task, values, g, bn, c):
    """What a task should give for one channel; values and g in float64, of PyTorch or NumPy."""
    mean, var = values.mean(), ((values - values.mean()) ** 2).mean()
    if task == "eval":
        mean, var = float(bn.running_mean[c]), float(bn.running_var[c])
    inverse = (var + EPS) ** -0.5
    normal = (values - mean) * inverse
    return normal if task != "backward" else (g - g.mean() - normal * (g * normal).mean()) * inverse


def torchs(p, task):
    """Works of PyTorch."""
    import torch
    from torch.nn import functional

    channels = p.sets[0][0].shape[p.axis]
    weight, bias, mean, var = (torch.full((channels,), v, device="cuda") for v in (1.0, 0.0, 0.0, 1.0))
    if task in ("eval", "train"):
        train = task == "train"
        return [lambda x=x: functional.batch_norm(x, mean, var, weight, bias, train, 0.1, EPS) for x, _, _ in p.sets]
    made = []
    for x, _, dy in p.sets:
        _, save_mean, save_inverse = torch.native_batch_norm(x, weight, bias, mean, var, True, 0.1, EPS)
        made.append(
            lambda x=x, dy=dy, m=save_mean, i=save_inverse: torch.ops.aten.native_batch_norm_backward(
                dy, x, weight, mean, var, m, i, True, EPS, [True, True, True]
            )
        )
    return made


def compiled(p, task):
    """Works of torch.compile over the same function; None for a task that it has no function for."""
    import torch
    from torch.nn import functional

    if task not in ("eval", "train"):
        return None
    channels, train = p.sets[0][0].shape[p.axis], task == "train"
    weight, bias, mean, var = (torch.full((channels,), v, device="cuda") for v in (1.0, 0.0, 0.0, 1.0))

    def batch_norm(x):
        return functional.batch_norm(x, mean, var, weight, bias, train, 0.1, EPS)

    torch._dynamo.reset()
    fast = torch.compile(batch_norm, dynamic=False)
    return [lambda x=x: fast(x) for x, _, _ in p.sets]


def cupys(p, task):
    """Works of CuPy, as one writes them."""
    import cupy

    if task not in ("eval", "train") or str(p.sets[0][0].dtype) == "torch.bfloat16":
        return None
    arrays = [cupy.from_dlpack(x) for x, _, _ in p.sets]
    axes = tuple(d for d in range(arrays[0].ndim) if d != p.axis)
    shape = tuple(n if d == p.axis else 1 for d, n in enumerate(arrays[0].shape))
    mean, scale = cupy.zeros(shape, arrays[0].dtype), cupy.ones(shape, arrays[0].dtype)

    @cupy.fuse()
    def transform(x, mean, scale):
        return (x - mean) * scale

    def train(x):
        m = x.mean(axes, keepdims=True)
        return transform(x, m, 1 / cupy.sqrt(x.var(axes, keepdims=True) + EPS))

    if task == "eval":
        return [lambda x=x: transform(x, mean, scale) for x in arrays]
    return [lambda x=x: train(x) for x in arrays]


CONTENDERS = {"torch": torchs, "torch.compile": compiled, "cupy": cupys}
