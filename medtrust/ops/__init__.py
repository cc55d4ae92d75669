"""Numerical kernels with one meaning each: a native one where it pays, and a float64 torch twin that defines it.

Importing this package imports no torch; `info` needs none, every other name loads its module when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medtrust.ops._native import info

if TYPE_CHECKING:
    from medtrust.ops.copies import max_ncc, tile_l2
    from medtrust.ops.discrepancy import mmd
    from medtrust.ops.loop import SamplingGraph, sampling_loop, start_noise
    from medtrust.ops.moments import Moments
    from medtrust.ops.neighbours import nearest, prdc
    from medtrust.ops.noise import philox_normal, philox_uniform, reparameterise, truncated_normal
    from medtrust.ops.sampling import diffusion_step
    from medtrust.ops.schedules import schedule
    from medtrust.ops.structural import ms_ssim, ssim, ssim_map
    from medtrust.ops.texture import radiomics

__all__ = [
    "Moments",
    "SamplingGraph",
    "diffusion_step",
    "info",
    "max_ncc",
    "mmd",
    "ms_ssim",
    "nearest",
    "philox_normal",
    "philox_uniform",
    "prdc",
    "radiomics",
    "reparameterise",
    "sampling_loop",
    "schedule",
    "ssim",
    "ssim_map",
    "start_noise",
    "tile_l2",
    "truncated_normal",
]

_HOMES = {
    "Moments": "moments",
    "SamplingGraph": "loop",
    "diffusion_step": "sampling",
    "max_ncc": "copies",
    "mmd": "discrepancy",
    "ms_ssim": "structural",
    "nearest": "neighbours",
    "philox_normal": "noise",
    "philox_uniform": "noise",
    "prdc": "neighbours",
    "radiomics": "texture",
    "reparameterise": "noise",
    "sampling_loop": "loop",
    "schedule": "schedules",
    "ssim": "structural",
    "ssim_map": "structural",
    "start_noise": "loop",
    "tile_l2": "copies",
    "truncated_normal": "noise",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medtrust.ops' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medtrust.ops.{_HOMES[name]}"), name)
