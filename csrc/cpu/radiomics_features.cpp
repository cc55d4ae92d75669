// Features from counts on the processor: memory for the formulas, and what to do with the four directions.
#include <algorithm>
#include <vector>

#include "../radiomics_formulas.h"

namespace medtrust {
namespace {

std::vector<uint64_t> words_for(int64_t levels) { return std::vector<uint64_t>(size_t(formula_words(levels))); }

}  // namespace

void histogram_features(const uint32_t* levels_count, int64_t levels, double* entropy, double* uniformity) {
  histogram_of(levels_count, levels, entropy, uniformity);
}

void cooccurrence_features(const Directions& pairs, const uint32_t* levels_count, int64_t levels, bool merged,
                           double* out) {
  constexpr int kFeatures = 25;
  std::fill(out, out + kFeatures, 0.0);
  auto words = words_for(levels);
  int used = 0;
  const int matrices = merged ? 1 : 4, tables = merged ? 4 : 1;
  for (int d = 0; d < matrices; ++d) used += add_cooccurrence(pairs.tables + d, tables, levels, words.data(), out);
  if (used == 0) {
    add_cooccurrence_alone(levels_count, levels, words.data(), out);
    used = 1;
  }
  for (int f = 0; f < kFeatures; ++f) out[f] /= used;
}

void run_features(const RunLengths& runs, int64_t levels, int64_t pixels, bool merged, double* out) {
  constexpr int kFeatures = 16;
  std::fill(out, out + kFeatures, 0.0);
  auto words = words_for(levels);
  const int matrices = merged ? 1 : 4, tables = merged ? 4 : 1;
  for (int d = 0; d < matrices; ++d) {
    double features[kFeatures];
    runs_of(runs.tables + d, tables, runs.lengths, levels, pixels, words.data(), features);
    for (int f = 0; f < kFeatures; ++f) out[f] += features[f];
  }
  for (int f = 0; f < kFeatures; ++f) out[f] /= matrices;
}

void zone_features(Zone* zones, int64_t count, int64_t levels, int64_t pixels, double* out) {
  std::vector<uint32_t> small(size_t((kDenseZones + 1) * (levels + 1)), 0);
  int64_t large = 0;
  for (int64_t z = 0; z < count; ++z) {
    const Zone zone = zones[z];
    if (zone.size <= kDenseZones)
      ++small[size_t(zone.size * (levels + 1) + zone.level)];
    else
      zones[large++] = zone;
  }
  std::sort(zones, zones + large, before);
  zones_of(small.data(), zones, large, levels, pixels, words_for(levels).data(), out);
}

void tone_difference_features(const uint64_t* gaps, const uint64_t* counts, int64_t levels, double* out) {
  tone_differences_of(gaps, counts, levels, words_for(levels).data(), out);
}

void dependence_features(const uint64_t* counts, int64_t levels, int64_t pixels, double* out) {
  dependences_of(counts, levels, pixels, words_for(levels).data(), out);
}

}  // namespace medtrust
