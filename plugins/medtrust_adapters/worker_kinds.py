"""What the confined process can open: graphs that torch runs, and code that was allowed to run.

Each opener returns a model with `facts` (JSON) and `run(seeds, labels)` -> numbers [N, C, H, W].
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtrust_adapters.series import noise_rows

__all__ = ["OPENERS"]

Config = Mapping[str, Any]


class _Network:
    """A torch callable from noise, and labels where there are classes, to images."""

    def __init__(self, call: Callable[..., Any], latent: Sequence[int], classes: int, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._call, self._latent, self._classes = call, tuple(latent), classes

    def run(self, seeds: Sequence[int], labels: Sequence[int] | None) -> np.ndarray[Any, Any]:
        import torch

        given = [torch.from_numpy(noise_rows(seeds, self._latent))]
        if self._classes:
            given.append(torch.tensor(labels, dtype=torch.int64))
        with torch.no_grad():
            images = self._call(*given)
        return _numpy(images)


def _numpy(images: Any) -> np.ndarray[Any, Any]:
    if hasattr(images, "detach"):  # a tensor, without importing torch for packages that do not need it
        images = images.detach().to("cpu")
        images = (images.float() if images.is_floating_point() else images).numpy()
    return np.asarray(images)


def _torchscript(config: Config) -> _Network:
    import torch

    model = torch.jit.load(config["path"], map_location="cpu").eval()
    return _Network(model, config["latent"], config["classes"], {})


def _pt2(config: Config) -> _Network:
    import torch

    program = torch.export.load(config["path"])
    return _Network(program.module(), config["latent"], config["classes"], {})


class _Series:
    """A foreign object with `sample(n, seed=, first=)`, or a function of the same arguments."""

    def __init__(self, source: Any, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._sample = source.sample if hasattr(source, "sample") else source

    def run(self, seeds: Sequence[int], labels: Sequence[int] | None) -> np.ndarray[Any, Any]:
        """One call per image with a seed of its own, so that the answer cannot depend on the batch."""
        images = []
        for row, seed in enumerate(seeds):
            asked: dict[str, Any] = {"seed": seed}
            if labels is not None:
                asked["condition"] = [labels[row]]
            answer = self._sample(1, **asked)
            images.append(_numpy(getattr(answer, "pixels", answer)))
        return np.concatenate(images)


def _python(config: Config) -> _Series:
    if config["root"]:
        sys.path.insert(0, config["root"])
    module, _, attribute = config["factory"].partition(":")
    made = importlib.import_module(module)
    for part in attribute.split("."):
        made = getattr(made, part)
    source = made(**config["options"])  # type: ignore[operator]
    facts: dict[str, Any] = {"file": str(getattr(sys.modules[module], "__file__", ""))}
    spec = getattr(source, "spec", None)
    intensity = getattr(source, "intensity", None) or getattr(spec, "intensity", None)
    if intensity is not None:
        facts["range"] = f"{intensity.lo}:{intensity.hi}:{intensity.unit}"
    return _Series(source, facts)


class _Medigan:
    """A medigan package: `generate(model_file, num_samples, output_path, save_images, …)`, which returns images."""

    def __init__(self, config: Config) -> None:
        self.facts: dict[str, Any] = {}
        folder = Path(config["path"])
        # by its file: the folder around the package is none of this process's business, so it cannot be searched
        place = importlib.util.spec_from_file_location(
            folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert place is not None  # a path that ends in .py always has a loader
        assert place.loader is not None
        package = importlib.util.module_from_spec(place)
        sys.modules[folder.name] = package
        place.loader.exec_module(package)
        self._generate = getattr(package, config["method"])
        self._config = config

    def run(self, seeds: Sequence[int], labels: Sequence[int] | None) -> np.ndarray[Any, Any]:
        """One call per image: packages seed nothing themselves, so every source of chance is seeded before each."""
        import random

        import torch

        images = []
        for seed in seeds:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            answer = self._generate(
                model_file=self._config["model_file"], num_samples=1, output_path=".", save_images=False,
                **self._config["arguments"],
            )  # fmt: skip
            images.append(_one_image(answer))
        return np.stack(images)


def _one_image(answer: Any) -> np.ndarray[Any, Any]:
    """Take [C, H, W] out of whatever a package returns for one sample: a batch, a list, [H, W] or [H, W, C]."""
    image = _numpy(answer[0] if isinstance(answer, list | tuple) else answer)
    while image.ndim > 3 and len(image) == 1:
        image = image[0]
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3:
        raise ValueError(f"generate() returned {list(image.shape)} for one image")
    if image.shape[0] not in (1, 3) and image.shape[-1] in (1, 3):
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    return image


class _StyleGan:
    """The `G_ema` of a StyleGAN2-ADA or StyleGAN3 pickle, opened with the `dnnlib` and `torch_utils` beside it."""

    def __init__(self, config: Config) -> None:
        from medtrust_adapters.unpickling import load_stylegan

        sys.path.insert(0, config["repo"])
        self._network = load_stylegan(config["path"]).eval().requires_grad_(False)
        self._psi = config["psi"]
        self.facts = {"z_dim": int(self._network.z_dim), "c_dim": int(self._network.c_dim)}

    def run(self, seeds: Sequence[int], labels: Sequence[int] | None) -> np.ndarray[Any, Any]:
        import torch

        z = torch.from_numpy(noise_rows(seeds, (self.facts["z_dim"],)))
        c = torch.zeros(len(seeds), self.facts["c_dim"])
        if labels is not None:
            c[torch.arange(len(seeds)), torch.tensor(labels)] = 1
        with torch.no_grad():
            # StyleGAN adds noise maps at every layer; "const" takes the trained ones, so that z alone decides
            return _numpy(self._network(z, c, truncation_psi=self._psi, noise_mode="const"))


OPENERS: Mapping[str, Callable[[Config], Any]] = {
    "torchscript": _torchscript,
    "pt2": _pt2,
    "python": _python,
    "medigan": _Medigan,
    "stylegan": _StyleGan,
}
