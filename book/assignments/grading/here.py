"""Hidden tests in the notebook's own process: for the masters, and for a plain ``nbgrader autograde``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from .rubric import Code, Kept, Lost, Rubric, Seed

MASTER_SEED = 20140414


class Neighbour:
    """Calls the functions of a namespace directly. What they return is turned into arrays; other objects are kept."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self.namespace = namespace
        self.kept: list[Any] = []

    def __call__(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the namespace."""
        if not callable(self.namespace.get(function)):
            raise Lost(f"there is no function {function}; was its cell deleted or renamed?")
        return self._call(self.namespace[function], function, args, kwargs)

    def method(self, kept: Kept, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of an object that stayed here."""
        found = getattr(self.kept[kept.number], name, None)
        if not callable(found):
            raise Lost(f"{type(self.kept[kept.number]).__name__} has no method {name}")
        return self._call(found, name, args, kwargs)

    def _call(self, function: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            answer = function(*map(self._arrive, args), **{key: self._arrive(value) for key, value in kwargs.items()})
        except NotImplementedError:
            raise Lost(f"{name} is not written yet") from None
        except Exception as error:
            raise Lost(f"{name} raised {type(error).__name__}: {error}") from error
        return self._return(answer)

    def _arrive(self, value: Any) -> Any:
        import torch  # here, so that a grader whose submissions run elsewhere starts without it

        match value:
            case Seed():
                return torch.Generator().manual_seed(value.seed)
            case Code():
                return eval(value.source, {"torch": torch, "math": __import__("math")})
            case Kept():
                return self.kept[value.number]
            case np.ndarray():
                return torch.from_numpy(value.copy())
            case tuple() | list():
                return type(value)(map(self._arrive, value))
            case dict():
                return {key: self._arrive(item) for key, item in value.items()}
        return value

    def _return(self, value: Any) -> Any:
        import torch

        match value:
            case torch.Tensor():
                return value.detach().cpu().numpy().copy()
            case np.ndarray() | np.generic():
                return np.array(value)
            case None | bool() | int() | float() | str():
                return value
            case tuple() | list():
                return tuple(map(self._return, value))
            case dict():
                return {key: self._return(item) for key, item in value.items()}
        self.kept.append(value)
        return Kept(len(self.kept) - 1)


def here(part: str, namespace: Mapping[str, Any], *, seed: int = MASTER_SEED) -> float:
    """Run the hidden tests of a part on the functions of ``namespace``, print what was earned, return the points."""
    rubric: Rubric = import_module(f"{__package__}.hidden.{part.partition('-')[0]}").rubric
    results = rubric.grade(Neighbour(namespace), seed=seed, part=part)
    for result in results:
        print(result)
    return float(sum(result.points for result in results))
