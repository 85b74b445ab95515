r"""A chain of latents: several layers, concatenated, as one latent that every bound takes as it is.

.. math:: p(z) = p(z_T) \prod_{t=2}^{T} p(z_{t-1} \mid z_t), \qquad
          q(z \mid x) = q(z_1 \mid x) \prod_{t=2}^{T} q(z_t \mid z_{t-1}, x)

``z (S, B, L_1 + ... + L_T)`` holds :math:`z_1, \dots, z_T` side by side, whichever way the chain is drawn. A link's
parameters depend on the draw, so the S draws of B data become one batch of S B densities; that happens in this file and
nowhere else. Chapter 9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Generator, Tensor, nn

from vae_lib import checks
from vae_lib.densities import DiagonalNormal
from vae_lib.models.encoders import NormalEncoder
from vae_lib.protocols import (
    ApproximatePosterior,
    Density,
    LatentVariableModel,
    Noise,
    NoiseDensity,
    ReparameterizedDensity,
)

# Takes the previous part (N, L'), and (N, G) of what is given if the chain has it; returns N densities of the next.
Link: TypeAlias = Callable[..., Density]

_Part = TypeVar("_Part")


class SampledMarkovChain:
    r"""B chains of T parts. Meets :class:`~vae_lib.protocols.Density`, whatever densities the links give.

    Parameters
    ----------
    first
        Density of the part where the chain begins: :math:`z_1`, or :math:`z_T` of a chain from the top down.
    links
        T - 1 functions in the order of drawing. Each takes the previous part ``(N, L')`` and returns N densities of the
        next one; with ``given``, it takes the given numbers ``(N, G)`` as its second argument.
    dims
        :math:`L_1, \dots, L_T`, in this order.
    top_down
        Whether the chain begins at :math:`z_T`. The layout of a value stays the same.
    given
        What all links see beside the previous part, ``(B, G)``: the data, for q.

    Raises
    ------
    ValueError
        If the numbers of links and parts do not fit, or a density has another size than its part.
    """

    def __init__(
        self,
        first: Density,
        links: Sequence[Link],
        dims: Sequence[int],
        *,
        top_down: bool = False,
        given: Tensor | None = None,
    ) -> None:
        check_dims(dims, len(links))
        start = dims[-1] if top_down else dims[0]
        if first.event_dim != start:
            raise ValueError(f"first: expected a density of {start} numbers, found {first.event_dim}")
        if given is not None:
            checks.shape("given", given, (first.batch_size, "G"))
        self.first, self.links, self.dims = first, tuple(links), tuple(dims)
        self.top_down, self.given = top_down, given

    @property
    def batch_size(self) -> int:
        """B."""
        return self.first.batch_size

    @property
    def event_dim(self) -> int:
        """L, the sum of the parts' lengths."""
        return sum(self.dims)

    def parts(self, value: Tensor) -> tuple[Tensor, ...]:
        """Split ``value (S, B, L)`` into its T parts ``(S, B, L_t)``, :math:`z_1` first."""
        checks.shape("value", value, ("S", self.batch_size, self.event_dim))
        return torch.split(value, list(self.dims), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value (S, B, L)``, ``(S, B)``, in nats."""
        return self.log_prob_of_parts(value).sum(0)

    def log_prob_of_parts(self, value: Tensor) -> Tensor:
        r"""Log-density of each part given the one before it in the chain, ``(T, S, B)``, in nats; :math:`z_1` first."""
        parts = self._drawn(self.parts(value))
        samples, batch = value.shape[:2]
        if samples == 0:
            return value.new_zeros(len(parts), 0, batch)
        terms = [self.first.log_prob(parts[0])]
        for link, previous, part in zip(self.links, parts, parts[1:], strict=False):
            density = self._next(link, previous, part.shape[-1])
            terms.append(density.log_prob(part.reshape(1, samples * batch, -1)).reshape(samples, batch))
        return torch.stack(self._drawn(terms))

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)`` that carry no gradient: ancestral sampling, part by part."""
        with torch.no_grad():
            return self._draw(num_samples, lambda density, count: density.sample(count, generator=generator))

    def _draw(self, num_samples: int, draw: Callable[[Density, int], Tensor]) -> Tensor:
        parts = [draw(self.first, num_samples)]
        for link, dim in zip(self.links, self._drawn(self.dims)[1:], strict=True):
            parts.append(draw(self._next(link, parts[-1], dim), 1).reshape(num_samples, self.batch_size, dim))
        return torch.cat(self._drawn(parts), dim=-1)

    def _drawn(self, parts: Sequence[_Part]) -> list[_Part]:
        """Return what is in the layout's order in the order of drawing, and the other way round."""
        return list(reversed(parts)) if self.top_down else list(parts)

    def _next(self, link: Link, previous: Tensor, dim: int) -> Density:
        """Return the S B densities of the next part for ``previous (S, B, L')``: only here axes are joined."""
        samples, batch = previous.shape[:2]
        flat = previous.reshape(samples * batch, previous.shape[-1])
        if self.given is None:
            density = link(flat)
        else:
            density = link(flat, self.given.expand(samples, *self.given.shape).reshape(samples * batch, -1))
        found = (density.batch_size, density.event_dim)
        if found != (samples * batch, dim):
            raise ValueError(f"link: expected densities (N, L) = {(samples * batch, dim)}, found {found}")
        return density


class MarkovChain(SampledMarkovChain):
    """A chain whose draws are differentiable, as those of all its links are.

    Meets :class:`~vae_lib.protocols.ReparameterizedDensity`, and :class:`~vae_lib.protocols.NoiseDensity` if all links
    do. Parameters as for :class:`SampledMarkovChain`.
    """

    def rsample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draws ``(S, B, L)``, differentiable in the parameters of all links."""
        return self._draw(
            num_samples,
            lambda density, count: cast(ReparameterizedDensity, density).rsample(count, generator=generator),
        )

    def noise(self, num_samples: int, *, generator: Generator) -> tuple[Noise, ...]:
        """Return the noise of each part in the order of drawing, first axes S and B; it carries no gradient."""
        found: list[Noise] = []

        def draw(density: Density, count: int) -> Tensor:
            noise = cast(NoiseDensity, density).noise(count, generator=generator)
            found.append(_each(noise, lambda part: part.reshape(num_samples, self.batch_size, *part.shape[2:])))
            return cast(NoiseDensity, density).from_noise(noise)

        with torch.no_grad():
            self._draw(num_samples, draw)
        return tuple(found)

    def from_noise(self, noise: tuple[Noise, ...]) -> Tensor:
        """The draws ``(S, B, L)`` that this noise makes, with gradients to the parameters of all links."""
        left = iter(noise)
        first = cast(NoiseDensity, self.first).from_noise(next(left))

        def draw(density: Density, _: int) -> Tensor:
            if density is self.first:
                return first
            joined = _each(next(left), lambda part: part.reshape(1, -1, *part.shape[2:]))
            return cast(NoiseDensity, density).from_noise(joined)

        return self._draw(first.shape[0], draw)


class HierarchicalModel(nn.Module):
    r"""A model whose prior is a chain. Meets :class:`~vae_lib.protocols.LatentVariableModel`.

    Parameters
    ----------
    bottom
        A model of x given :math:`z_1`: :class:`~vae_lib.models.DecoderModel`, for instance. Its own prior is not used.
    top
        Takes B, returns :math:`p(z_T)` repeated: :func:`~vae_lib.models.standard_normal` of :math:`L_T`, for instance.
    links
        The densities :math:`p(z_{T-1} \mid z_T), \dots, p(z_1 \mid z_2)`, in this order:
        :class:`~vae_lib.models.NormalEncoder` of a network is one.
    dims
        :math:`L_1, \dots, L_T`.
    """

    def __init__(
        self,
        bottom: LatentVariableModel,
        top: Callable[[int], Density],
        links: Sequence[Link],
        dims: Sequence[int],
    ) -> None:
        super().__init__()
        check_dims(dims, len(links))
        if bottom.latent_dim != dims[0]:
            raise ValueError(f"bottom: expected latents of {dims[0]} numbers, found {bottom.latent_dim}")
        self.bottom, self.top = bottom, top
        self.links, self.dims = tuple(links), tuple(dims)
        # Modules in a tuple, or in something that is no module, would not be found.
        inside = getattr(bottom, "__dict__", {}).values() if not isinstance(bottom, nn.Module) else ()
        self.held = nn.ModuleList(part for part in (*links, *inside) if isinstance(part, nn.Module))

    @property
    def data_dim(self) -> int:
        """D."""
        return self.bottom.data_dim

    @property
    def latent_dim(self) -> int:
        """L, the sum of the parts' lengths."""
        return sum(self.dims)

    def prior(self, batch_size: int) -> MarkovChain:
        """The chain from the top down, repeated for ``batch_size`` data."""
        return MarkovChain(self.top(batch_size), self.links, self.dims, top_down=True)

    def log_p_x_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """Log-likelihood of ``x (B, D)`` under the first part of ``z (S, B, L)``, ``(S, B)``, in nats."""
        checks.shape("z", z, ("S", x.shape[0], self.latent_dim), like=x)
        return self.bottom.log_p_x_given_z(x, z[..., : self.dims[0]])

    def sample_x_given_z(self, z: Tensor, *, generator: Generator) -> Tensor:
        """One datum for each latent ``z (S, B, L)``: ``(S, B, D)``."""
        checks.shape("z", z, ("S", "B", self.latent_dim))
        return self.bottom.sample_x_given_z(z[..., : self.dims[0]], generator=generator)


class ChainEncoder(nn.Module):
    r"""A chain for each datum. Meets :class:`~vae_lib.protocols.ApproximatePosterior`.

    Parameters
    ----------
    first
        Maps ``x (B, D)`` to the density of the part where the chain begins.
    links
        T - 1 functions in the order of drawing: :class:`NormalLink` of a network, for instance.
    dims
        :math:`L_1, \dots, L_T`.
    top_down
        Whether the chain begins at :math:`z_T`.
    sees_x
        Whether the links take x as their second argument.
    """

    def __init__(
        self,
        first: ApproximatePosterior,
        links: Sequence[Link],
        dims: Sequence[int],
        *,
        top_down: bool = False,
        sees_x: bool = True,
    ) -> None:
        super().__init__()
        check_dims(dims, len(links))
        self.first, self.links, self.dims = first, tuple(links), tuple(dims)
        self.top_down, self.sees_x = top_down, sees_x
        self.held = nn.ModuleList(link for link in links if isinstance(link, nn.Module))

    def forward(self, x: Tensor) -> MarkovChain:
        """The chain for each of the B data in ``x (B, D)``."""
        given = x if self.sees_x else None
        return MarkovChain(self.first(x), self.links, self.dims, top_down=self.top_down, given=given)


class NormalLink(nn.Module):
    """A link with a normal density whose mean and log-variance a network puts out.

    Parameters
    ----------
    network
        Maps the previous part, and what is given beside it, ``(N, L' + G)``, to means and log-variances, ``(N, 2 L)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder = NormalEncoder(network)

    def forward(self, previous: Tensor, given: Tensor | None = None) -> DiagonalNormal:
        """The N densities of the next part for ``previous (N, L')`` and ``given (N, G)``."""
        density: DiagonalNormal = self.encoder(previous if given is None else torch.cat([previous, given], dim=1))
        return density


def check_dims(dims: Sequence[int], links: int) -> None:
    """Check that there is one part more than there are links, and that each has a length.

    Raises
    ------
    TypeError, ValueError
        If not.
    """
    for dim in dims:
        checks.positive_int("dims", dim)
    if len(dims) != links + 1:
        raise ValueError(f"dims: expected {links + 1} lengths for {links} links, found {len(dims)}")


def _each(noise: Noise, function: Callable[[Tensor], Tensor]) -> Noise:
    return function(noise) if isinstance(noise, Tensor) else tuple(function(part) for part in noise)
