"""The native kernels on NumPy arrays, without torch: for services and notebooks that have no use for it.

`from medtrust.ops import raw` imports NumPy alone. The values are those of the functions of the same name in
`medtrust.ops`; there is no gradient, no CUDA, and no twin: without the extension these functions raise. Images are
uint8, uint16 or float32, features float32 or float64; `threads` changes no bit. Samplers take the schedules of
`ops.schedule`, which needs no torch either.
"""

from medtrust.ops.raw.features import Moments, mmd, moments
from medtrust.ops.raw.images import max_ncc, ms_ssim, radiomics, ssim, tile_l2
from medtrust.ops.raw.neighbours import nearest, prdc
from medtrust.ops.raw.noise import philox_normal, philox_uniform, reparameterise, truncated_normal
from medtrust.ops.raw.sampling import diffusion_step

__all__ = [
    "Moments",
    "diffusion_step",
    "max_ncc",
    "mmd",
    "moments",
    "ms_ssim",
    "nearest",
    "philox_normal",
    "philox_uniform",
    "prdc",
    "radiomics",
    "reparameterise",
    "ssim",
    "tile_l2",
    "truncated_normal",
]
