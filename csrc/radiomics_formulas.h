// The IBSI formulas, from integer counts to float64 features, for the processor and the device. The order of the outputs
// is that of medtrust/ops/_radiomics_names.py. Reference: Zwanenburg et al., arXiv:1612.07003v11, sections 3.6 to 3.11.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "both.h"
#include "radiomics.h"

namespace medtrust {
namespace {

constexpr int64_t kDenseZones = 64;  // sizes up to this are counted, the few larger zones are sorted

// Words of memory that a formula needs for its sums, for any of them.
MEDTRUST_BOTH int64_t formula_words(int64_t levels) { return 4 * levels + 4; }

// n log2 n: entropies of counts need one logarithm per count, and small counts are most of them.
MEDTRUST_BOTH double n_log_n(uint64_t n) {
#ifdef __CUDA_ARCH__
  return n == 0 ? 0.0 : double(n) * log2(double(n));
#else
  static const std::array<double, 4096> kSmall = [] {
    std::array<double, 4096> table{};
    for (size_t i = 1; i < table.size(); ++i) table[i] = double(i) * std::log2(double(i));
    return table;
  }();
  return n < kSmall.size() ? kSmall[n] : double(n) * std::log2(double(n));
#endif
}

// Entropy in bits of counts that add up to `total`, given the sum of n log2 n over them.
MEDTRUST_BOTH double entropy_of(double sum_n_log_n, double total) {
  const double entropy = log2(total) - sum_n_log_n / total;
  return entropy > 0 ? entropy : 0.0;
}

// (total * squares - sum^2) / total^2 without the loss of a difference of rounded products.
MEDTRUST_BOTH double variance_of(uint64_t total, uint64_t sum, uint64_t squares) {
  const auto difference = static_cast<unsigned __int128>(total) * squares - static_cast<unsigned __int128>(sum) * sum;
  return double(difference) / (double(total) * double(total));
}

// Features of a matrix of counts by grey level and size, fed in ascending order of size.
class SizeMatrix {
 public:
  // words: [formula_words(levels)], for the sums
  MEDTRUST_BOTH SizeMatrix(int64_t levels, uint64_t* words) : levels_(levels), by_level_(words) {
    for (int64_t i = 0; i <= levels; ++i) by_level_[i] = 0;
  }

  MEDTRUST_BOTH void add(int64_t level, int64_t size, uint64_t count) {
    if (size != size_) close(size);
    of_size_ += count;
    by_level_[level] += count;
    n_log_n_ += n_log_n(count);
    squares_ += double(count) * double(count);
    const double i2 = double(level) * double(level), n = double(count);
    low_ += n / i2;
    high_ += n * i2;
  }

  // The 16 features; the 13th is the share of pixels per entry, or with `energy` the sum of squared shares.
  MEDTRUST_BOTH void finish(double pixels, bool energy, double* out) {
    close(-1);
    const double total = double(total_);
    double level_squares = 0;
    uint64_t level_sum = 0, level_second = 0;
    double low = 0, high = 0;
    for (int64_t i = 1; i <= levels_; ++i) {
      const uint64_t n = by_level_[i];
      level_squares += double(n) * double(n);
      level_sum += n * uint64_t(i);
      level_second += n * uint64_t(i * i);
      low += double(n) / double(i * i);
      high += double(n) * double(i * i);
    }
    out[0] = short_ / total;
    out[1] = long_ / total;
    out[2] = low / total;
    out[3] = high / total;
    out[4] = short_low_ / total;
    out[5] = short_high_ / total;
    out[6] = long_low_ / total;
    out[7] = long_high_ / total;
    out[8] = level_squares / total;
    out[9] = level_squares / (total * total);
    out[10] = size_squares_ / total;
    out[11] = size_squares_ / (total * total);
    out[12] = energy ? squares_ / (total * total) : total / pixels;
    out[13] = variance_of(total_, level_sum, level_second);
    out[14] = variance_of(total_, size_sum_, size_second_);
    out[15] = entropy_of(n_log_n_, total);
  }

 private:
  MEDTRUST_BOTH void close(int64_t next) {  // all entries of the current size are in
    const double j2 = double(size_) * double(size_), n = double(of_size_);
    if (of_size_ != 0) {
      total_ += of_size_;
      size_sum_ += of_size_ * uint64_t(size_);
      size_second_ += of_size_ * uint64_t(size_) * uint64_t(size_);
      size_squares_ += n * n;
      short_ += n / j2;
      long_ += n * j2;
      short_low_ += low_ / j2;
      short_high_ += high_ / j2;
      long_low_ += low_ * j2;
      long_high_ += high_ * j2;
    }
    size_ = next;
    of_size_ = 0;
    low_ = high_ = 0;
  }

  int64_t levels_;
  uint64_t* by_level_;
  int64_t size_ = -1;
  uint64_t of_size_ = 0, total_ = 0, size_sum_ = 0, size_second_ = 0;
  double low_ = 0, high_ = 0, n_log_n_ = 0, squares_ = 0, size_squares_ = 0;
  double short_ = 0, long_ = 0, short_low_ = 0, short_high_ = 0, long_low_ = 0, long_high_ = 0;
};

// The 25 features of one symmetric matrix, given as the sum of `count` one-way tables.
class Cooccurrence {
 public:
  // words: [formula_words(levels)], for the sums
  MEDTRUST_BOTH Cooccurrence(int64_t levels, uint64_t* words)
      : levels_(levels), margin_(words), differences_(margin_ + levels), sums_(differences_ + levels) {}

  // Returns whether there is any pair.
  MEDTRUST_BOTH bool load(const uint32_t* const* tables, int count) {
    const int64_t stride = levels_ + 1;
    total_ = 0;
    for (int64_t i = 0; i < 4 * levels_ - 1; ++i) margin_[i] = 0;  // and what lies behind it
    largest_ = 0;
    squares_ = n_log_n_ = 0;
    for (int64_t i = 0; i < levels_; ++i)
      for (int64_t j = i; j < levels_; ++j) {
        uint64_t n = 0;
        for (int t = 0; t < count; ++t)
          n += uint64_t(tables[t][(i + 1) * stride + j + 1]) + tables[t][(j + 1) * stride + i + 1];
        if (n != 0) enter(i, j, n);
      }
    return total_ != 0;
  }

  // For a region without any pair: each pixel paired with itself.
  MEDTRUST_BOTH void load_alone(const uint32_t* levels_count) {
    load(nullptr, 0);
    for (int64_t i = 0; i < levels_; ++i)
      if (levels_count[i + 1] != 0) enter(i, i, levels_count[i + 1]);
  }

  MEDTRUST_BOTH void add_features(double* out) const {
    const double total = double(total_), bins = double(levels_);
    uint64_t first = 0, second = 0, contrast = 0, step = 0;  // of level, of its square, of (i - j)^2 and |i - j|
    double margin_entropy = 0, difference_entropy = 0, sum_entropy = 0;
    for (int64_t i = 0; i < levels_; ++i) {
      const uint64_t level = uint64_t(i + 1), n = margin_[i];
      first += n * level;
      second += n * level * level;
      margin_entropy += n_log_n(n);
    }
    double inverse = 0, inverse_normalised = 0, moment = 0, moment_normalised = 0, inverse_variance = 0;
    for (int64_t k = 0; k < levels_; ++k) {
      const uint64_t n = differences_[k];
      if (n == 0) continue;
      const double d = double(k), p = double(n) / total;
      step += n * uint64_t(k);
      contrast += n * uint64_t(k) * uint64_t(k);
      difference_entropy += n_log_n(n);
      inverse += p / (1 + d);
      inverse_normalised += p / (1 + d / bins);
      moment += p / (1 + d * d);
      moment_normalised += p / (1 + d * d / (bins * bins));
      if (k > 0) inverse_variance += p / (d * d);
    }
    const double mean = double(first) / total, variance = variance_of(total_, first, second);
    double shade = 0, prominence = 0, tendency = 0;
    for (int64_t s = 0; s < 2 * levels_ - 1; ++s) {
      const uint64_t n = sums_[s];
      if (n == 0) continue;
      const double d = double(s + 2) - 2 * mean, p = double(n) / total;
      sum_entropy += n_log_n(n);
      tendency += d * d * p;
      shade += d * d * d * p;
      prominence += d * d * d * d * p;
    }
    const double average_step = double(step) / total, mean_contrast = double(contrast) / total;
    const double joint = entropy_of(n_log_n_, total), marginal = entropy_of(margin_entropy, total);
    const double independent = fmax(0.0, 2 * marginal - joint);  // HXY2 - HXY, where HXY1 = HXY2 = 2 HX
    const double features[25] = {
        double(largest_) / total,
        mean,
        variance,
        joint,
        average_step,
        variance_of(total_, step, contrast),
        entropy_of(difference_entropy, total),
        2 * mean,
        tendency,
        entropy_of(sum_entropy, total),
        squares_ / (total * total),
        mean_contrast,
        average_step,
        inverse,
        inverse_normalised,
        moment,
        moment_normalised,
        inverse_variance,
        variance > 0 ? 1 - mean_contrast / (2 * variance) : 1.0,
        (double(second) - double(contrast) / 2) / total,
        tendency,
        shade,
        prominence,
        marginal > 0 ? -independent / marginal : 0.0,
        sqrt(1 - exp(-2 * independent)),
    };
    for (int f = 0; f < 25; ++f) out[f] += features[f];
  }

 private:
  MEDTRUST_BOTH void enter(int64_t i, int64_t j, uint64_t n) {  // cell (i, j) and, off the diagonal, its mirror image
    const uint64_t cells = i == j ? 1 : 2;
    total_ += cells * n;
    largest_ = n > largest_ ? n : largest_;
    squares_ += double(cells) * double(n) * double(n);
    n_log_n_ += double(cells) * n_log_n(n);
    margin_[i] += n;
    if (i != j) margin_[j] += n;
    differences_[j - i] += cells * n;
    sums_[i + j] += cells * n;
  }

  int64_t levels_;
  uint64_t *margin_, *differences_, *sums_;
  uint64_t total_ = 0, largest_ = 0;
  double squares_ = 0, n_log_n_ = 0;
};

// Adds the features of one direction's matrix (or of `tables` of them merged); returns whether there was any pair.
MEDTRUST_BOTH bool add_cooccurrence(const uint32_t* const* pairs, int tables, int64_t levels, uint64_t* words,
                                    double* out) {
  Cooccurrence matrix(levels, words);
  if (!matrix.load(pairs, tables)) return false;
  matrix.add_features(out);
  return true;
}

MEDTRUST_BOTH void add_cooccurrence_alone(const uint32_t* levels_count, int64_t levels, uint64_t* words, double* out) {
  Cooccurrence matrix(levels, words);
  matrix.load_alone(levels_count);
  matrix.add_features(out);
}

// The 16 features of one direction's runs (or of `count` directions merged).
MEDTRUST_BOTH void runs_of(const uint32_t* const* tables, int count, int64_t lengths, int64_t levels, int64_t pixels,
                           uint64_t* words, double* out) {
  const int64_t stride = levels + 1;
  SizeMatrix matrix(levels, words);
  bool any = true;
  for (int64_t length = 1; any; ++length) {
    any = false;
    for (int64_t i = 1; i <= levels; ++i) {
      // A run of length L passes through lengths 1..L, so runs of exactly L are a difference of neighbouring counts.
      uint64_t longer = 0, at_least = 0;
      for (int t = 0; t < count; ++t) {
        at_least += tables[t][length * stride + i];
        if (length < lengths) longer += tables[t][(length + 1) * stride + i];
      }
      if (at_least != longer) matrix.add(i, length, at_least - longer);
      any |= longer != 0;
    }
  }
  matrix.finish(double(pixels) * count, false, out);
}

MEDTRUST_BOTH bool before(const Zone& a, const Zone& b) { return a.size != b.size ? a.size < b.size : a.level < b.level; }

// small: [kDenseZones + 1, levels + 1] zones by size and level; large: the others in order of `before`.
MEDTRUST_BOTH void zones_of(const uint32_t* small, const Zone* large, int64_t number, int64_t levels, int64_t pixels,
                            uint64_t* words, double* out) {
  SizeMatrix matrix(levels, words);
  for (int64_t size = 1; size <= kDenseZones; ++size)
    for (int64_t i = 1; i <= levels; ++i) {
      const uint32_t n = small[size * (levels + 1) + i];
      if (n != 0) matrix.add(i, size, n);
    }
  for (int64_t z = 0; z < number;) {
    int64_t end = z + 1;
    while (end < number && !before(large[z], large[end])) ++end;
    matrix.add(large[z].level, large[z].size, uint64_t(end - z));
    z = end;
  }
  matrix.finish(double(pixels), false, out);
}

MEDTRUST_BOTH void histogram_of(const uint32_t* levels_count, int64_t levels, double* entropy, double* uniformity) {
  double total = 0, squares = 0, sum = 0;
  for (int64_t i = 1; i <= levels; ++i) {
    const double n = levels_count[i];
    total += n;
    squares += n * n;
    sum += n_log_n(levels_count[i]);
  }
  *entropy = entropy_of(sum, total);
  *uniformity = squares / (total * total);
}

MEDTRUST_BOTH void tone_differences_of(const uint64_t* gaps, const uint64_t* counts, int64_t levels, uint64_t* words,
                                       double* out) {
  double* share = reinterpret_cast<double*>(words);  // share and tone of each level
  double* tone = share + levels + 1;
  double total = 0, tones = 0, weighted = 0, groups = 0;
  for (int64_t i = 1; i <= levels; ++i) {
    share[i] = tone[i] = 0;
    for (int64_t k = 1; k <= 8; ++k) {
      tone[i] += double(gaps[k * (levels + 1) + i]) / double(k);
      share[i] += double(counts[k * (levels + 1) + i]);
    }
    total += share[i];
    tones += tone[i];
    groups += share[i] > 0;
  }
  double spread = 0, jumps = 0, complexity = 0, strength = 0;
  for (int64_t i = 1; i <= levels; ++i)
    if (share[i] > 0) {
      share[i] /= total;
      weighted += share[i] * tone[i];
    }
  for (int64_t i = 1; i <= levels; ++i)
    for (int64_t j = 1; j <= levels && share[i] > 0; ++j) {
      if (!(share[j] > 0)) continue;
      const double a = double(i), b = double(j), step = a - b, both = share[i] + share[j];
      spread += share[i] * share[j] * step * step;
      jumps += fabs(a * share[i] - b * share[j]);
      complexity += fabs(step) * (share[i] * tone[i] + share[j] * tone[j]) / both;
      strength += both * step * step;
    }
  out[0] = weighted > 0 ? fmin(1e6, 1 / weighted) : 1e6;
  out[1] = groups > 1 ? spread / (groups * (groups - 1)) * tones / total : 0.0;
  out[2] = jumps > 0 ? weighted / jumps : 0.0;
  out[3] = total > 0 ? complexity / total : 0.0;
  out[4] = tones > 0 ? strength / tones : 0.0;
}

MEDTRUST_BOTH void dependences_of(const uint64_t* counts, int64_t levels, int64_t pixels, uint64_t* words, double* out) {
  SizeMatrix matrix(levels, words);
  for (int64_t same = 0; same <= 8; ++same)
    for (int64_t i = 1; i <= levels; ++i)
      if (const uint64_t n = counts[same * (levels + 1) + i]; n != 0) matrix.add(i, same + 1, n);
  matrix.finish(double(pixels), true, out);
}

// The ranks that quantile number q lies between, q = 0..4 for 10, 25, 50, 75 and 90 %: that below and that above.
MEDTRUST_BOTH double quantile_share(int q) {
  constexpr double kShares[] = {0.1, 0.25, 0.5, 0.75, 0.9};
  return kShares[q];
}
MEDTRUST_BOTH int64_t quantile_rank(int q, int above, int64_t count) {
  const int64_t rank = int64_t(quantile_share(q) * double(count - 1)) + above;
  return rank < count - 1 ? rank : count - 1;
}
// Linear interpolation between the two values at those ranks.
MEDTRUST_BOTH double quantile_between(int q, double below, double above, int64_t count) {
  const double part = quantile_share(q) * double(count - 1) - double(quantile_rank(q, 0, count));
  return below + part * (above - below);
}

// A constant region has its value as mean: a rounded mean would give it a spurious spread.
MEDTRUST_BOTH double mean_of(const Extremes& range, double count) {
  return range.lowest < range.highest ? range.sum / count : range.lowest;
}

// The first 18 features; q: the five quantiles, inner: number, sum and sum of deviations of what lies within 10..90 %,
// around: sum of |x - median|.
MEDTRUST_BOTH void first_order_of(const Extremes& range, const Moments4& m, const double* q, const double* inner,
                                  double around, double n, double* out) {
  const double mean = mean_of(range, n);
  const double variance = m.m2 / n, deviation = sqrt(variance), spread = q[3] - q[1], middle = q[3] + q[1];
  out[0] = mean;
  out[1] = variance;
  out[2] = variance > 0 ? m.m3 / n / (variance * deviation) : 0.0;
  out[3] = variance > 0 ? m.m4 / n / (variance * variance) - 3 : 0.0;
  out[4] = q[2];
  out[5] = range.lowest;
  out[6] = q[0];
  out[7] = q[4];
  out[8] = range.highest;
  out[9] = spread;
  out[10] = range.highest - range.lowest;
  out[11] = m.absolute / n;
  out[12] = inner[0] > 0 ? inner[2] / inner[0] : 0.0;
  out[13] = around / n;
  out[14] = mean != 0 ? deviation / mean : 0.0;
  out[15] = middle != 0 ? spread / middle : 0.0;
  out[16] = range.squares;
  out[17] = sqrt(range.squares / n);
}

}  // namespace
}  // namespace medtrust
