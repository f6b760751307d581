"""Head entity, relation type and tail entity -> a score: layers that `triples_layer` names.

They are scores of knowledge graph embeddings; h, r and t are the three vectors. Written for evaluation: the package's
dropout is left out.

Vectors may broadcast, as (N, 1, D) entities of N pairs and (C, D) relation types do. What is made of the pair or of the
relation type alone is then computed once a pair or once a type, where rows of all (N x C, D) triples repeat it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import expect_layer
from gliner_fast.errors import UnsupportedCheckpointError
from gliner_fast.precision import widened

_FARTHEST = 10.0  # distances are cut off here


def _closeness(difference: Tensor, order: int = 2) -> Tensor:
    """Negative length of differences, (..., D) -> (...), from -10 to 0."""
    length: Tensor = torch.linalg.vector_norm(difference, order, dim=-1)
    return -length.clamp(max=_FARTHEST)


# --- formulas without parameters: (h, r, t), each (..., D), that broadcast -> (...) -----------------------------------
# The products are all linear in r. It is multiplied last, so that the rest is computed once a pair.


def _simple(h: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """SimplE (Kazemi and Poole 2018): the mean of both directions, each with its half of the relation."""
    (forward_h, backward_h), (forward_t, backward_t) = h.chunk(2, -1), t.chunk(2, -1)
    return 0.5 * (r * torch.cat([forward_h * backward_t, forward_t * backward_h], -1)).sum(-1)


def _complex(h: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """ComplEx (Trouillon et al. 2016): Re(h r conj(t)); the first half is real, the second imaginary."""
    (real_h, imag_h), (real_t, imag_t) = h.chunk(2, -1), t.chunk(2, -1)
    return (r * torch.cat([real_h * real_t + imag_h * imag_t, real_h * imag_t - imag_h * real_t], -1)).sum(-1)


def _quaternion(h: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """QuatE (Zhang et al. 2019): (Hamilton product of h and r) . t, with r taken out; quarters are 1, i, j, k."""
    (h0, h1, h2, h3), (t0, t1, t2, t3) = h.chunk(4, -1), t.chunk(4, -1)
    of_pair = [
        h0 * t0 + h1 * t1 + h2 * t2 + h3 * t3,
        h0 * t1 - h1 * t0 + h3 * t2 - h2 * t3,
        h0 * t2 - h2 * t0 + h1 * t3 - h3 * t1,
        h0 * t3 - h3 * t0 + h2 * t1 - h1 * t2,
    ]
    return (r * torch.cat(of_pair, -1)).sum(-1)


def _holographic(h: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """HolE (Nickel et al. 2016): r . (circular correlation of h and t), by the Fourier transform."""
    correlation: Tensor = torch.fft.irfft(torch.fft.rfft(h).conj() * torch.fft.rfft(t), n=h.shape[-1])
    return (r * correlation).sum(-1)


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "UM": lambda h, _, t: _closeness(h - t),
    "SE": lambda h, r, t: _closeness(r * h - r * t),
    "TransE": lambda h, r, t: _closeness(h + r - t, order=1),
    "DistMult": lambda h, r, t: (r * (h * t)).sum(-1),
    "SimplE": _simple,
    "DistMA": lambda h, r, t: (r * (h + t)).sum(-1) + (h * t).sum(-1),
    "ComplEx": _complex,
    "QuatE": _quaternion,
    "HolE": _holographic,
}
_PARTS = {"SimplE": 2, "ComplEx": 2, "QuatE": 4}  # that a vector is cut into


class Formula(nn.Module):
    """A mode that has no parameters."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode  # and not the function: a lambda cannot be pickled

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        return _FORMULAS[self.mode](widened(heads), widened(relations), widened(tails))


# --- layers with parameters, by the package's names -------------------------------------------------------------------


class TransH(nn.Module):
    """-|h' + A r - t'|, with h' and t' on the hyperplane whose normal w is along W r (Wang et al. 2014)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_rtr = nn.Linear(width, width)
        self.r_to_w = nn.Linear(width, width)

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        normal = F.normalize(widened(self.r_to_w(relations)), dim=-1)
        apart = widened(heads) - widened(tails)  # h' - t' is the projection of h - t
        apart = apart - (apart * normal).sum(-1, keepdim=True) * normal
        return _closeness(apart + widened(self.r_to_rtr(relations)))


class PairRE(nn.Module):
    """-|a * h - b * t|, with a and b made of r (Chao et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_alpha = nn.Linear(width, width)
        self.r_to_beta = nn.Linear(width, width)

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        return _closeness(self.apart(heads, relations, tails))

    def apart(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """The vector a * h - b * t, (..., D)."""
        alpha, beta = widened(self.r_to_alpha(relations)), widened(self.r_to_beta(relations))
        return alpha * widened(heads) - beta * widened(tails)


class TransF(PairRE):
    """-|a * h + d - b * t|, with a, b and d made of r, as the package has it."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.r_to_rvec = nn.Linear(width, width)

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        return _closeness(self.apart(heads, relations, tails) + widened(self.r_to_rvec(relations)))


class TripleRE(PairRE):
    """-c |a * h + d - b * t|, with a, b, d and the number c made of r, as the package has it."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.r_to_delta = nn.Linear(width, width)
        self.r_to_gamma = nn.Linear(width, 1)

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        closeness = _closeness(self.apart(heads, relations, tails) + widened(self.r_to_delta(relations)))
        return widened(self.r_to_gamma(relations))[..., 0] * closeness


class ERMLP(nn.Module):
    """w . relu(W [h ; r ; t] + c) + d (Dong et al. 2014), with W split into thirds (DESIGN 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3 * width, 2048), nn.ReLU(), nn.Linear(2048, 1))

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        first, out = (expect_layer(self.mlp[at], nn.Linear, f"relations.triples.interaction.mlp.{at}") for at in (0, 2))
        of_head, of_relation, of_tail = first.weight.chunk(3, dim=1)
        of_pair = widened(F.linear(heads, of_head, first.bias)) + widened(F.linear(tails, of_tail))
        inner = (of_pair + widened(F.linear(relations, of_relation))).relu_()  # (..., 2048)
        return F.linear(inner, widened(out.weight), widened(out.bias))[..., 0]


class ConvKB(nn.Module):
    """sum over filters f of v_f . relu(a_f h + b_f r + c_f t + d_f), with numbers a, b, c, d (Nguyen et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 32, kernel_size=1)
        self.fc = nn.Linear(32 * width, 1)

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """(..., D) three times -> (...)."""
        heads, relations, tails = widened(heads), widened(relations), widened(tails)
        conv = expect_layer(self.conv, nn.Conv1d, "relations.triples.interaction.conv")
        fc = expect_layer(self.fc, nn.Linear, "relations.triples.interaction.fc")
        filters, biases = widened(conv.weight)[..., 0], widened(cast(Tensor, conv.bias))  # (F, 3), (F,)
        outs = widened(fc.weight).view(len(filters), -1)  # (F, D)
        scores = widened(fc.bias)
        # A filter at a time: all at once would be F times as much memory, and repeat what is made of the pair alone.
        for (of_head, of_relation, of_tail), bias, out in zip(filters, biases, outs, strict=True):
            inner = (of_head * heads + of_tail * tails) + (of_relation * relations + bias)  # (..., D)
            scores = scores + inner.relu_() @ out
        return scores


_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "TransH": TransH,
    "TransF": TransF,
    "PairRE": PairRE,
    "TripleRE": TripleRE,
    "ERMLP": ERMLP,
    "ConvKB": ConvKB,
}
# The package builds them with this width, whatever hidden_size is: at another its models load, but cannot run.
PARAMETRIC_WIDTH = 768


class TripleScorer(nn.Module):
    """A layer of any mode, in the place that gives its parameters the package's names below `triples_score_layer.`."""

    def __init__(self, interaction: nn.Module) -> None:
        super().__init__()
        self.interaction = interaction

    def forward(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """Raw scores of triples, in float32 or wider: the higher, the likelier.

        Args:
            heads: (..., D) vectors of head entities.
            relations: (..., D) vectors of relation types.
            tails: (..., D) vectors of tail entities. The three broadcast: (P, D) each make (P,) scores, (N, 1, D),
                (C, D) and (N, 1, D) make (N, C).
        """
        shapes = heads.shape, relations.shape, tails.shape
        shape: torch.Size = torch.broadcast_shapes(*shapes)[:-1]  # type: ignore[no-untyped-call]
        if 0 in shape:  # not every Fourier transform has an answer for no rows
            return widened(heads.new_zeros(shape))
        scores: Tensor = self.interaction(heads, relations, tails)
        return scores.expand(shape)  # of UM, which does not look at the relation type


def triple_scorer(mode: str, width: int) -> TripleScorer:
    """The layer of a mode.

    Args:
        mode: the setting `triples_layer`, one of `config.TRIPLES_LAYERS`.
        width: numbers of an entity vector, the setting hidden_size.

    Raises:
        UnsupportedCheckpointError: the package itself cannot run the mode at this width.
    """
    if width % _PARTS.get(mode, 1):
        raise UnsupportedCheckpointError(
            f"triples_layer is {mode!r}, which cuts vectors into {_PARTS[mode]} parts: hidden_size is {width}"
        )
    if mode in _FORMULAS:
        return TripleScorer(Formula(mode))
    if width != PARAMETRIC_WIDTH:
        raise UnsupportedCheckpointError(
            f"triples_layer is {mode!r}, which gliner builds for a hidden_size of {PARAMETRIC_WIDTH} alone: "
            f"it is {width}"
        )
    return TripleScorer(_LAYERS[mode](width))
