"""Sufficient statistics: what several places can compute apart and join into the answer of all their data."""

from medtrust.stats.sufficient.folded import Folds, Jackknifed, jackknife
from medtrust.stats.sufficient.frechet import folded_frechet, mean_noise_of
from medtrust.stats.sufficient.moments import Moments, upper, whole_matrix

__all__ = ["Folds", "Jackknifed", "Moments", "folded_frechet", "jackknife", "mean_noise_of", "upper", "whole_matrix"]
