"""Bases on mixtures of tasks: one vertex per task, or one code per task."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from cl_manifold.geometry.basis import Basis, Growth
from cl_manifold.geometry.topology import Simplex


@final
class Vertices(Basis):
    """Barycentric coordinates: one control point per pure task, mixtures in between.

    φ(c) = c
    """

    strength = 300.0

    def __init__(self, count: int) -> None:
        self.topology = Simplex(count)
        self.size = count

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """The mixture itself."""
        return self.topology.wrap(context)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """The identity: the simplex' coordinates are those of the space around it."""
        c = self.topology.wrap(context)
        return torch.eye(self.size).to(c).expand(*c.shape[:-1], -1, -1)

    def gram(self) -> Float[Tensor, "K K"]:
        """G = (I + 11ᵀ) / (K (K + 1)): second moments of Dirichlet(1, …, 1)."""
        return _mixture_gram(self.size)

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = I − 11ᵀ/K: only directions inside the simplex count."""
        return _mixture_stiffness(self.size)

    def constant(self) -> Float[Tensor, " K"]:
        """All ones: a mixture sums to one."""
        return torch.ones(self.size, dtype=torch.float64)

    def grown(self) -> Growth:
        """One more vertex; its control point starts at zero."""
        matrix = torch.eye(self.size + 1, self.size, dtype=torch.float64)
        return Growth(Vertices(self.size + 1), matrix, _without_new_task)

    def spec(self) -> dict[str, Any]:
        """Kind and number of vertices."""
        return {"kind": "vertices", "count": self.size}


@final
class Codes(Basis):
    """One fixed unit vector per task; a mixture of tasks has the mixture of their codes.

    φ(c) = Vᵀ c,   so φ(e_i) = V_i for the pure task i

    Attributes:
        vectors: V, one row per task (float64).
    """

    own_prior = True

    def __init__(self, vectors: Float[Tensor, "n K"]) -> None:
        self.vectors = vectors.detach().cpu().double()
        length = self.vectors.square().sum(-1).sqrt()
        worst = length[(length - 1).abs().argmax()]
        if not abs(float(worst) - 1) <= 1e-6:
            raise ValueError(
                f"codes must have length 1, got {float(worst):g}; divide each row by its length"
            )
        self.topology = Simplex(len(self.vectors))
        self.size = self.vectors.shape[1]

    def __call__(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch K"]:
        """φ(c) as in the class's formula."""
        c = self.topology.wrap(context)
        return c @ self.vectors.to(c)

    def derivative(self, context: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim K"]:
        """V at every context, in the coordinates of the space around the simplex."""
        c = self.topology.wrap(context)
        return self.vectors.to(c).expand(*c.shape[:-1], -1, -1)

    def gram(self) -> Float[Tensor, "K K"]:
        """G = Vᵀ (I + 11ᵀ) V / (n (n + 1)); singular while there are fewer tasks than functions."""
        return self.vectors.mT @ _mixture_gram(self.topology.dim) @ self.vectors

    def stiffness(self) -> Float[Tensor, "K K"]:
        """S = Vᵀ (I − 11ᵀ/n) V."""
        return self.vectors.mT @ _mixture_stiffness(self.topology.dim) @ self.vectors

    def constant(self) -> Float[Tensor, " K"] | None:
        """The shortest a with V a = 1, or None if there is none (to 1e-9)."""
        ones = torch.ones(self.topology.dim, dtype=torch.float64)
        a = torch.pinverse(self.vectors) @ ones
        exact = bool(((self.vectors @ a - ones).abs() < 1e-9).all())
        return a if exact else None

    def prior(self, mean: float = 1e-3) -> Float[Tensor, "K K"]:
        """I / K: which tasks will come is not known, and this is the mean of φφᵀ over codes."""
        return torch.eye(self.size, dtype=torch.float64) / self.size

    def grown(self) -> Growth:
        """One more dimension, with a different sign pattern over the tasks for every K.

        V' = (s V, r / √(K + 1)),   s = √(K / (K + 1)),   T = (I / s; 0)

        The sign r_i is that of row i and column K of the Hadamard matrix (Sylvester's order): the
        first n columns of its first n rows are independent, so repeated growth adds directions.
        """
        k = self.size
        sign = [(-1.0) ** (task & k).bit_count() for task in range(self.topology.dim)]
        new = torch.tensor(sign, dtype=torch.float64)[:, None] / (k + 1) ** 0.5
        shrink = (k / (k + 1)) ** 0.5
        larger = Codes(torch.cat([shrink * self.vectors, new], dim=-1))
        return Growth(larger, torch.eye(k + 1, k, dtype=torch.float64) / shrink)

    def with_task(self, vector: Float[Tensor, " K"]) -> Growth:
        """One more task with the code `vector`; as many functions as before, T = I."""
        row = vector.detach().cpu().double()[None]
        larger = Codes(torch.cat([self.vectors, row]))
        return Growth(larger, torch.eye(self.size, dtype=torch.float64), _without_new_task)

    def spec(self) -> dict[str, Any]:
        """Kind and the vectors."""
        return {"kind": "codes", "vectors": [[float(v) for v in row] for row in self.vectors]}


def random_codes(size: int, tasks: int, seed: int) -> Codes:
    """Independent codes, uniform on the unit sphere of R^size; all ones for size 1.

    More tasks with the same seed continue the same sequence of codes.

    >>> a, b = random_codes(3, 2, seed=0), random_codes(3, 5, seed=0)
    >>> bool((a.vectors == b.vectors[:2]).all())
    True
    """
    if size == 1:
        return Codes(torch.ones(tasks, 1, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(tasks)]
    return Codes(torch.stack([row / row.square().sum().sqrt() for row in rows]))


def _mixture_gram(count: int) -> Tensor:
    eye = torch.eye(count, dtype=torch.float64)
    return (eye + 1) / (count * (count + 1))


def _mixture_stiffness(count: int) -> Tensor:
    return torch.eye(count, dtype=torch.float64) - 1 / count


def _without_new_task(context: Tensor) -> Tensor:
    """The same mixture among one more task, of which it has nothing."""
    return torch.nn.functional.pad(context, (0, 1))
