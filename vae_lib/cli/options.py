"""What can be asked of each command: its options, their defaults, and the words of ``--help``.

The library is not imported here, so that help is quick. Names are checked by the library, which knows them; a test
compares those in the help with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

Run = Annotated[Path, arg(metavar="RUN")]

# The configurations of the library, for the help of train; a test compares them.
CONFIGURATIONS = {
    "kingma2014-mnist": "28 x 28, 500 tanh units, 20 latents, bernoulli",
    "kingma2014-frey": "28 x 20, 200 tanh units, 10 latents, normal-predicted-unit",
    "burda2016-1": "28 x 28, 200 + 200 tanh units, 50 latents, bernoulli",
    "digits": "8 x 8, 64 tanh units, 8 latents, discretised-logistic",
    "conv-mnist": "28 x 28, convolutions of 32 and 64 channels, 256 relu units, 20 latents, bernoulli",
}
_MODELS = "\n".join(f"  {name:<17} {words}" for name, words in CONFIGURATIONS.items())


@dataclass(frozen=True)
class Train:
    """Train a VAE, and draw what it has learnt.

    Without options it trains on the small digits, which need no download, in seconds. A run is a folder with a
    checkpoint, the numbers of every epoch (metrics.jsonl) and pictures (PNG). No run is ever overwritten. Ctrl-C saves
    the run and says how to go on.

    Under torchrun the same command shares each minibatch between the processes, and one of them writes.

    Parameters
    ----------
    data
        Data set: digits, mnist, binarized-mnist, frey or sprites; see the command data.
    model
        Configuration: digits, kingma2014-mnist, kingma2014-frey, burda2016-1 or conv-mnist. Images of another size
        change its first and last layer. Layers, latents and likelihoods are listed at the end.
    latents
        Latents L. With 2 there are pictures of the whole manifold.
    hidden
        Units in each hidden layer of the encoder, first to last; the decoder has the same in reverse.
    likelihood
        What p(x | z) is: bernoulli, binomial, categorical, discretised-logistic, normal, normal-learned,
        normal-per-pixel, normal-predicted or normal-predicted-unit. Bernoulli draws bits anew from grey levels; the
        normal ones want grey levels from 0 to 1.
    epochs
        Passes over the training images. May be raised with --resume; with the constant schedule lowered as well, to
        no fewer than have begun.
    batch_size
        Images in a minibatch, over all processes.
    learning_rate
        Of the optimiser.
    optimiser
        adam, adamax, adagrad or sgd.
    schedule
        How the learning rate falls over the whole training: constant, cosine or stages.
    warmup
        Steps over which the learning rate first grows to its value.
    samples
        Draws of z for each image and step.
    evaluate_every
        Epochs between two looks at the validation images.
    seed
        Of the weights, the order of the images, their bits and the noise.
    device
        cpu, cuda, cuda:1 or mps. On a CPU one thread is used, or as many as OMP_NUM_THREADS says.
    folder
        A new folder for the run.
    resume
        The folder of a run to go on with, or the checkpoint in it, under its stored settings.
    tensorboard
        Write TensorBoard's files too; needs the package tensorboard.
    compiled
        Compile the model first, which takes a minute and pays in long runs on a GPU.
    quiet
        Show no progress, and print the folder alone.
    json
        Print one JSON object on stdout, and nothing else there.
    """

    data: str = "digits"
    model: Annotated[str | None, arg(help_behavior_hint="(default: the one that fits the data)")] = None
    latents: Annotated[int | None, arg(help_behavior_hint="(default: those of the model)")] = None
    hidden: Annotated[tuple[int, ...] | None, arg(help_behavior_hint="(default: those of the model)")] = None
    likelihood: Annotated[str | None, arg(help_behavior_hint="(default: that of the model)")] = None
    epochs: Annotated[
        int | None, arg(help_behavior_hint="(default: 300 for the digits, about 10 s; 100 otherwise)")
    ] = None
    batch_size: int = 100
    learning_rate: float = 1e-3
    optimiser: str = "adam"
    schedule: str = "constant"
    warmup: int = 0
    samples: int = 1
    evaluate_every: int = 1
    seed: int = 0
    device: Annotated[str | None, arg(help_behavior_hint="(default: cuda, else mps, else cpu)")] = None
    folder: Annotated[Path | None, arg(help_behavior_hint="(default: runs/DATA-MODEL-1, -2, ...)")] = None
    resume: Annotated[Path | None, arg(help_behavior_hint="(default: a new run)")] = None
    tensorboard: bool = False
    compiled: bool = False
    quiet: bool = False
    json: bool = False

    examples: ClassVar[str] = f"""\
  python -m vae_lib train                                    the small digits, about 10 seconds
  python -m vae_lib train --latents 2                        two latents, with a map of the manifold
  python -m vae_lib train --data mnist --epochs 20           MNIST; downloads it first
  python -m vae_lib train --resume runs/digits-1 --epochs 600
  torchrun --nproc-per-node 2 -m vae_lib train --data mnist  two processes, the same curve as one

Models (the decoder has the layers of the encoder in reverse):
{_MODELS}"""


@dataclass(frozen=True)
class Evaluate:
    """Say how good a trained model is on images it has not seen, in nats an image, with standard errors.

    The ELBO is taken on all images of the split. On some of them log p(x) is estimated by importance sampling, and the
    gap to the ELBO of the same images with it. The answer is repeatable: bits and draws have fixed seeds.

    Parameters
    ----------
    run
        The folder of a run, or a file with weights.
    weights
        best: those with the highest validation ELBO of the training; last: those of the last step.
    split
        test, validation or train.
    images
        Images for log p(x), spread over the split; 0 leaves it out. Papers report all 10,000 of MNIST.
    draws
        Draws of z for each of these images. Papers report 5000. More of them make a tighter estimate.
    widen
        Draw from q with its standard deviations multiplied by this factor, at least 1. A q that is too narrow makes a
        value that is too low and an error that is too small. With many latents little width costs many draws.
    data
        Another data set than the one trained on, with images of the same kind.
    device
        cpu, cuda, cuda:1 or mps. On a CPU one thread is used, or as many as OMP_NUM_THREADS says.
    json
        Print one JSON object on stdout, and nothing else there.
    """

    run: Positional[Run]
    weights: str = "best"
    split: str = "test"
    images: Annotated[int | None, arg(help_behavior_hint="(default: all of up to 400, else 100)")] = None
    draws: int = 500
    widen: float = 1.0
    data: Annotated[str | None, arg(help_behavior_hint="(default: that of the run)")] = None
    device: Annotated[str | None, arg(help_behavior_hint="(default: cuda, else mps, else cpu)")] = None
    json: bool = False

    examples: ClassVar[str] = """\
  python -m vae_lib evaluate runs/digits-1
  python -m vae_lib evaluate runs/digits-1 --draws 5000   as papers do: all images, many draws
  python -m vae_lib evaluate runs/digits-1 --widen 1.2    the same answer, if q is wide enough"""


_PICTURE = "(default: sample-KIND.png in the folder of the run; for a file with weights FILE-KIND.png, here)"


@dataclass(frozen=True)
class Sample:
    """Draw pictures from a trained model, and write them as one PNG.

    Parameters
    ----------
    run
        The folder of a run, or a file with weights.
    kind
        means: E[x | z] for z from the prior; draws: x from p(x | z) for the same z; reconstructions: data above
        E[x | z] at the encoder's mean; manifold: E[x | z] over the plane of two latents, in steps of equal probability.
    count
        Images; for the manifold a square number.
    out
        The PNG to write; one of that name is replaced. Without it no picture that train drew is.
    seed
        Of z and of the draws.
    weights
        best: those with the highest validation ELBO of the training; last: those of the last step.
    split
        Where the data of reconstructions come from: test, validation or train.
    data
        Another data set than the one trained on, with images of the same kind.
    json
        Print one JSON object on stdout, and nothing else there.
    """

    run: Positional[Run]
    kind: str = "means"
    count: Annotated[int | None, arg(help_behavior_hint="(default: 64; reconstructions 20, manifold 400)")] = None
    out: Annotated[Path | None, arg(help_behavior_hint=_PICTURE)] = None
    seed: int = 0
    weights: str = "best"
    split: str = "test"
    data: Annotated[str | None, arg(help_behavior_hint="(default: that of the run)")] = None
    json: bool = False

    examples: ClassVar[str] = """\
  python -m vae_lib sample runs/digits-1
  python -m vae_lib sample runs/digits-1 --kind reconstructions --count 40 --out digits.png
  python -m vae_lib sample runs/digits-2 --kind manifold"""


@dataclass(frozen=True)
class Reproduce:
    """Run a figure, a table or a recipe of the book again, and store the result.

    A figure or table of a paper has three scales: smoke, to see that it runs; laptop, within an hour on two cores;
    full, the length of the paper, for a GPU. It leaves NAME-SCALE.json, with settings, seeds, versions and curves, and
    a picture that is drawn from it. A recipe has one length, and leaves NAME.json and weights. An interrupted command
    goes on where it stopped. Without a name all are listed.

    Parameters
    ----------
    name
        A figure or table (aevb-fig2, ...) or a recipe (digits, mnist-20 or mnist-50).
    scale
        smoke, laptop or full, for a figure or table.
    seeds
        Each seeds one training of each kind.
    only
        Run only the trainings whose names begin with one of these words, as the plan shows them.
    plan
        Say what would run and about how long, and stop.
    draw
        Draw the figure of a stored record, and run nothing.
    stand_in
        Take the small digits, which need no download, in place of the data: to try a command, not to reproduce.
    out
        The folder for the results.
    jobs
        Trainings at a time, each a process of one thread.
    device
        cpu, cuda, cuda:1 or mps. On a CPU one thread is used, or as many as OMP_NUM_THREADS says.
    overwrite
        Replace a result that is in the folder already.
    quiet
        Show no progress.
    json
        Print one JSON object on stdout, and nothing else there.
    """

    name: Annotated[Positional[str], arg(metavar="[NAME]", help_behavior_hint="(default: list them)")] = ""
    scale: Annotated[str, arg(help_behavior_hint="(default: smoke)")] = ""
    seeds: Annotated[tuple[int, ...], arg(help_behavior_hint="(default: 0 1 2; at smoke scale 0)")] = ()
    only: Annotated[tuple[str, ...], arg(help_behavior_hint="(default: all)")] = ()
    plan: bool = False
    draw: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    stand_in: bool = False
    out: Path = Path("runs")
    jobs: Annotated[int | None, arg(help_behavior_hint="(default: 1; for a figure on a CPU one for each core)")] = None
    device: Annotated[str | None, arg(help_behavior_hint="(default: cuda, else mps, else cpu)")] = None
    overwrite: bool = False
    quiet: bool = False
    json: bool = False

    examples: ClassVar[str] = """\
  python -m vae_lib reproduce                                        what there is
  python -m vae_lib reproduce aevb-fig2                              a minute: every curve, its first images
  python -m vae_lib reproduce aevb-fig2 --only mnist-3-aevb          one curve
  python -m vae_lib reproduce aevb-fig2 --scale laptop --plan        how long would it take?
  python -m vae_lib reproduce aevb-fig2 --draw book/runs/aevb-fig2-laptop.json
  python -m vae_lib reproduce mnist-20 --seeds 0 1 2 --jobs 3        a recipe; hours on a CPU"""


@dataclass(frozen=True)
class Data:
    """List the data sets, with source, licence and split; or fetch one and check every byte of it.

    Parameters
    ----------
    name
        The data set: digits, mnist, binarized-mnist, frey or sprites. What is downloaded is kept in the platform's
        cache folder, or in the one that the variable VAE_LIB_DATA names.
    quiet
        Show no progress.
    json
        Print one JSON object on stdout, and nothing else there.
    """

    name: Annotated[Positional[str], arg(metavar="[NAME]", help_behavior_hint="(default: list them)")] = ""
    quiet: bool = False
    json: bool = False

    examples: ClassVar[str] = """\
  python -m vae_lib data          what there is
  python -m vae_lib data mnist    fetch and verify MNIST, 12 MB"""
