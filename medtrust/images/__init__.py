"""Image sets: what an audit looks at, whatever file format carried it."""

from medtrust.images.digests import digest
from medtrust.images.heat import cividis, heat_map, strip
from medtrust.images.imageset import Batch, ImageSet
from medtrust.images.intensity import CT_RANGE, common_intensity, parse_intensity
from medtrust.images.opening import open_set
from medtrust.images.readers import Readers
from medtrust.images.rendering import difference, normalise, render
from medtrust.images.slicing import Slices, parse_slices
from medtrust.images.splitting import Split, split_set, write_split
from medtrust.images.writing import write_set

__all__ = [
    "CT_RANGE",
    "Batch",
    "ImageSet",
    "Readers",
    "Slices",
    "Split",
    "cividis",
    "common_intensity",
    "difference",
    "digest",
    "heat_map",
    "normalise",
    "open_set",
    "parse_intensity",
    "parse_slices",
    "render",
    "split_set",
    "strip",
    "write_set",
    "write_split",
]
