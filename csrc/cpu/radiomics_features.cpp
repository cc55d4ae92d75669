// The IBSI formulas, from integer counts to float64 features. The order of the outputs is that of
// medtrust/ops/_radiomics_names.py. Reference: Zwanenburg et al., arXiv:1612.07003v11, sections 3.6 to 3.11.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../radiomics.h"

namespace medtrust {
namespace {

// n log2 n: entropies of counts need one logarithm per count, and small counts are most of them.
double n_log_n(uint64_t n) {
  static const std::array<double, 4096> kSmall = [] {
    std::array<double, 4096> table{};
    for (size_t i = 1; i < table.size(); ++i) table[i] = double(i) * std::log2(double(i));
    return table;
  }();
  return n < kSmall.size() ? kSmall[n] : double(n) * std::log2(double(n));
}

// Entropy in bits of counts that add up to `total`, given the sum of n log2 n over them.
double entropy_of(double sum_n_log_n, double total) { return std::max(0.0, std::log2(total) - sum_n_log_n / total); }

// (total * squares - sum^2) / total^2 without the loss of a difference of rounded products.
double variance_of(uint64_t total, uint64_t sum, uint64_t squares) {
  const auto difference = static_cast<unsigned __int128>(total) * squares - static_cast<unsigned __int128>(sum) * sum;
  return double(difference) / (double(total) * double(total));
}

// Features of a matrix of counts by grey level and size, fed in ascending order of size.
class SizeMatrix {
 public:
  explicit SizeMatrix(int64_t levels) : by_level_(size_t(levels + 1), 0) {}

  void add(int64_t level, int64_t size, uint64_t count) {
    if (size != size_) close(size);
    of_size_ += count;
    by_level_[size_t(level)] += count;
    n_log_n_ += n_log_n(count);
    squares_ += double(count) * double(count);
    const double i2 = double(level) * double(level), n = double(count);
    low_ += n / i2;
    high_ += n * i2;
  }

  // The 16 features; the 13th is the share of pixels per entry, or with `energy` the sum of squared shares.
  void finish(double pixels, bool energy, double* out) {
    close(-1);
    const double total = double(total_);
    double level_squares = 0;
    uint64_t level_sum = 0, level_second = 0;
    double low = 0, high = 0;
    for (size_t i = 1; i < by_level_.size(); ++i) {
      const uint64_t n = by_level_[i];
      level_squares += double(n) * double(n);
      level_sum += n * i;
      level_second += n * i * i;
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
  void close(int64_t next) {  // all entries of the current size are in
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

  std::vector<uint64_t> by_level_;
  int64_t size_ = -1;
  uint64_t of_size_ = 0, total_ = 0, size_sum_ = 0, size_second_ = 0;
  double low_ = 0, high_ = 0, n_log_n_ = 0, squares_ = 0, size_squares_ = 0;
  double short_ = 0, long_ = 0, short_low_ = 0, short_high_ = 0, long_low_ = 0, long_high_ = 0;
};

// The 25 features of one symmetric matrix, given as the sum of `count` one-way tables.
class Cooccurrence {
 public:
  explicit Cooccurrence(int64_t levels)
      : levels_(levels),
        margin_(size_t(levels)),
        differences_(size_t(levels)),
        sums_(size_t(2 * levels - 1)) {}

  // Returns whether there is any pair.
  bool load(const uint32_t* const* tables, int count) {
    const int64_t stride = levels_ + 1;
    total_ = 0;
    std::fill(margin_.begin(), margin_.end(), 0);
    std::fill(differences_.begin(), differences_.end(), 0);
    std::fill(sums_.begin(), sums_.end(), 0);
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
  void load_alone(const uint32_t* levels_count) {
    load(nullptr, 0);
    for (int64_t i = 0; i < levels_; ++i)
      if (levels_count[i + 1] != 0) enter(i, i, levels_count[i + 1]);
  }

  void add_features(double* out) const {
    const double total = double(total_), bins = double(levels_);
    uint64_t first = 0, second = 0, contrast = 0, step = 0;  // of level, of its square, of (i - j)^2 and |i - j|
    double margin_entropy = 0, difference_entropy = 0, sum_entropy = 0;
    for (int64_t i = 0; i < levels_; ++i) {
      const uint64_t level = uint64_t(i + 1), n = margin_[size_t(i)];
      first += n * level;
      second += n * level * level;
      margin_entropy += n_log_n(n);
    }
    double inverse = 0, inverse_normalised = 0, moment = 0, moment_normalised = 0, inverse_variance = 0;
    for (int64_t k = 0; k < levels_; ++k) {
      const uint64_t n = differences_[size_t(k)];
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
      const uint64_t n = sums_[size_t(s)];
      if (n == 0) continue;
      const double d = double(s + 2) - 2 * mean, p = double(n) / total;
      sum_entropy += n_log_n(n);
      tendency += d * d * p;
      shade += d * d * d * p;
      prominence += d * d * d * d * p;
    }
    const double average_step = double(step) / total, mean_contrast = double(contrast) / total;
    const double joint = entropy_of(n_log_n_, total), marginal = entropy_of(margin_entropy, total);
    const double independent = std::max(0.0, 2 * marginal - joint);  // HXY2 - HXY, where HXY1 = HXY2 = 2 HX
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
        std::sqrt(1 - std::exp(-2 * independent)),
    };
    for (int f = 0; f < 25; ++f) out[f] += features[f];
  }

 private:
  void enter(int64_t i, int64_t j, uint64_t n) {  // cell (i, j) and, off the diagonal, its mirror image
    const uint64_t cells = i == j ? 1 : 2;
    total_ += cells * n;
    largest_ = std::max(largest_, n);
    squares_ += double(cells) * double(n) * double(n);
    n_log_n_ += double(cells) * n_log_n(n);
    margin_[size_t(i)] += n;
    if (i != j) margin_[size_t(j)] += n;
    differences_[size_t(j - i)] += cells * n;
    sums_[size_t(i + j)] += cells * n;
  }

  int64_t levels_;
  std::vector<uint64_t> margin_, differences_, sums_;
  uint64_t total_ = 0, largest_ = 0;
  double squares_ = 0, n_log_n_ = 0;
};

}  // namespace

void histogram_features(const uint32_t* levels_count, int64_t levels, double* entropy, double* uniformity) {
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

void cooccurrence_features(const Directions& pairs, const uint32_t* levels_count, int64_t levels, bool merged,
                           double* out) {
  constexpr int kFeatures = 25;
  std::fill(out, out + kFeatures, 0.0);
  Cooccurrence matrix(levels);
  int used = 0;
  const int matrices = merged ? 1 : 4, tables = merged ? 4 : 1;
  for (int d = 0; d < matrices; ++d)
    if (matrix.load(pairs.tables + d, tables)) {
      matrix.add_features(out);
      ++used;
    }
  if (used == 0) {
    matrix.load_alone(levels_count);
    matrix.add_features(out);
    used = 1;
  }
  for (int f = 0; f < kFeatures; ++f) out[f] /= used;
}

void run_features(const RunLengths& runs, int64_t levels, int64_t pixels, bool merged, double* out) {
  constexpr int kFeatures = 16;
  std::fill(out, out + kFeatures, 0.0);
  const int64_t stride = levels + 1;
  const int matrices = merged ? 1 : 4, tables = merged ? 4 : 1;
  for (int d = 0; d < matrices; ++d) {
    SizeMatrix matrix(levels);
    bool any = true;
    for (int64_t length = 1; any; ++length) {
      any = false;
      for (int64_t i = 1; i <= levels; ++i) {
        // A run of length L passes through lengths 1..L, so runs of exactly L are a difference of neighbouring counts.
        uint64_t longer = 0, at_least = 0;
        for (int t = d; t < d + tables; ++t) {
          at_least += runs.tables[t][length * stride + i];
          if (length < runs.lengths) longer += runs.tables[t][(length + 1) * stride + i];
        }
        if (at_least != longer) matrix.add(i, length, at_least - longer);
        any |= longer != 0;
      }
    }
    double features[kFeatures];
    matrix.finish(double(pixels) * tables, false, features);
    for (int f = 0; f < kFeatures; ++f) out[f] += features[f];
  }
  for (int f = 0; f < kFeatures; ++f) out[f] /= matrices;
}

void zone_features(Zone* zones, int64_t count, int64_t levels, int64_t pixels, double* out) {
  constexpr int32_t kDense = 64;  // sizes up to this are counted, the few larger zones are sorted
  std::vector<uint32_t> small(size_t((kDense + 1) * (levels + 1)), 0);
  int64_t large = 0;
  for (int64_t z = 0; z < count; ++z) {
    const Zone zone = zones[z];
    if (zone.size <= kDense)
      ++small[size_t(zone.size * (levels + 1) + zone.level)];
    else
      zones[large++] = zone;
  }
  const auto before = [](const Zone& a, const Zone& b) {
    return a.size != b.size ? a.size < b.size : a.level < b.level;
  };
  std::sort(zones, zones + large, before);
  SizeMatrix matrix(levels);
  for (int64_t size = 1; size <= kDense; ++size)
    for (int64_t i = 1; i <= levels; ++i) {
      const uint32_t n = small[size_t(size * (levels + 1) + i)];
      if (n != 0) matrix.add(i, size, n);
    }
  for (int64_t z = 0; z < large;) {
    int64_t end = z + 1;
    while (end < large && !before(zones[z], zones[end])) ++end;
    matrix.add(zones[z].level, zones[z].size, uint64_t(end - z));
    z = end;
  }
  matrix.finish(double(pixels), false, out);
}

void tone_difference_features(const uint64_t* gaps, const uint64_t* counts, int64_t levels, double* out) {
  struct Level {
    double value, share, tone;
  };
  std::vector<Level> present;
  double total = 0, tones = 0, weighted = 0;
  for (int64_t i = 1; i <= levels; ++i) {
    double tone = 0, number = 0;
    for (int64_t k = 1; k <= 8; ++k) {
      tone += double(gaps[k * (levels + 1) + i]) / double(k);
      number += double(counts[k * (levels + 1) + i]);
    }
    total += number;
    tones += tone;
    if (number > 0) present.push_back({double(i), number, tone});
  }
  double spread = 0, jumps = 0, complexity = 0, strength = 0;
  for (Level& a : present) {
    a.share /= total;
    weighted += a.share * a.tone;
  }
  for (const Level& a : present)
    for (const Level& b : present) {
      const double step = a.value - b.value, both = a.share + b.share;
      spread += a.share * b.share * step * step;
      jumps += std::abs(a.value * a.share - b.value * b.share);
      complexity += std::abs(step) * (a.share * a.tone + b.share * b.tone) / both;
      strength += both * step * step;
    }
  const double groups = double(present.size());
  out[0] = weighted > 0 ? std::min(1e6, 1 / weighted) : 1e6;
  out[1] = groups > 1 ? spread / (groups * (groups - 1)) * tones / total : 0.0;
  out[2] = jumps > 0 ? weighted / jumps : 0.0;
  out[3] = total > 0 ? complexity / total : 0.0;
  out[4] = tones > 0 ? strength / tones : 0.0;
}

void dependence_features(const uint64_t* counts, int64_t levels, int64_t pixels, double* out) {
  SizeMatrix matrix(levels);
  for (int64_t same = 0; same <= 8; ++same)
    for (int64_t i = 1; i <= levels; ++i)
      if (const uint64_t n = counts[same * (levels + 1) + i]; n != 0) matrix.add(i, same + 1, n);
  matrix.finish(double(pixels), true, out);
}

}  // namespace medtrust
