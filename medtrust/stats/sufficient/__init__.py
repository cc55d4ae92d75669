"""Sufficient statistics: what several places can compute apart and join into the answer of all their data."""

from medtrust.stats.sufficient.balls import BallCounts, site_shares
from medtrust.stats.sufficient.enrichment import EnrichmentCounts, StratifiedEnrichment, StratifiedOutcome, fisher_p
from medtrust.stats.sufficient.exposure import membership_auc
from medtrust.stats.sufficient.folded import Folds, Jackknifed, jackknife
from medtrust.stats.sufficient.fourier import FourierSums, folded_mmd, fourier_features
from medtrust.stats.sufficient.frechet import folded_frechet, frechet_excess, mean_noise_of
from medtrust.stats.sufficient.histogram import Histogram, folded_wasserstein, merged_bins
from medtrust.stats.sufficient.moments import Moments, upper, whole_matrix
from medtrust.stats.sufficient.ranks import RankSum, VanElteren, van_elteren
from medtrust.stats.sufficient.sites import SiteDifference, site_difference

__all__ = [
    "BallCounts",
    "EnrichmentCounts",
    "Folds",
    "FourierSums",
    "Histogram",
    "Jackknifed",
    "Moments",
    "RankSum",
    "SiteDifference",
    "StratifiedEnrichment",
    "StratifiedOutcome",
    "VanElteren",
    "fisher_p",
    "folded_frechet",
    "folded_mmd",
    "folded_wasserstein",
    "fourier_features",
    "frechet_excess",
    "jackknife",
    "membership_auc",
    "mean_noise_of",
    "merged_bins",
    "site_difference",
    "site_shares",
    "upper",
    "van_elteren",
    "whole_matrix",
]
