// Radiomics: levels and counts with a thread per pixel, first order with a block per plane, then the formulas that the
// processor uses too, with a thread per plane and matrix.
#include "radiomics_plane.cuh"

#include <stdexcept>

namespace medtrust {
namespace {

__device__ inline uint32_t order_key(float value) {  // unsigned integers in the order of the floats
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float value_of(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

constexpr int kRanks = 10, kDigits = 256;

// The values at the ten ranks around the quantiles: four rounds of a radix selection by 8 bits.
// counts: [kRanks, kDigits] and ranks, prefixes: [kRanks], shared
template <typename T>
__device__ void select_quantiles(const T* pixels, const uint16_t* grey, const Layout& l, int64_t count,
                                 unsigned (*counts)[kDigits], int64_t* ranks, uint32_t* prefixes, double* q) {
  __syncthreads();
  if (threadIdx.x < kRanks) {
    ranks[threadIdx.x] = quantile_rank(int(threadIdx.x) / 2, int(threadIdx.x) % 2, count);
    prefixes[threadIdx.x] = 0;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kRanks * kDigits; i += kThreads) counts[i / kDigits][i % kDigits] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < l.pixels; i += kThreads) {
      if (grey[i] == 0) continue;
      const uint64_t key = order_key(float(pixels[i]));
      for (int r = 0; r < kRanks; ++r)  // ranks with one prefix share the counts of the first
        if ((r == 0 || prefixes[r] != prefixes[r - 1]) && key >> (shift + 8) == prefixes[r])
          atomicAdd(&counts[r][key >> shift & (kDigits - 1)], 1u);
    }
    __syncthreads();
    uint32_t found = 0;
    if (threadIdx.x < kRanks) {
      int first = threadIdx.x;
      while (first > 0 && prefixes[first] == prefixes[first - 1]) --first;
      int digit = 0;
      while (ranks[threadIdx.x] >= counts[first][digit]) ranks[threadIdx.x] -= counts[first][digit++];
      found = prefixes[threadIdx.x] << 8 | uint32_t(digit);
    }
    __syncthreads();  // all have read the prefixes
    if (threadIdx.x < kRanks) prefixes[threadIdx.x] = found;
    __syncthreads();
  }
  for (int i = 0; i < 5; ++i)
    q[i] = quantile_between(i, double(value_of(prefixes[2 * i])), double(value_of(prefixes[2 * i + 1])), count);
}

// The least over the block; every thread receives it.
__device__ inline double block_least(double value, double* shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) shared[threadIdx.x] = fmin(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  __syncthreads();
  return shared[0];
}

// A block per plane; sums are added in a fixed tree.
template <typename T>
__global__ void __launch_bounds__(kThreads) first_order_kernel(const T* images, char* scratch, Layout l) {
  __shared__ double shared[kThreads];
  __shared__ unsigned counts[kRanks][kDigits];
  __shared__ int64_t ranks[kRanks];
  __shared__ uint32_t prefixes[kRanks];
  const PlaneView v(scratch, l, blockIdx.x);
  const int64_t count = v.region(l);
  if (count == 0 || *v.broken != 0) return;  // the whole block
  const T* pixels = images + int64_t(blockIdx.x) * l.pixels;
  const auto each = [&](auto&& visit) {
    for (int64_t i = threadIdx.x; i < l.pixels; i += kThreads)
      if (v.grey[i] != 0) visit(double(pixels[i]));
  };
  const auto sum = [&](double mine) { return block_sum(mine, shared); };

  Extremes mine{0, 0, INFINITY, -INFINITY};
  each([&](double x) {
    mine.sum += x, mine.squares += x * x;
    mine.lowest = fmin(mine.lowest, x), mine.highest = fmax(mine.highest, x);
  });
  const Extremes range{sum(mine.sum), sum(mine.squares), block_least(mine.lowest, shared),
                       -block_least(-mine.highest, shared)};
  const double mean = mean_of(range, double(count));
  Moments4 part{};
  each([&](double x) {
    const double d = x - mean, square = d * d;
    part.m2 += square, part.m3 += square * d, part.m4 += square * square, part.absolute += fabs(d);
  });
  const Moments4 moments{sum(part.m2), sum(part.m3), sum(part.m4), sum(part.absolute)};
  double q[5];
  select_quantiles(pixels, v.grey, l, count, counts, ranks, prefixes, q);
  double number = 0, within = 0, around = 0, apart = 0;
  each([&](double x) {
    if (x >= q[0] && x <= q[4]) number += 1, within += x;
    around += fabs(x - q[2]);
  });
  number = sum(number), within = sum(within), around = sum(around);
  const double centre = number > 0 ? within / number : 0;
  each([&](double x) {
    if (x >= q[0] && x <= q[4]) apart += fabs(x - centre);
  });
  const double inner[3] = {number, within, sum(apart)};
  if (threadIdx.x == 0) {
    double* out = v.features + kFirstJob * kJobFeatures;
    first_order_of(range, moments, q, inner, around, double(count), out);
    histogram_of(v.histogram, l.levels, out + 18, out + 19);
  }
}

// A thread per plane and job: the features of one matrix. The last double of a job says whether it had any pair.
__global__ void formulas_kernel(int64_t families, bool merged, char* scratch, Layout l) {
  const int job = int(blockIdx.x % kJobs), direction = job % 4;
  const PlaneView v(scratch, l, blockIdx.x / kJobs);
  const int64_t count = v.region(l);
  if (count == 0 || *v.broken != 0) return;
  uint64_t* words = v.words + job * formula_words(l.levels);
  double* out = v.features + job * kJobFeatures;
  const unsigned* tables[4];
  const int64_t size = job < kRunsJob ? l.stride * l.stride : (l.longest + 1) * l.stride;
  for (int d = 0; d < 4; ++d) tables[d] = (job < kRunsJob ? v.pairs : v.lengths) + d * size;
  const bool first = !merged || direction == 0;
  if (job < kRunsJob && (families & kCooccurrence) && first) {
    for (int f = 0; f < 25; ++f) out[f] = 0;
    out[kJobFeatures - 1] = add_cooccurrence(tables + direction, merged ? 4 : 1, l.levels, words, out);
  } else if (job >= kRunsJob && job < kZonesJob && (families & kRuns) && first) {
    runs_of(tables + direction, merged ? 4 : 1, l.longest, l.levels, count, words, out);
  } else if (job == kZonesJob && (families & kZones)) {
    zones_of(v.small, v.zones, *v.large, l.levels, count, words, out);
  } else if (job == kToneJob && (families & kToneDifference)) {
    tone_differences_of(reinterpret_cast<uint64_t*>(v.gaps), reinterpret_cast<uint64_t*>(v.inside), l.levels, words,
                        out);
  } else if (job == kDependenceJob && (families & kDependence)) {
    dependences_of(reinterpret_cast<uint64_t*>(v.same), l.levels, count, words, out);
  }
}

// A thread per plane: directions averaged, columns in their order.
__global__ void collect_kernel(int64_t families, bool merged, int64_t features, char* scratch, Layout l,
                               double* values, int64_t* states) {
  const PlaneView v(scratch, l, blockIdx.x);
  const RegionState state = *v.broken != 0 ? RegionState::not_finite
                            : v.region(l) == 0 ? RegionState::empty
                                               : RegionState::fine;
  states[blockIdx.x] = int64_t(state);
  double* out = values + int64_t(blockIdx.x) * features;
  if (state != RegionState::fine) {
    for (int64_t f = 0; f < features; ++f) out[f] = 0;
    return;
  }
  const auto job = [&v](int number) { return v.features + number * kJobFeatures; };
  const auto copy = [&out](const double* from, int number) {
    for (int f = 0; f < number; ++f) *out++ = from[f];
  };
  const int directions = merged ? 1 : 4;
  if (families & kFirstOrder) copy(job(kFirstJob), 20);
  if (families & kCooccurrence) {
    int used = 0;
    for (int f = 0; f < 25; ++f) out[f] = 0;
    for (int d = 0; d < directions; ++d) {
      if (job(kPairsJob + d)[kJobFeatures - 1] == 0) continue;
      for (int f = 0; f < 25; ++f) out[f] += job(kPairsJob + d)[f];
      ++used;
    }
    if (used == 0) add_cooccurrence_alone(v.histogram, l.levels, v.words, out), used = 1;
    for (int f = 0; f < 25; ++f) *out++ /= used;
  }
  if (families & kRuns)
    for (int f = 0; f < 16; ++f) {
      double sum = 0;
      for (int d = 0; d < directions; ++d) sum += job(kRunsJob + d)[f];
      *out++ = sum / directions;
    }
  if (families & kZones) copy(job(kZonesJob), 16);
  if (families & kToneDifference) copy(job(kToneJob), 5);
  if (families & kDependence) copy(job(kDependenceJob), 16);
}

unsigned blocks_of(int64_t items) {
  const int64_t blocks = (items + kThreads - 1) / kThreads;
  if (blocks > 2147483647) throw std::invalid_argument("radiomics: more than 2^39 pixels at once; split the batch");
  return unsigned(blocks);
}

template <typename T>
void launch(const void* images, const uint8_t* mask, const RadiomicsSpec& spec, char* scratch, double* values,
            int64_t* states, cudaStream_t queue) {
  const Layout l(spec);
  const T* pixels = static_cast<const T*>(images);
  const unsigned planes = unsigned(spec.planes), per_pixel = blocks_of(spec.planes * l.pixels);
  const int64_t words = spec.planes * (l.cleared / 8);
  MEDTRUST_LAUNCH(clear_kernel, blocks_of(words), kThreads, queue, scratch, l, words);
  check_launch("radiomics clear");
  MEDTRUST_LAUNCH(grey_kernel<T>, per_pixel, kThreads, queue, pixels, mask, spec, scratch, l);
  check_launch("radiomics levels");
  MEDTRUST_LAUNCH(count_kernel, per_pixel, kThreads, queue, spec.planes, spec.families, scratch, l);
  check_launch("radiomics counts");
  if (spec.families & kZones) {
    MEDTRUST_LAUNCH(zone_sizes_kernel, per_pixel, kThreads, queue, spec.planes, scratch, l);
    check_launch("radiomics zone sizes");
    MEDTRUST_LAUNCH(zone_list_kernel, per_pixel, kThreads, queue, spec.planes, scratch, l);
    check_launch("radiomics zones");
    MEDTRUST_LAUNCH(zone_sort_kernel, planes, kThreads, queue, scratch, l);
    check_launch("radiomics zone order");
  }
  if (spec.families & kFirstOrder) {
    MEDTRUST_LAUNCH(first_order_kernel<T>, planes, kThreads, queue, pixels, scratch, l);
    check_launch("radiomics first order");
  }
  MEDTRUST_LAUNCH(formulas_kernel, planes * kJobs, 1, queue, spec.families, spec.merged, scratch, l);
  check_launch("radiomics formulas");
  MEDTRUST_LAUNCH(collect_kernel, planes, 1, queue, spec.families, spec.merged, spec.features(), scratch, l, values,
                  states);
  check_launch("radiomics columns");
}

}  // namespace

int64_t radiomics_cuda_scratch(const RadiomicsSpec& spec) {
  check_sizes(spec);
  return Layout(spec).bytes;
}

void radiomics_cuda(const void* images, const uint8_t* mask, const RadiomicsSpec& spec, void* scratch, double* values,
                    int64_t* states, void* stream) {
  check_sizes(spec);
  if (spec.planes > 2147483647 / kJobs) throw std::invalid_argument("radiomics: more than 2^27 planes at once");
  if (spec.planes == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  char* memory = static_cast<char*>(scratch);
  switch (spec.grey) {
    case Grey::u8: return launch<uint8_t>(images, mask, spec, memory, values, states, queue);
    case Grey::u16: return launch<uint16_t>(images, mask, spec, memory, values, states, queue);
    case Grey::i16: return launch<int16_t>(images, mask, spec, memory, values, states, queue);
    default: return launch<float>(images, mask, spec, memory, values, states, queue);
  }
}

}  // namespace medtrust
