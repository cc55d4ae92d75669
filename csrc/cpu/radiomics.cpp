// Radiomics of a batch: one plane at a time per thread, so that no split of the batch can change a bit.
#include "../radiomics.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../isa.h"
#include "radiomics_zones.h"

namespace medtrust {
namespace {

const RadiomicsKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::radiomics_kernels;
    case Isa::avx2: return avx2::radiomics_kernels;
    default: break;
  }
#endif
  return scalar::radiomics_kernels;
}

constexpr int kBins = 4096;
constexpr double kShares[] = {0.1, 0.25, 0.5, 0.75, 0.9};

// Quantiles with linear interpolation between order statistics: a histogram finds the few bins that hold the ranks
// wanted, and only their values are put in order.
class Quantiles {
 public:
  void compute(const RadiomicsKernels& run, const float* values, int64_t count, const Extremes& range, double* out) {
    bins_.resize(size_t(count));
    counts_.assign(kBins, 0);
    slots_.assign(kBins, 0);
    const double span = range.highest - range.lowest;
    run.bin(values, count, range.lowest, span > 0 ? (kBins - 1) / span : 0.0, bins_.data());
    for (int64_t i = 0; i < count; ++i) ++counts_[bins_[size_t(i)]];

    int64_t total = 0;
    for (int64_t& start : counts_) start = std::exchange(total, total + start);  // how many values come before a bin
    int64_t ranks[10];
    int bins_of[10];
    uint8_t slots = 0;
    for (int r = 0; r < 10; ++r) {
      const auto below = int64_t(kShares[r / 2] * double(count - 1));
      ranks[r] = std::min(below + r % 2, count - 1);
      bins_of[r] = int(std::upper_bound(counts_.begin(), counts_.end(), ranks[r]) - counts_.begin()) - 1;
      uint8_t& slot = slots_[size_t(bins_of[r])];
      if (slot == 0) slot = ++slots;
    }
    for (auto& group : groups_) group.clear();
    for (int64_t i = 0; i < count; ++i)
      if (const uint8_t slot = slots_[bins_[size_t(i)]]; slot != 0) groups_[slot - 1].push_back(values[i]);
    bool mixed[10];
    for (int g = 0; g < slots; ++g) {  // a bin of one value, such as the background, needs no order
      const auto ends = std::minmax_element(groups_[g].begin(), groups_[g].end());
      mixed[g] = *ends.first < *ends.second;
    }
    double found[10];
    for (int r = 0; r < 10; ++r) {
      const int g = slots_[size_t(bins_of[r])] - 1;
      const auto place = groups_[g].begin() + (ranks[r] - counts_[size_t(bins_of[r])]);
      if (mixed[g]) std::nth_element(groups_[g].begin(), place, groups_[g].end());
      found[r] = *place;
    }
    for (int q = 0; q < 5; ++q) {
      const double part = kShares[q] * double(count - 1) - double(ranks[2 * q]);
      out[q] = found[2 * q] + part * (found[2 * q + 1] - found[2 * q]);
    }
  }

 private:
  std::vector<uint16_t> bins_;
  std::vector<int64_t> counts_;
  std::vector<uint8_t> slots_;
  std::vector<float> groups_[10];
};

// What one thread needs for one plane at a time.
class Plane {
 public:
  explicit Plane(const RadiomicsSpec& spec)
      : spec_(spec),
        run_(kernels()),
        stride_(spec.levels + 1),
        row_(spec.width + 2),
        levels_(size_t((spec.height + 2) * row_), 0),
        values_(size_t(spec.height * spec.width + 1)),
        histogram_(size_t(stride_)) {
    if (spec.families & kCooccurrence) pairs_.assign(size_t(4 * stride_ * stride_), 0);
    if (spec.families & kRuns) {
      longest_ = std::max(spec.height, spec.width);
      lengths_.assign(size_t(4 * (longest_ + 1) * stride_), 0);
      for (int d = 0; d < 3; ++d) {
        before_[d].assign(size_t(row_), 0);
        now_[d].assign(size_t(row_), 0);
      }
    }
    if (spec.families & kZones) zones_ = std::make_unique<ZoneLabels>(spec.height, spec.width);
    if (spec.families & (kToneDifference | kDependence)) {
      packed_.assign(size_t(2 * kCells * stride_), 0);
      cell_.resize(size_t(spec.width));
      gap_.resize(size_t(spec.width));
      for (auto* sums : {&gaps_, &inside_, &same_}) sums->resize(size_t(9 * stride_));
    }
  }

  RegionState describe(const void* pixels, const uint8_t* mask, double* out) {
    int64_t count = 0;
    if (!read(pixels, mask, &count)) return RegionState::not_finite;
    if (count == 0) return RegionState::empty;
    texture();
    if (spec_.families & kFirstOrder) {
      first_order(count, out);
      out += 20;
    }
    if (spec_.families & kCooccurrence) {
      Directions pairs{};
      for (int d = 0; d < 4; ++d) pairs.tables[d] = pairs_.data() + d * stride_ * stride_;
      cooccurrence_features(pairs, histogram_.data(), spec_.levels, spec_.merged, out);
      out += 25;
    }
    if (spec_.families & kRuns) {
      RunLengths runs{};
      for (int d = 0; d < 4; ++d) runs.tables[d] = lengths_.data() + d * (longest_ + 1) * stride_;
      runs.lengths = longest_;
      run_features(runs, spec_.levels, count, spec_.merged, out);
      out += 16;
    }
    if (spec_.families & kZones) {
      Zone* zones = nullptr;
      const int64_t number = zones_->finish(&zones);
      zone_features(zones, number, spec_.levels, count, out);
      out += 16;
    }
    if (spec_.families & kToneDifference) {
      tone_difference_features(gaps_.data(), inside_.data(), spec_.levels, out);
      out += 5;
    }
    if (spec_.families & kDependence) dependence_features(same_.data(), spec_.levels, count, out);
    return RegionState::fine;
  }

 private:
  static constexpr int64_t kCells = 81;  // 9 numbers of neighbours inside, 9 of equal ones
  static constexpr int kSumBits = 32;    // a packed counter: gaps below, pixels above
  static constexpr int64_t kPending = int64_t(1) << 20;  // pixels whose gaps, up to 2048 each, fit below

  uint16_t* level_row(int64_t y) { return levels_.data() + (y + 1) * row_ + 1; }

  bool read(const void* pixels, const uint8_t* mask, int64_t* count) {
    const int64_t bytes = spec_.grey == Grey::u8 ? 1 : spec_.grey == Grey::f32 ? 4 : 2;
    for (int64_t y = 0; y < spec_.height; ++y) {
      int64_t kept = 0;
      if (!run_.discretise(static_cast<const char*>(pixels) + y * spec_.width * bytes,
                           mask == nullptr ? nullptr : mask + y * spec_.width, spec_.width, spec_, level_row(y),
                           values_.data() + *count, &kept))
        return false;
      *count += kept;
    }
    return true;
  }

  void texture() {
    std::fill(histogram_.begin(), histogram_.end(), 0);
    std::fill(pairs_.begin(), pairs_.end(), 0);
    for (auto& lengths : now_) std::fill(lengths.begin(), lengths.end(), 0);
    clear_lengths();
    for (auto* sums : {&gaps_, &inside_, &same_}) std::fill(sums->begin(), sums->end(), 0);
    if (zones_) zones_->start();
    int64_t pending = 0;
    for (int64_t y = 0; y < spec_.height; ++y) {
      const LevelRows rows{level_row(y - 1), level_row(y), level_row(y + 1), spec_.width};
      for (int64_t x = 0; x < spec_.width; ++x) ++histogram_[rows.here[x]];
      if (spec_.families & kCooccurrence) add_pairs(rows);
      if (spec_.families & kRuns) add_runs(rows);
      if (zones_) zones_->add_row(run_, rows, y);
      if (packed_.empty()) continue;
      add_neighbourhood(rows);
      pending += spec_.width;
      if (pending + spec_.width > kPending || y + 1 == spec_.height) {
        unpack();
        pending = 0;
      }
    }
  }

  void add_pairs(const LevelRows& rows) {
    const int64_t size = stride_ * stride_;
    uint32_t *right = pairs_.data(), *down_left = right + size, *down = down_left + size, *down_right = down + size;
    for (int64_t x = 0; x < rows.width; ++x) {
      const int64_t base = rows.here[x] * stride_;
      ++right[base + rows.here[x + 1]];
      ++down_left[base + rows.below[x - 1]];
      ++down[base + rows.below[x]];
      ++down_right[base + rows.below[x + 1]];
    }
  }

  void add_runs(const LevelRows& rows) {
    const int64_t size = (longest_ + 1) * stride_;
    RunRows runs{};
    for (int d = 0; d < 3; ++d) {
      before_[d].swap(now_[d]);
      runs.before[d] = before_[d].data() + 1;
      runs.now[d] = now_[d].data() + 1;
    }
    run_.runs(rows, runs);
    uint32_t* across = lengths_.data();
    int64_t length = 0;
    for (int64_t x = 0; x < rows.width; ++x) {
      const uint16_t level = rows.here[x];
      length = (length & -int64_t(level == rows.here[x - 1])) + 1;  // no branch: noise cannot be predicted
      ++across[length * stride_ + level];
      ++across[size + runs.now[0][x] * stride_ + level];
      ++across[2 * size + runs.now[1][x] * stride_ + level];
      ++across[3 * size + runs.now[2][x] * stride_ + level];
    }
  }

  void clear_lengths() {  // only the rows that were used: a length that never occurs ends the scan
    for (int64_t d = 0; d < 4 && !lengths_.empty(); ++d)
      for (int64_t length = 1; length <= longest_; ++length) {
        uint32_t* row = lengths_.data() + (d * (longest_ + 1) + length) * stride_;
        if (std::all_of(row, row + stride_, [](uint32_t n) { return n == 0; })) break;
        std::fill(row, row + stride_, 0);
      }
  }

  void add_neighbourhood(const LevelRows& rows) {
    run_.neighbourhood(rows, stride_, cell_.data(), gap_.data());
    uint64_t* even = packed_.data();
    uint64_t* odd = even + kCells * stride_;  // two tables: in a smooth region neighbours hit the same counter
    int64_t x = 0;
    for (; x + 1 < rows.width; x += 2) {
      even[cell_[size_t(x)]] += (uint64_t(1) << kSumBits) + gap_[size_t(x)];
      odd[cell_[size_t(x + 1)]] += (uint64_t(1) << kSumBits) + gap_[size_t(x + 1)];
    }
    if (x < rows.width) even[cell_[size_t(x)]] += (uint64_t(1) << kSumBits) + gap_[size_t(x)];
  }

  void unpack() {
    for (int64_t c = 0; c < 2 * kCells; ++c)
      for (int64_t i = 0; i < stride_; ++i) {
        uint64_t& packed = packed_[size_t(c * stride_ + i)];
        if (packed == 0) continue;
        const int64_t inside = c % kCells / 9, same = c % 9;
        gaps_[size_t(inside * stride_ + i)] += packed & ((uint64_t(1) << kSumBits) - 1);
        inside_[size_t(inside * stride_ + i)] += packed >> kSumBits;
        same_[size_t(same * stride_ + i)] += packed >> kSumBits;
        packed = 0;
      }
  }

  void first_order(int64_t count, double* out) {
    const float* v = values_.data();
    const double n = double(count);
    const Extremes range = run_.extremes(v, count);
    // A constant region has its value as mean: a rounded mean would give it a spurious spread.
    const double mean = range.lowest < range.highest ? range.sum / n : range.lowest;
    const Moments4 m = run_.moments(v, count, mean);
    double q[5], inner[3];
    quantiles_.compute(run_, v, count, range, q);
    run_.inner(v, count, q[0], q[4], 0.0, inner);
    if (inner[0] > 0) run_.inner(v, count, q[0], q[4], inner[1] / inner[0], inner);
    const double variance = m.m2 / n, deviation = std::sqrt(variance), spread = q[3] - q[1], middle = q[3] + q[1];
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
    out[13] = run_.absolute(v, count, q[2]) / n;
    out[14] = mean != 0 ? deviation / mean : 0.0;
    out[15] = middle != 0 ? spread / middle : 0.0;
    out[16] = range.squares;
    out[17] = std::sqrt(range.squares / n);
    histogram_features(histogram_.data(), spec_.levels, out + 18, out + 19);
  }

  const RadiomicsSpec spec_;
  const RadiomicsKernels& run_;
  const int64_t stride_, row_;
  int64_t longest_ = 0;
  std::vector<uint16_t> levels_;  // [height + 2, width + 2], a border of outside around the plane
  std::vector<float> values_;     // of the region, row by row
  std::vector<uint32_t> histogram_, pairs_, lengths_;
  std::vector<uint16_t> before_[3], now_[3];  // see RunRows
  std::unique_ptr<ZoneLabels> zones_;
  std::vector<uint64_t> packed_, gaps_, inside_, same_;
  std::vector<uint16_t> cell_, gap_;
  Quantiles quantiles_;
};

}  // namespace

void radiomics_cpu(const void* images, const uint8_t* mask, const RadiomicsSpec& spec, double* values, int64_t* states,
                   int threads) {
  if (spec.levels < 1 || spec.levels > kMaxLevels || spec.height < 1 || spec.width < 1 || spec.height > kMaxSide ||
      spec.width > kMaxSide || spec.height * spec.width > (int64_t(1) << 31) - 4 || spec.channels < 1)
    throw std::invalid_argument("radiomics: sizes out of range");
  const int64_t pixels = spec.height * spec.width, features = spec.features();
  const int64_t bytes = pixels * (spec.grey == Grey::u8 ? 1 : spec.grey == Grey::f32 ? 4 : 2);
  threads = int(std::min<int64_t>(std::max(threads, 1), std::max<int64_t>(spec.planes, 1)));
  std::vector<std::unique_ptr<Plane>> workers;
  for (int t = 0; t < threads; ++t) workers.push_back(std::make_unique<Plane>(spec));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t p = 0; p < spec.planes; ++p)
    states[p] = int64_t(workers[size_t(thread_index())]->describe(
        static_cast<const char*>(images) + p * bytes, mask == nullptr ? nullptr : mask + p / spec.channels * pixels,
        values + p * features));
}

}  // namespace medtrust
