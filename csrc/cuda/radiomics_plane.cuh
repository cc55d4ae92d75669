// What a plane has in memory while it is described, and the counting kernels. Counts are integers added by atomics, so
// that their order changes no bit.
#pragma once

#include "../radiomics_cuda.h"
#include "../radiomics_formulas.h"
#include "../radiomics_pixel.h"
#include "reduce.cuh"

namespace medtrust {
namespace {

#ifdef MEDTRUST_TEAM  // the emulation's blocks are smaller: a thread of the processor costs more than one of the device
constexpr int kThreads = MEDTRUST_TEAM;
#else
constexpr int kThreads = 256;
#endif
constexpr int kJobFeatures = 32;  // doubles kept for each job of a plane
enum Job { kPairsJob = 0, kRunsJob = 4, kZonesJob = 8, kToneJob = 9, kDependenceJob = 10, kFirstJob = 11, kJobs = 12 };

// Places in a plane's scratch, in bytes; what comes before `cleared` starts as zeros.
struct Layout {
  int64_t pixels, height, width, levels, stride, longest, largest_zones;
  int64_t gaps, inside, same, histogram, pairs, lengths, small, flags, cleared;
  int64_t words, features, zones, parents, sizes, grey, bytes;

  explicit Layout(const RadiomicsSpec& spec)
      : pixels(spec.height * spec.width), height(spec.height), width(spec.width), levels(spec.levels),
        stride(spec.levels + 1), longest(height > width ? height : width) {
    largest_zones = 1;
    while (largest_zones < pixels / (kDenseZones + 1) + 1) largest_zones *= 2;  // a sort of a power of two
    int64_t next = 0;
    const auto take = [&next](int64_t size) {
      const int64_t here = next;
      next += (size + 7) / 8 * 8;
      return here;
    };
    gaps = take(9 * stride * 8), inside = take(9 * stride * 8), same = take(9 * stride * 8);
    histogram = take(stride * 4);
    pairs = take(4 * stride * stride * 4);
    lengths = take(4 * (longest + 1) * stride * 4);
    small = take((kDenseZones + 1) * stride * 4);
    flags = take(8);
    cleared = next;
    words = take(kJobs * formula_words(levels) * 8);
    features = take(kJobs * kJobFeatures * 8);
    zones = take(largest_zones * int64_t(sizeof(Zone)));
    parents = take(pixels * 4), sizes = take(pixels * 4);
    grey = take(pixels * 2);
    bytes = next;
  }
};

// The same places as addresses.
struct PlaneView {
  using Count = unsigned long long;
  Count *gaps, *inside, *same;
  unsigned *histogram, *pairs, *lengths, *small, *broken, *large;
  uint64_t* words;
  double* features;
  Zone* zones;
  unsigned *parents, *sizes;
  uint16_t* grey;

  __device__ PlaneView(char* scratch, const Layout& l, int64_t plane) {
    char* base = scratch + plane * l.bytes;
    const auto at = [base](int64_t offset) { return static_cast<void*>(base + offset); };
    gaps = static_cast<Count*>(at(l.gaps)), inside = static_cast<Count*>(at(l.inside));
    same = static_cast<Count*>(at(l.same));
    histogram = static_cast<unsigned*>(at(l.histogram)), pairs = static_cast<unsigned*>(at(l.pairs));
    lengths = static_cast<unsigned*>(at(l.lengths)), small = static_cast<unsigned*>(at(l.small));
    broken = static_cast<unsigned*>(at(l.flags)), large = broken + 1;
    words = static_cast<uint64_t*>(at(l.words)), features = static_cast<double*>(at(l.features));
    zones = static_cast<Zone*>(at(l.zones));
    parents = static_cast<unsigned*>(at(l.parents)), sizes = static_cast<unsigned*>(at(l.sizes));
    grey = static_cast<uint16_t*>(at(l.grey));
  }

  __device__ int64_t region(const Layout& l) const {  // pixels in it
    int64_t sum = 0;
    for (int64_t i = 1; i <= l.levels; ++i) sum += histogram[i];
    return sum;
  }
};

__global__ void __launch_bounds__(kThreads) clear_kernel(char* scratch, Layout l, int64_t total) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, each = l.cleared / 8;
  if (i < total) reinterpret_cast<uint64_t*>(scratch + i / each * l.bytes)[i % each] = 0;
}

// A thread per pixel: its level, 0 outside the region.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    grey_kernel(const T* images, const uint8_t* mask, RadiomicsSpec spec, char* scratch, Layout l) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= spec.planes * l.pixels) return;
  const int64_t plane = i / l.pixels, pixel = i % l.pixels;
  const PlaneView v(scratch, l, plane);
  v.parents[pixel] = unsigned(pixel);
  v.sizes[pixel] = 0;
  if (mask != nullptr && mask[plane / spec.channels * l.pixels + pixel] == 0) {
    v.grey[pixel] = 0;
    return;
  }
  if (!usable(images[i])) atomicAdd(v.broken, 1u);
  const uint16_t level = grey_level(double(images[i]), spec.lo, spec.multiply, spec.divide, double(spec.levels - 1));
  v.grey[pixel] = level;
  atomicAdd(v.histogram + level, 1u);
}

// The levels around a pixel; outside of the image they are 0.
struct Around {
  const uint16_t* grey;
  int64_t height, width, row, col;
  __device__ unsigned operator()(int64_t down, int64_t right) const {
    const int64_t y = row + down, x = col + right;
    return y < 0 || y >= height || x < 0 || x >= width ? 0u : unsigned(grey[y * width + x]);
  }
};

// The root of a pixel's zone so far. Other threads move it while we look: hence volatile.
__device__ inline unsigned root_of(const unsigned* parents, unsigned i) {
  const volatile unsigned* p = parents;
  for (unsigned above = p[i]; above != i; above = p[i]) i = above;
  return i;
}

__device__ inline void unite(unsigned* parents, unsigned a, unsigned b) {
  for (;;) {
    a = root_of(parents, a), b = root_of(parents, b);
    if (a == b) return;
    const unsigned low = a < b ? a : b, high = a < b ? b : a;
    const unsigned was = atomicMin(parents + high, low);
    if (was == high) return;  // it was a root, and is ours now
    a = was, b = low;         // another thread had hung it elsewhere: unite the two places
  }
}

// A thread per pixel: pairs, runs that start here, zones joined here, and the neighbourhood.
__global__ void __launch_bounds__(kThreads) count_kernel(int64_t planes, int64_t families, char* scratch, Layout l) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= planes * l.pixels) return;
  const int64_t pixel = i % l.pixels;
  const PlaneView v(scratch, l, i / l.pixels);
  const Around around{v.grey, l.height, l.width, pixel / l.width, pixel % l.width};
  const unsigned level = v.grey[pixel];
  if (level == 0) return;
  constexpr int kDown[4] = {0, 1, 1, 1}, kPairRight[4] = {1, -1, 0, 1}, kRunRight[4] = {1, 1, 0, -1};
  for (int d = 0; d < 4 && (families & kCooccurrence); ++d) {
    const unsigned there = around(kDown[d], kPairRight[d]);
    if (there != 0) atomicAdd(v.pairs + (d * l.stride + level) * l.stride + there, 1u);
  }
  for (int d = 0; d < 4 && (families & kRuns); ++d) {
    if (around(-kDown[d], -kRunRight[d]) == level) continue;
    int64_t length = 1;  // every pixel counts as the length-th of its run, as radiomics.h says
    do atomicAdd(v.lengths + (d * (l.longest + 1) + length) * l.stride + level, 1u);
    while (around(length * kDown[d], length * kRunRight[d]) == level && ++length);
  }
  if (families & kZones) {
    if (around(0, -1) == level) unite(v.parents, unsigned(pixel), unsigned(pixel - 1));
    for (int64_t right = -1; right <= 1; ++right)
      if (around(-1, right) == level) unite(v.parents, unsigned(pixel), unsigned(pixel - l.width + right));
  }
  if (families & (kToneDifference | kDependence)) {
    unsigned sum = 0, equal = 0, inside = 0;
    for (int k = 0; k < 9; ++k) {
      if (k == 4) continue;
      const unsigned there = around(k / 3 - 1, k % 3 - 1);
      sum += there, equal += there == level, inside += there != 0;
    }
    const unsigned here = inside * level;
    atomicAdd(v.gaps + inside * l.stride + level, PlaneView::Count(here > sum ? here - sum : sum - here));
    atomicAdd(v.inside + inside * l.stride + level, PlaneView::Count(1));
    atomicAdd(v.same + equal * l.stride + level, PlaneView::Count(1));
  }
}

__global__ void __launch_bounds__(kThreads) zone_sizes_kernel(int64_t planes, char* scratch, Layout l) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= planes * l.pixels) return;
  const PlaneView v(scratch, l, i / l.pixels);
  const unsigned pixel = unsigned(i % l.pixels);
  if (v.grey[pixel] != 0) atomicAdd(v.sizes + root_of(v.parents, pixel), 1u);
}

// Small zones are counted; large ones are listed, in whatever order, and put in order next.
__global__ void __launch_bounds__(kThreads) zone_list_kernel(int64_t planes, char* scratch, Layout l) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= planes * l.pixels) return;
  const PlaneView v(scratch, l, i / l.pixels);
  const unsigned size = v.sizes[i % l.pixels], level = v.grey[i % l.pixels];  // only a root has a size
  if (size == 0) return;
  if (size <= kDenseZones) atomicAdd(v.small + size * l.stride + level, 1u);
  else v.zones[atomicAdd(v.large, 1u)] = {int32_t(size), int32_t(level)};
}

// A block per plane: a bitonic sort of its large zones.
__global__ void __launch_bounds__(kThreads) zone_sort_kernel(char* scratch, Layout l) {
  const PlaneView v(scratch, l, blockIdx.x);
  const int64_t number = *v.large;
  int64_t slots = 1;
  while (slots < number) slots *= 2;
  for (int64_t i = number + threadIdx.x; i < slots; i += kThreads) v.zones[i] = {2147483647, 65535};
  for (int64_t run = 2; run <= slots; run *= 2)
    for (int64_t gap = run / 2; gap > 0; gap /= 2) {
      __syncthreads();
      for (int64_t i = threadIdx.x; i < slots; i += kThreads) {
        const int64_t other = i ^ gap;
        if (other <= i) continue;
        const Zone a = v.zones[i], b = v.zones[other];
        if ((i & run) == 0 ? before(b, a) : before(a, b)) v.zones[i] = b, v.zones[other] = a;
      }
    }
}

}  // namespace
}  // namespace medtrust
