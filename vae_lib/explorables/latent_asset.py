"""What the latent explorer carries: the decoder of a VAE, and codes of some training images, as plain JSON.

Nothing is lost on the way. Weights are kept in the narrowest of float16, float32 and float64 that holds each of them
exactly, and a page computes with numbers of 64 bits, as :func:`decode` does here: its grey levels are those of PyTorch
in float64. Codes are means of q(z | x), computed in float64 and rounded to thousandths. The small pictures beside the
decoded image have 256 grey levels up to 256 pixels, and 16 beyond. Or none are kept, where the data may not be passed
on: then they are decoded from the codes, and the figure says so.
"""

import base64
import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vae_lib import checks
from vae_lib.models import (
    VAE,
    BernoulliLikelihood,
    BinomialLikelihood,
    DiscretisedLogisticLikelihood,
    LearnedNormalLikelihood,
    NormalLikelihood,
    PredictedNormalLikelihood,
)

FORMAT = "latent explorer 1"
MOST_EXAMPLES, MOST_CLASSES, MOST_LATENTS = 1000, 10, 32
FINE = 256  # images of at most so many pixels keep 8 bits each
STEP = 1000  # codes are whole thousandths
Pictures = Literal["data", "decoded"]
_DTYPES = (torch.float16, torch.float32, torch.float64)
_SHARED = ("format", "image_shape", "classes", "labels", "bits", "pictures")  # what the decoders of a walk share

Floats = NDArray[np.float64]


def asset(
    vae: VAE,
    x: Tensor,
    labels: Tensor,
    *,
    image_shape: tuple[int, int],
    class_names: Sequence[str] | None = None,
    title: str = "A plane of latents",
    pictures: Pictures = "data",
) -> dict[str, Any]:
    """Return what the figure needs of a VAE, for ``chapter.explorable("latent_explorer", asset=...)`` or a JSON file.

    Parameters
    ----------
    vae
        Its decoder is linear layers with tanh or ReLU between them, its q has a mean, and its head is Bernoulli,
        binomial, discretised logistic or a normal one; a normal one's means are cut to [0, 1]. It is not changed.
    x
        Training images in the units of the model, ``(N, D)`` with N at most 1000: 0 to 16, say, or 0 to 1.
    labels
        Their classes, integers ``(N,)`` that count from 0 into ``class_names``.
    image_shape
        Height and width.
    class_names
        At most ten; the numbers from 0 if not given.
    title
        What the caption begins with.
    pictures
        What the figure shows of the images: ``"data"`` for themselves, or ``"decoded"`` for what the decoder makes of
        their codes. Then nothing of x is kept but the codes, and the figure says that the model redraws them.

    Raises
    ------
    TypeError, ValueError
        If the figure cannot show this VAE, or something does not fit; one line.
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: expected a vae_lib.models.VAE, found {type(vae).__name__}")
    height, width = image_shape
    if height * width != vae.data_dim:
        raise ValueError(f"image_shape: expected {vae.data_dim} pixels, as the VAE has, found {height} x {width}")
    if not 2 <= vae.latent_dim <= MOST_LATENTS:
        raise ValueError(f"vae: expected 2 to {MOST_LATENTS} latents, found {vae.latent_dim}")
    head, levels = _head(vae.likelihood)
    largest = levels - 1
    checks.shape("x", x, ("N", vae.data_dim))
    if not 5 <= len(x) <= MOST_EXAMPLES:
        raise ValueError(f"x: expected 5 to {MOST_EXAMPLES} images, found {len(x)}")
    checks.finite("x", x)
    if x.min() < 0 or x.max() > largest:
        raise ValueError(f"x: expected pixels from 0 to {largest}, found {float(x.min()):g} to {float(x.max()):g}")
    names = _class_names(labels, len(x), class_names)
    if pictures not in get_args(Pictures):
        raise ValueError(f"pictures: expected 'data' or 'decoded', found {pictures!r}")
    grey = x.detach().to("cpu", torch.float64).numpy() / largest
    return {
        "format": FORMAT,
        "title": title,
        "image_shape": [height, width],
        "classes": names,
        "labels": labels.tolist(),
        **(_pictures(grey) if pictures == "data" else {"bits": 0, "pictures": ""}),
        "decoders": [{"head": head, "levels": levels, **_layers(vae), "means": _means(vae, x)}],
    }


def walk(assets: Mapping[float, Mapping[str, Any]], measured: Mapping[float, Mapping[str, float]]) -> dict[str, Any]:
    """Return one asset of several, whose figure has a slider that goes from one decoder to the next.

    Parameters
    ----------
    assets
        By β, each from :func:`asset`, of the same images.
    measured
        By β, a ``rate`` and a ``distortion`` in nats an image, to be shown beside the slider.

    Raises
    ------
    ValueError
        If they do not fit together; one line.
    """
    if len(assets) < 2:
        raise ValueError(f"assets: expected at least two, found {len(assets)}")
    betas = sorted(assets)
    first, decoders = assets[betas[0]], []
    for beta in betas:
        check(assets[beta])
        if any(assets[beta][name] != first[name] for name in _SHARED):
            raise ValueError(f"assets: expected the same images for each beta, found others for {beta:g}")
        if len(assets[beta]["decoders"]) != 1 or len(assets[beta]["decoders"][0]["means"][0]) != _latents(first):
            raise ValueError(f"assets: expected one decoder of {_latents(first)} latents for {beta:g}, found others")
        numbers = measured.get(beta, {})
        if set(numbers) != {"rate", "distortion"} or not all(np.isfinite(v) for v in numbers.values()):
            raise ValueError(f"measured: expected a rate and a distortion for {beta:g}, found {dict(numbers)}")
        decoders.append({"beta": beta, **numbers, **assets[beta]["decoders"][0]})
    return {**first, "decoders": decoders}


def check(found: Any) -> None:
    """Raise ValueError, one line, unless this is an asset."""
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        what = found.get("format") if isinstance(found, Mapping) else found
        raise ValueError(f"asset: expected what latent_explorer.asset returns, found {str(what)[:60]!r}")
    try:
        count, pixels = len(found["labels"]), found["image_shape"][0] * found["image_shape"][1]
        sizes = {(d["sizes"][0], d["sizes"][-1]) for d in found["decoders"]}
        whole = (
            len(base64.b64decode(found["pictures"])) == -(-count * pixels * found["bits"] // 8)
            and len(sizes) == 1
            and all(len(d["means"]) == count and len(d["means"][0]) == d["sizes"][0] for d in found["decoders"])
            and all(sum(w.size + b.size for w, b in _matrices(d)) for d in found["decoders"])
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"asset: expected a whole one, found it damaged ({error})") from None
    if not whole:
        raise ValueError("asset: expected a whole one, found parts that do not fit together")


def decode(asset: Mapping[str, Any], z: ArrayLike, *, beta: float | None = None) -> Floats:
    """Return mean images, with 0 for no ink and 1 for full ink, as the figure computes them.

    Parameters
    ----------
    asset
        From :func:`asset` or :func:`walk`.
    z
        Latents, ``(N, L)``.
    beta
        Which decoder of a walk.

    Returns
    -------
    numpy.ndarray
        ``(N, D)``, float64.
    """
    decoder = decoder_of(asset, beta)
    values, matrices = np.asarray(z, dtype=np.float64), _matrices(decoder)
    for weight, bias in matrices[:-1]:
        values = values @ weight.T + bias
        values = np.tanh(values) if decoder["activation"] == "tanh" else np.maximum(values, 0.0)
    weight, bias = matrices[-1]
    output = values @ weight.T + bias
    if decoder["head"] == "sigmoid":
        return _sigmoid(output)
    if decoder["head"] == "identity":
        cut: Floats = np.clip(output, 0.0, 1.0)
        return cut
    top: int = decoder["levels"] - 1
    centre, log_scale = np.split(output, 2, axis=-1)
    inverse, total = np.exp(-log_scale), np.zeros_like(centre)
    for level in range(top):  # the expected level is the sum over all edges of the probability to lie above
        total += _sigmoid((centre - ((2.0 * level + 1.0) / top - 1.0)) * inverse)
    return total / top


def grey_levels(mean: Floats) -> NDArray[np.int64]:
    """Return the nearest of 256 grey levels, halves upwards: what the canvas shows."""
    return np.floor(255.0 * mean + 0.5).astype(np.int64)


def decoder_of(asset: Mapping[str, Any], beta: float | None) -> dict[str, Any]:
    """Return the decoder of a β, or the only one."""
    found = [d for d in asset["decoders"] if beta is None or d.get("beta") == beta]
    if len(found) != 1:
        known = ", ".join(f"{d['beta']:g}" for d in asset["decoders"] if "beta" in d) or "none"
        raise ValueError(f"beta: expected one of {known}, found {beta}")
    decoder: dict[str, Any] = found[0]
    return decoder


def pictures_of(asset: Mapping[str, Any], beta: float | None = None) -> NDArray[np.int64]:
    """Return the small pictures ``(N, D)``, 0 for no ink and 255 for full ink; a β has its own if they are decoded."""
    if not asset["bits"]:
        return grey_levels(decode(asset, np.array(decoder_of(asset, beta)["means"]) / STEP, beta=beta))
    kept, pixels = np.frombuffer(base64.b64decode(asset["pictures"]), np.uint8), np.prod(asset["image_shape"])
    if asset["bits"] == 4:
        kept = 17 * np.stack([kept & 15, kept >> 4], axis=-1).reshape(-1)
    return kept[: len(asset["labels"]) * pixels].reshape(-1, pixels).astype(np.int64)


def _latents(asset: Mapping[str, Any]) -> int:
    return len(asset["decoders"][0]["means"][0])


def _sigmoid(t: Floats) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = 1.0 / (1.0 + np.exp(-t))
    return result


def _matrices(decoder: Mapping[str, Any]) -> list[tuple[Floats, Floats]]:
    """Weights and biases, layer by layer."""
    values = np.frombuffer(base64.b64decode(decoder["weights"]), np.dtype(decoder["dtype"]).newbyteorder("<"))
    found, at = [], 0
    for inputs, outputs in zip(decoder["sizes"][:-1], decoder["sizes"][1:], strict=True):
        weight, bias = np.split(values[at : at + (inputs + 1) * outputs].astype(np.float64), [inputs * outputs])
        found.append((weight.reshape(outputs, inputs), bias))
        at += (inputs + 1) * outputs
    if at != len(values) or len(found[-1][1]) != decoder["sizes"][-1]:
        raise ValueError(f"{len(values)} weights for layers of {decoder['sizes']}")
    return found


def _head(likelihood: Any) -> tuple[str, int]:
    """How an output becomes a mean, and how many levels a pixel has."""
    match likelihood:
        case BernoulliLikelihood():
            return "sigmoid", 2
        case BinomialLikelihood():
            return "sigmoid", likelihood.total_count + 1
        case DiscretisedLogisticLikelihood():
            return "logistic", likelihood.levels
        case PredictedNormalLikelihood(unit_mean=True):
            return "sigmoid", 2
        case NormalLikelihood() | LearnedNormalLikelihood() | PredictedNormalLikelihood():
            return "identity", 2
    known = "a Bernoulli, binomial, discretised logistic or normal likelihood"
    raise ValueError(f"vae: expected {known}, found {type(likelihood).__name__}")


def _layers(vae: VAE) -> dict[str, Any]:
    """Sizes, activation and weights of the decoder, each layer's weights row by row and then its biases."""
    leaves = [m for m in vae.decoder.modules() if not isinstance(m, nn.Sequential)]
    linear = [m for m in leaves[::2] if isinstance(m, nn.Linear)]
    kinds = {type(m) for m in leaves[1::2]}
    if len(linear) != len(leaves[::2]) or len(leaves) % 2 == 0 or len(kinds) > 1 or not kinds <= {nn.Tanh, nn.ReLU}:
        found = "-".join(type(m).__name__ for m in leaves)
        raise ValueError(f"vae: expected a decoder of Linear layers with Tanh or ReLU between them, found {found[:80]}")
    parts, sizes = [], [vae.latent_dim]
    for layer in linear:
        # The last layer may put out more than the mean, a log-variance for instance: it is not shown, and not kept.
        is_last = layer is linear[-1]
        rows = _rows(vae) if is_last else layer.out_features
        bias = torch.zeros(rows) if layer.bias is None else layer.bias.detach()[:rows]
        parts += [layer.weight.detach()[:rows].reshape(-1), bias.to(layer.weight.dtype)]
        sizes.append(rows)
    flat = torch.cat([part.to("cpu", torch.float64) for part in parts])
    checks.finite("vae: the decoder's weights", flat)
    dtype = next(dtype for dtype in _DTYPES if torch.equal(flat.to(dtype).double(), flat))
    name = str(dtype).removeprefix("torch.")
    raw = flat.to(dtype).numpy().astype(np.dtype(name).newbyteorder("<")).tobytes()
    return {
        "sizes": sizes,
        "activation": "relu" if kinds == {nn.ReLU} else "tanh",
        "dtype": name,
        "weights": base64.b64encode(raw).decode(),
    }


def _rows(vae: VAE) -> int:
    """How many outputs of the network the mean image needs."""
    return vae.data_dim * (2 if isinstance(vae.likelihood, DiscretisedLogisticLikelihood) else 1)


def _means(vae: VAE, x: Tensor) -> list[list[int]]:
    """Codes of the images in thousandths, ``(N, L)``, the same on every machine."""
    double = copy.deepcopy(vae).to("cpu", torch.float64).eval()
    with torch.no_grad():
        q = double(x.to("cpu", torch.float64))
    if not isinstance(getattr(q, "mu", None), Tensor):
        raise ValueError(f"vae: expected a q with a mean mu, found {type(q).__name__}")
    checks.finite("vae: the means of q", q.mu)
    found: list[list[int]] = torch.floor(STEP * q.mu + 0.5).long().tolist()
    return found


def _pictures(grey: Floats) -> dict[str, Any]:
    bits = 8 if grey.shape[1] <= FINE else 4
    levels = np.floor((2**bits - 1) * grey + 0.5).astype(np.uint8)
    if bits == 4:
        flat = np.append(levels.reshape(-1), np.zeros(levels.size % 2, np.uint8))
        levels = flat[::2] | flat[1::2] << 4
    return {"bits": bits, "pictures": base64.b64encode(levels.tobytes()).decode()}


def _class_names(labels: Tensor, count: int, class_names: Sequence[str] | None) -> list[str]:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels: expected a tensor of integers, found {found}")
    if tuple(labels.shape) != (count,):
        raise ValueError(f"labels: expected shape ({count},), one for each image, found {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    names = [str(i) for i in range(max(high, 0) + 1)] if class_names is None else [str(name) for name in class_names]
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"class_names: expected 1 to {MOST_CLASSES}, found {len(names)}")
    if low < 0 or high >= len(names):
        raise ValueError(f"labels: expected 0 to {len(names) - 1}, found {low} to {high}")
    return names
