"""Labelled Gaussian mixtures: data whose noisy densities, scores and denoisers have closed forms."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor


class GaussianMixture:
    """p(x) = sum_j w_j N(x; mu_j, S_j), where component j belongs to class classes[j].

    With x_t = x + sigma eps every component stays Gaussian, of covariance S_j + sigma^2 I, so that what
    a diffusion model learns is known exactly: p_t(x_t|c), its score, the denoiser, p(c|x_t).

    Args:
        weights: [J], positive, summing to 1.
        means: [J,D]. D is small (1 and 2 in this project): every query costs J D^2 a point.
        covariances: [J,D,D], symmetric positive definite; `isotropic` takes standard deviations instead.
        classes: [J] integers; each of 0 .. M-1 has a component.

    Shapes    x: [...,D]. sigma, a noise level in units of x: a number or [...]. c, class indices: None
              (the marginal over classes), a number or int64 [...]. They broadcast: x [N,1,D] with c [N,K]
              gives [N,K].
    Dtypes    float64 arithmetic; results in x's dtype, on x's device.
    Errors    ValueError where the parameters are no mixture, or x has another D.
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, classes: ArrayLike):
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.means = torch.as_tensor(means, dtype=torch.float64)
        self.covariances = torch.as_tensor(covariances, dtype=torch.float64)
        self.classes = torch.as_tensor(classes, dtype=torch.int64)
        self._check()
        self.num_classes = int(self.classes.max()) + 1
        self.class_probs = torch.zeros(self.num_classes, dtype=torch.float64)
        self.class_probs.index_add_(0, self.classes, self.weights)  # p(c), [M]
        # S + sigma^2 I has S's eigenvectors at every sigma: one decomposition answers all queries.
        self._variances, self._axes = torch.linalg.eigh(self.covariances)
        if not bool((self._variances > 0).all()):
            raise ValueError(
                f"covariances must be positive definite; the smallest eigenvalue is {self._variances.min()}."
            )

    @classmethod
    def isotropic(
        cls, weights: ArrayLike, means: ArrayLike, stds: ArrayLike, classes: ArrayLike
    ) -> GaussianMixture:
        """The mixture with S_j = stds[j]^2 I; stds: [J]."""
        variances = torch.as_tensor(stds, dtype=torch.float64).square()
        dim = torch.as_tensor(means).shape[-1]
        return cls(weights, means, variances[:, None, None] * torch.eye(dim, dtype=torch.float64), classes)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0, c: Tensor | int | None = None) -> Tensor:
        """log p_t(x|c), or log p_t(x) for c = None; [...]."""
        return self._joint(x, sigma, c)[0].logsumexp(dim=-1).to(x.dtype)

    def log_posterior(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p(c|x_t) of every class c; [...,M]."""
        log_joint, _ = self._joint(x, sigma, None)
        by_class = [log_joint[..., self.classes == c].logsumexp(dim=-1) for c in range(self.num_classes)]
        return torch.stack(by_class, dim=-1).log_softmax(dim=-1).to(x.dtype)

    def log_ratio(self, x: Tensor, sigma: Tensor | float, c: Tensor | int) -> Tensor:
        """log p_t(x|c) / p_t(x) = log p(c|x_t) / p(c), at most -log p(c); [...].

        Its exponential is the weight a of weighted MCLR (eq. 23, 126).
        """
        ratio = self.log_prob(x.double(), sigma, c) - self.log_prob(x.double(), sigma)
        return ratio.to(x.dtype)

    def score(self, x: Tensor, sigma: Tensor | float = 0.0, c: Tensor | int | None = None) -> Tensor:
        """grad_x log p_t(x|c), or of log p_t(x) for c = None; [...,D]."""
        log_joint, scores = self._joint(x, sigma, c)
        return (log_joint.softmax(dim=-1)[..., None] * scores).sum(dim=-2).to(x.dtype)

    def denoise(self, x: Tensor, sigma: Tensor | float, c: Tensor | int | None = None) -> Tensor:
        """The ideal denoiser E[x_0 | x_t = x, c] = x + sigma^2 score (Tweedie; eq. 147); [...,D]."""
        variance = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).square()
        denoised = x.double() + variance[..., None] * self.score(x.double(), sigma, c)
        return denoised.to(x.dtype)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Clean samples and their classes: float64 [N,D], int64 [N], on the CPU."""
        component = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        z = torch.randn(num_samples, self.means.shape[1], dtype=torch.float64, generator=generator)
        z = (self._axes[component] @ (self._variances[component].sqrt() * z)[..., None])[..., 0]
        return self.means[component] + z, self.classes[component]

    def _joint(self, x: Tensor, sigma: Tensor | float, c: Tensor | int | None) -> tuple[Tensor, Tensor]:
        """log p(x_t, j | c) [...,J] and every component's score [...,J,D], float64."""
        if x.shape[-1:] != self.means.shape[1:]:
            raise ValueError(
                f"x is {list(x.shape)}, but the mixture's points are [..., {self.means.shape[1]}]."
            )
        device = x.device
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device=device)
        axes, means = self._axes.to(device), self.means.to(device)
        variances = self._variances.to(device) + sigma[..., None, None].square()
        along = ((x.double()[..., None, :] - means)[..., None, :] @ axes)[..., 0, :]
        log_density = -0.5 * (along.square() / variances + (2 * math.pi * variances).log()).sum(dim=-1)
        scores = -(axes @ (along / variances)[..., None])[..., 0]
        log_joint = log_density + self.weights.to(device).log()
        if c is not None:
            c = torch.as_tensor(c, device=device)
            own = self.classes.to(device) == c[..., None]
            log_joint = log_joint - self.class_probs.to(device)[c].log()[..., None]
            log_joint = log_joint.masked_fill(~own, -math.inf)
        return log_joint, scores

    def _check(self) -> None:
        num_components = self.weights.numel()
        dim = self.means.shape[-1] if self.means.ndim else 0
        shapes = {"weights": (num_components,), "classes": (num_components,)}
        shapes |= {"means": (num_components, dim), "covariances": (num_components, dim, dim)}
        for name, wanted in shapes.items():
            if tuple(getattr(self, name).shape) != wanted:
                seen = ", ".join(f"{key} {list(getattr(self, key).shape)}" for key in shapes)
                raise ValueError(
                    f"{name} does not fit ({seen}): a mixture of J components in D dimensions takes "
                    "weights [J], means [J,D], covariances [J,D,D] and classes [J]."
                )
        total = float(self.weights.sum())
        if not bool((self.weights > 0).all()) or abs(total - 1) > 1e-9:
            raise ValueError(f"weights must be positive and sum to 1; they are {self.weights.tolist()}.")
        present = self.classes.unique().tolist()
        if present != list(range(len(present))):
            raise ValueError(f"classes must be 0 .. M-1, each with a component; they are {present}.")
