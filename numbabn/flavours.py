"""How other systems normalize batches: one table, a row for each.

A row gives the options of a BatchNorm that reproduces the system, and how the system calls its factor.
Each was read from the source that it names, and tests compare it with the system itself or with what that
gave when it was recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import checks


class _Unset:
    """An option that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<default>"

    def __reduce__(self) -> str:
        return "UNSET"  # there is one


UNSET: Any = _Unset()


@dataclass(frozen=True, slots=True)
class Flavour:
    """One system's conventions.

    `argument` is its own name for the factor of the running averages, `weighs` what that factor weighs
    ("old" average or "new" batch) and `factor` its default, None where it has to be given. `least_eps` is
    what a smaller eps is raised to, `without_momentum` the average that ``momentum=None`` asks for. `gamma`
    and `beta` say whether the system has them unless told otherwise. The others are options of
    `numbabn.BatchNorm`.
    """

    name: str
    system: str
    source: str
    argument: str | None = None
    weighs: str | None = None
    factor: float | None = None
    average: str = "exponential"
    without_momentum: str = "cumulative"
    axis: int | None = -1
    eps: float = 1e-5
    least_eps: float = 0.0
    ddof: float = 0
    gamma: bool = False
    beta: bool = False
    single: str = "beta"
    constant: str = "normalize"
    normalize_by: str = "batch"
    prior: tuple[float, float, float] = (0, 0, 1)
    nonfinite: str = "propagate"
    nan_policy: str = "propagate"
    activation: tuple[Any, ...] | None = None

    @property
    def momentum(self) -> float | None:
        """The default factor as the weight of the new batch; None where the system has no default, or no factor."""
        if self.factor is None or self.weighs == "new":
            return self.factor
        return 1 - self.factor

    def filled(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options that a caller wrote, with those of the row where nothing was written."""
        return {name: getattr(self, name) if value is UNSET else value for name, value in given.items()}


OWN = Flavour(
    name="numbabn",
    system="numbabn.BatchNorm without a flavour",
    source="numbabn/flavours.py",
    argument="momentum",
    weighs="new",
    factor=0.1,
    nonfinite="skip",
)
ROWS = (
    Flavour(
        name="tf_contrib",
        system="tf.contrib.layers.batch_norm(fused=False)",
        source="tensorflow 1.15.5, contrib/layers/python/layers/layers.py, batch_norm",
        argument="decay",
        weighs="old",
        factor=0.999,
        eps=1e-3,
        beta=True,
    ),
    Flavour(
        name="tf_contrib_fused",
        system="tf.contrib.layers.batch_norm, fused (its default)",
        source="tensorflow 1.15.5, there, _fused_batch_norm, and python/ops/nn_impl.py, fused_batch_norm",
        argument="decay",
        weighs="old",
        factor=0.999,
        eps=1e-3,
        least_eps=1.001e-5,
        ddof=1,
        beta=True,
    ),
    Flavour(
        name="keras",
        system="keras.layers.BatchNormalization",
        source="keras 3.15.1, src/layers/normalization/batch_normalization.py",
        argument="momentum",
        weighs="old",
        factor=0.99,
        eps=1e-3,
        gamma=True,
        beta=True,
    ),
    Flavour(
        name="torch",
        system="torch.nn.BatchNorm1d, 2d, 3d",
        source="torch 2.13.0, nn/modules/batchnorm.py and nn/functional.py, batch_norm",
        argument="momentum",
        weighs="new",
        factor=0.1,
        without_momentum="equal",
        axis=1,
        ddof=1,
        gamma=True,
        beta=True,
        single="raise",
    ),
    Flavour(
        name="flax",
        system="flax.linen.BatchNorm",
        source="flax 0.12.8, linen/normalization.py",
        argument="momentum",
        weighs="old",
        factor=0.99,
        gamma=True,
        beta=True,
    ),
    Flavour(
        name="haiku",
        system="haiku.BatchNorm",
        source="dm-haiku 0.0.17, _src/batch_norm.py and _src/moving_averages.py",
        argument="decay_rate",
        weighs="old",
        average="debiased",
        prior=(0, 0, 0),
    ),
    Flavour(
        name="onnx",
        system="the operator BatchNormalization",
        source="onnx 1.23.2, operator set 15, and reference/ops/op_batch_normalization.py",
        argument="momentum",
        weighs="old",
        factor=0.9,
        axis=1,
        gamma=True,
        beta=True,
    ),
    Flavour(
        name="sklearn",
        system="sklearn.preprocessing.StandardScaler, partial_fit and transform",
        source="scikit-learn 1.9.1, preprocessing/_data.py",
        average="cumulative",
        eps=0.0,
        constant="center",
        normalize_by="running",
        nonfinite="raise",
        nan_policy="omit",
    ),
    Flavour(
        name="gymnasium",
        system="gymnasium.wrappers.NormalizeObservation, also of vectors",
        source="gymnasium 1.4.0, wrappers/utils.py, RunningMeanStd, and wrappers/stateful_observation.py",
        average="cumulative",
        axis=None,
        eps=1e-8,
        normalize_by="running",
        prior=(1e-4, 0, 1),
    ),
    Flavour(
        name="sb3",
        system="stable_baselines3.common.vec_env.VecNormalize, observations",
        source="stable-baselines3 2.9.2, common/running_mean_std.py and common/vec_env/vec_normalize.py",
        average="cumulative",
        axis=None,
        eps=1e-8,
        normalize_by="running",
        prior=(1e-4, 0, 1),
        activation=("clip", -10.0, 10.0),
    ),
)
NAMES = tuple(row.name for row in ROWS)


def named(name: Any) -> Flavour:
    """The row of a flavour; numbabn's own for None."""
    return OWN if name is None else ROWS[NAMES.index(checks.choice(name, "flavour", NAMES))]


def markdown() -> str:
    """The table of docs/flavours.md."""
    head = ("flavour", "stands for", "its factor", "average", "eps", "ddof", "gamma, beta", "channels", "and")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in (OWN, *ROWS):
        factor = "-"
        if row.argument:
            default = "to be given" if row.factor is None else f"{row.factor:g}"
            factor = f"`{row.argument}`, weighs the {row.weighs}, {default}"
        parameters = [name for name, there in (("gamma", row.gamma), ("beta", row.beta)) if there]
        channels = "all but the first" if row.axis is None else "last" if row.axis == -1 else "second"
        eps = f"{row.eps:g}" + (f", at least {row.least_eps:g}" if row.least_eps else "")
        cells = (row.name, row.system, factor, row.average, eps, row.ddof, ", ".join(parameters) or "-", channels)
        lines.append("| " + " | ".join(map(str, cells)) + f" | {_differences(row)} |")
    return "\n".join(lines) + "\n"


def _differences(row: Flavour) -> str:
    """The other options of a row that are not numbabn's own."""
    names = ("nonfinite", "nan_policy", "single", "constant", "normalize_by", "prior", "activation")
    different = [f"`{n}={getattr(row, n)!r}`" for n in names if getattr(row, n) != getattr(OWN, n)]
    if row.without_momentum != OWN.without_momentum:
        different.append(f"`momentum=None` means {row.without_momentum!r}")
    return ", ".join(different) or "-"
