"""The activations that may follow the normalization, by name."""

from __future__ import annotations

import math
from typing import Any

from . import checks

# name: (what the kernels call it, the numbers it takes where none are given)
TABLE: dict[str, tuple[str, tuple[float, ...]]] = {
    "relu": ("Clip", (0.0, math.inf)),
    "relu6": ("Clip", (0.0, 6.0)),
    "clip": ("Clip", (-math.inf, math.inf)),
    "leaky_relu": ("Leaky", (0.01,)),
    "elu": ("Elu", (1.0,)),
    "gelu": ("Gelu", (1.0,)),
    "silu": ("Silu", (1.0,)),
    "hard_swish": ("HardSwish", (6.0,)),
    "sigmoid": ("Sigmoid", (1.0,)),
    "hard_sigmoid": ("HardSigmoid", (6.0,)),
    "tanh": ("Tanh", (1.0,)),
    "softplus": ("Softplus", (1.0,)),
}
_TAKES = {"clip": 2, "leaky_relu": 1, "elu": 1}  # how many numbers may be given


def checked(value: Any) -> tuple[Any, ...] | None:
    """(name, *numbers) of an activation as a caller writes it: a name, or a tuple of it and its numbers."""
    if value is None:
        return None
    name, *numbers = value if isinstance(value, (tuple, list)) and value else (value,)
    name = checks.choice(name, "activation", tuple(TABLE))
    wanted = _TAKES.get(name, 0)
    if len(numbers) not in (0, wanted) or (name == "clip" and not numbers):
        example = ("clip", -10, 10) if name == "clip" else (name, *TABLE[name][1]) if wanted else name
        raise ValueError(
            f"`activation` is {value!r}, with {len(numbers)} number{'s' * (len(numbers) != 1)}; "
            f"{name!r} takes {wanted}: for example {example!r}"
        )
    given = tuple(checks.number(number, "activation") + 0.0 for number in numbers)  # -0 and 0 are equal, and the same
    if any(math.isnan(number) for number in given) or (name == "clip" and given[0] > given[1]):
        raise ValueError(f"`activation` is {value!r}; expected numbers, for 'clip' the lower one first")
    return (name, *given)


def kernel_form(spec: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """What a backend takes for a checked activation: the kernels' name and all numbers."""
    if spec is None:
        return None
    kind, numbers = TABLE[spec[0]]
    return (kind, *(spec[1:] or numbers))
