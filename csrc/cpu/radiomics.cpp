// Radiomics of a batch: one plane at a time per thread, so that no split of the batch can change a bit.
#include "../radiomics.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "../isa.h"
#include "../radiomics_formulas.h"
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

// Quantiles with linear interpolation between order statistics: a histogram finds the few bins that hold the ranks
// wanted, and only their values are put in order.
class Quantiles {
 public:
  void compute(const RadiomicsKernels& run, const float* values, int64_t count, const Extremes& range, double* out) {
    const double span = range.highest - range.lowest;
    // Up to kBins integers, such as 8-bit grey or Hounsfield units, have a bin each, which is their order.
    const bool ordered = span == 0 || (span < kBins && std::abs(range.lowest) < 1e9 && run.whole(values, count));
    const double scale = ordered ? 1.0 : (kBins - 1) / span;
    const auto each_bin = [&](auto&& visit) {
      uint16_t bins[kBlock];
      for (int64_t first = 0; first < count; first += kBlock) {
        const int64_t size = std::min(kBlock, count - first);
        run.bin(values + first, size, range.lowest, scale, bins);
        for (int64_t i = 0; i < size; ++i) visit(bins[i], values[first + i]);
      }
    };
    starts_.assign(kBins + 1, 0);
    each_bin([this](uint16_t bin, float) { ++starts_[bin + 1]; });
    for (size_t b = 1; b < starts_.size(); ++b) starts_[b] += starts_[b - 1];

    int64_t ranks[10];
    int bins_of[10];
    double found[10];
    for (int r = 0; r < 10; ++r) {
      ranks[r] = quantile_rank(r / 2, r % 2, count);
      bins_of[r] = int(std::upper_bound(starts_.begin(), starts_.end(), ranks[r]) - starts_.begin()) - 1;
      found[r] = range.lowest + bins_of[r];
    }
    if (!ordered) find(each_bin, ranks, bins_of, found);
    for (int q = 0; q < 5; ++q) out[q] = quantile_between(q, found[2 * q], found[2 * q + 1], count);
  }

 private:
  // The values at the ranks: those of each bin that holds one are gathered and put in order as far as needed.
  template <typename EachBin>
  void find(const EachBin& each_bin, const int64_t* ranks, const int* bins_of, double* found) {
    int slots_of[10], slots = 0;
    slots_.assign(kBins, kUnwanted);
    float* ends[10] = {};
    int64_t wanted = 0;
    for (int r = 0; r < 10; ++r) {
      uint8_t& slot = slots_[size_t(bins_of[r])];
      if (slot == kUnwanted) {
        slot = uint8_t(slots++);
        wanted += size_of(bins_of[r]);
      }
      slots_of[r] = slot;
    }
    group_.resize(size_t(wanted));
    float* groups[10] = {};
    for (int r = 0, next = 0; r < 10; ++r)
      if (slots_of[r] == next) {
        ends[next] = groups[next] = next == 0 ? group_.data() : groups[next - 1] + sizes_[next - 1];
        sizes_[next] = size_of(bins_of[r]);
        ++next;
      }
    each_bin([&](uint16_t bin, float value) {
      if (const uint8_t slot = slots_[bin]; slot != kUnwanted) *ends[slot]++ = value;
    });
    bool mixed[10] = {};
    for (int g = 0; g < slots; ++g)  // a bin of one value, such as the background, needs no order
      for (const float* v = groups[g]; v < ends[g]; ++v) mixed[g] |= *v != *groups[g];
    for (int r = 0; r < 10; ++r) {
      const int g = slots_of[r];
      float* place = groups[g] + (ranks[r] - starts_[size_t(bins_of[r])]);
      if (mixed[g]) std::nth_element(groups[g], place, ends[g]);
      found[r] = *place;
    }
  }

  static constexpr uint8_t kUnwanted = 10;
  static constexpr int64_t kBlock = 1024;
  int64_t size_of(int bin) const { return starts_[size_t(bin) + 1] - starts_[size_t(bin)]; }

  std::vector<int64_t> starts_;  // how many values come before each bin
  std::vector<uint8_t> slots_;
  std::vector<float> group_;
  int64_t sizes_[10];
};

// What one thread needs for one plane at a time.
class Plane {
 public:
  explicit Plane(const RadiomicsSpec& spec)
      : spec_(spec),
        run_(kernels()),
        stride_(spec.levels + 1),
        row_(spec.width + 2),
        levels_(size_t(3 * row_), 0),
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
    if (spec.families & kZones) zones_ = std::make_unique<ZoneLabels>(spec.width);
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
    if (spec_.families & kFirstOrder) {
      first_order(in_place(mask) ? static_cast<const float*>(pixels) : values_.data(), count, out);
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

  bool in_place(const uint8_t* mask) const { return mask == nullptr && spec_.grey == Grey::f32; }

  // One pass over the rows, of which three are held as levels; returns whether the region is finite.
  bool read(const void* pixels, const uint8_t* mask, int64_t* count) {
    std::fill(histogram_.begin(), histogram_.end(), 0);
    std::fill(pairs_.begin(), pairs_.end(), 0);
    for (auto& lengths : now_) std::fill(lengths.begin(), lengths.end(), 0);
    clear_lengths();
    for (auto* sums : {&gaps_, &inside_, &same_}) std::fill(sums->begin(), sums->end(), 0);
    if (zones_) zones_->start();
    if (!in_place(mask)) values_.resize(size_t(spec_.height * spec_.width + 1));
    uint16_t *above = levels_.data() + 1, *here = above + row_, *below = here + row_;
    std::fill(levels_.begin(), levels_.end(), 0);
    bool fine = read_row(pixels, mask, 0, here, count);
    int64_t pending = 0;
    for (int64_t y = 0; y < spec_.height; ++y) {
      if (y + 1 < spec_.height)
        fine &= read_row(pixels, mask, y + 1, below, count);
      else
        std::fill(below, below + spec_.width, 0);
      pending += spec_.width;
      const bool last = pending + spec_.width > kPending || y + 1 == spec_.height;
      add_row({above, here, below, spec_.width}, y, last);
      if (last) pending = 0;
      uint16_t* free = above;
      above = here, here = below, below = free;
    }
    return fine;
  }

  bool read_row(const void* pixels, const uint8_t* mask, int64_t y, uint16_t* levels, int64_t* count) {
    const int64_t bytes = spec_.grey == Grey::u8 ? 1 : spec_.grey == Grey::f32 ? 4 : 2;
    int64_t kept = 0;
    const bool fine = run_.discretise(static_cast<const char*>(pixels) + y * spec_.width * bytes,
                                      mask == nullptr ? nullptr : mask + y * spec_.width, spec_.width, spec_, levels,
                                      in_place(mask) ? nullptr : values_.data() + *count, &kept);
    *count += kept;
    return fine;
  }

  void add_row(const LevelRows& rows, int64_t y, bool last) {
    for (int64_t x = 0; x < spec_.width; ++x) ++histogram_[rows.here[x]];
    if (spec_.families & kCooccurrence) add_pairs(rows);
    if (spec_.families & kRuns) add_runs(rows);
    if (zones_) zones_->add_row(run_, rows, y);
    if (packed_.empty()) return;
    add_neighbourhood(rows);
    if (last) unpack();
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

  void first_order(const float* v, int64_t count, double* out) {
    const double n = double(count);
    const Extremes range = run_.extremes(v, count);
    const Moments4 m = run_.moments(v, count, mean_of(range, n));
    double q[5], inner[3];
    quantiles_.compute(run_, v, count, range, q);
    run_.inner(v, count, q[0], q[4], 0.0, inner);
    if (inner[0] > 0) run_.inner(v, count, q[0], q[4], inner[1] / inner[0], inner);
    first_order_of(range, m, q, inner, run_.absolute(v, count, q[2]), n, out);
    histogram_features(histogram_.data(), spec_.levels, out + 18, out + 19);
  }

  const RadiomicsSpec spec_;
  const RadiomicsKernels& run_;
  const int64_t stride_, row_;
  int64_t longest_ = 0;
  std::vector<uint16_t> levels_;  // three rows, each between two pixels of outside
  std::vector<float> values_;     // of the region, row by row, unless the image itself serves
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
  check_sizes(spec);
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
