"""Statistics on features: distances between sets, their intervals, and resampling by patient."""

from medtrust.stats.clipped import CLIPPED_NAMES, Clipped, clipped, clipped_interval
from medtrust.stats.contrasts import frechet_excess, frechet_ratio, mmd_excess
from medtrust.stats.copying import CopyTest, Matches, Pool, copy_score, copy_test, rank_patients
from medtrust.stats.copying_power import Planted, copy_power, copy_size, detection_auc, plant, real_matches, split_p
from medtrust.stats.diagnostics import authentic, closer_records, copying_z, fld_gap, nearest_cell, two_shares_p
from medtrust.stats.discrimination import Discrimination, auc_test, discriminate
from medtrust.stats.diversity import inception_score, inception_score_interval, vendi_interval, vendi_score
from medtrust.stats.embedding import pixel_embedding, pixel_views
from medtrust.stats.enrichment import Enrichment, EnrichmentTest
from medtrust.stats.exact import (
    benjamini_hochberg,
    conformal_p,
    extreme_count_tail,
    fewest_flagged,
    holm,
    hypergeometric_tail,
    smallest_rejecting_count,
)
from medtrust.stats.extrapolation import fd_infinity, fd_infinity_interval
from medtrust.stats.frechet import (
    Factored,
    frechet_distance,
    frechet_distances,
)
from medtrust.stats.frechet_inference import FrechetInference, frechet_interval
from medtrust.stats.intervals import clopper_pearson, korn_graubard, min_detectable, t_quantile
from medtrust.stats.kernels import gaussian, linear, median_distance
from medtrust.stats.manifold import MANIFOLD_NAMES, Manifold, manifold, manifold_interval
from medtrust.stats.mmd import kid, kid_interval, mmd_interval, mmd_rbf
from medtrust.stats.pairs import pair_mean, patient_pairs
from medtrust.stats.planting import EDITS, LIGHT_EDITS, edit_image
from medtrust.stats.resampling import (
    Inference,
    groups,
    half_sampling,
    half_sampling_of,
    jackknife_se,
    split_patients,
    subsample,
)
from medtrust.stats.searching import DEFAULT_SEARCH, SEARCHES, align, image_versions
from medtrust.stats.shifts import MeanNoise, mean_noise

__all__ = [
    "CLIPPED_NAMES",
    "DEFAULT_SEARCH",
    "EDITS",
    "LIGHT_EDITS",
    "MANIFOLD_NAMES",
    "SEARCHES",
    "Clipped",
    "CopyTest",
    "Discrimination",
    "Enrichment",
    "EnrichmentTest",
    "Factored",
    "FrechetInference",
    "Inference",
    "Manifold",
    "Matches",
    "MeanNoise",
    "Planted",
    "Pool",
    "auc_test",
    "align",
    "authentic",
    "benjamini_hochberg",
    "clipped",
    "clipped_interval",
    "clopper_pearson",
    "closer_records",
    "conformal_p",
    "copy_power",
    "copy_score",
    "copy_size",
    "copy_test",
    "copying_z",
    "detection_auc",
    "discriminate",
    "edit_image",
    "extreme_count_tail",
    "fd_infinity",
    "fd_infinity_interval",
    "fewest_flagged",
    "fld_gap",
    "frechet_distance",
    "frechet_distances",
    "frechet_excess",
    "frechet_interval",
    "frechet_ratio",
    "gaussian",
    "groups",
    "half_sampling",
    "half_sampling_of",
    "holm",
    "hypergeometric_tail",
    "image_versions",
    "inception_score",
    "inception_score_interval",
    "jackknife_se",
    "kid",
    "kid_interval",
    "korn_graubard",
    "linear",
    "manifold",
    "manifold_interval",
    "mean_noise",
    "median_distance",
    "min_detectable",
    "mmd_excess",
    "mmd_interval",
    "mmd_rbf",
    "nearest_cell",
    "pair_mean",
    "patient_pairs",
    "pixel_embedding",
    "pixel_views",
    "plant",
    "rank_patients",
    "real_matches",
    "smallest_rejecting_count",
    "split_p",
    "split_patients",
    "subsample",
    "t_quantile",
    "two_shares_p",
    "vendi_interval",
    "vendi_score",
]
