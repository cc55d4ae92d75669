// Neighbours and balls from tiles of float32 dot products. A block owns one query row of a tile. Bounds sort out what
// cannot matter; what is left is computed as sum (q - r)^2 in float64, each pair in one fixed order of additions.
#include "../neighbours_cuda.h"

#include "../neighbours_bounds.h"
#include "launch.cuh"

namespace medtrust {
namespace {

constexpr int kThreads = 128;
constexpr int kChunk = 8 * kThreads;          // columns looked at between two looks at the list of hits
constexpr int kLanes = 16;                    // threads that share a pair: a segment of 64 bytes of float32 at a time
constexpr int kPairs = kThreads / kLanes;     // pairs that a block computes at once

// float32 columns of a tile, for all of its rows: squares, norms, and squared radii where there are some.
__global__ void __launch_bounds__(kThreads) columns_kernel(const double* col_squares, int64_t cols, bool down,
                                                           const double* radii, double square_scale, float* out) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= cols) return;
  out[c] = down ? lowered(col_squares[c]) : float(col_squares[c]);
  out[cols + c] = raised_norm(col_squares[c]);
  if (radii != nullptr) out[2 * cols + c] = float(radii[c] * square_scale);
}

struct Candidate {
  float bound;
  int64_t index;
};
__device__ inline bool before(const Candidate& a, const Candidate& b) {
  return a.bound < b.bound || (a.bound == b.bound && a.index < b.index);
}

// Puts a candidate in the place of the last one of a max-heap.
__device__ inline void replace_last(const Candidate& one, int64_t keep, float* bounds, int64_t* indices) {
  int64_t hole = 0;
  for (int64_t child = 1; child < keep; child = 2 * hole + 1) {
    Candidate next{bounds[child], indices[child]};
    if (child + 1 < keep) {
      const Candidate right{bounds[child + 1], indices[child + 1]};
      if (before(next, right)) next = right, ++child;
    }
    if (!before(one, next)) break;
    bounds[hole] = next.bound, indices[hole] = next.index;
    hole = child;
  }
  bounds[hole] = one.bound, indices[hole] = one.index;
}

__global__ void __launch_bounds__(kThreads)
    scan_kernel(DotTile tile, const int64_t* query_groups, const int64_t* reference_groups, int64_t keep,
                const float* columns, float* bounds, int64_t* indices) {
  __shared__ Candidate hits[kChunk];
  __shared__ int found;
  __shared__ float threshold;
  const int64_t r = blockIdx.x, row = tile.first_row + r;
  const float slack = slack_of(tile.width, tile.row_squares[r]);
  const float* dots = tile.dots + r * tile.cols;
  const float* squares = columns;
  const float* norms = columns + tile.cols;
  float* const my_bounds = bounds + row * keep;
  int64_t* const my_indices = indices + row * keep;
  if (threadIdx.x == 0) found = 0, threshold = my_bounds[0];
  __syncthreads();
  for (int64_t first = 0; first < tile.cols; first += kChunk) {
    bool hit = false;
    for (int i = threadIdx.x; i < kChunk; i += kThreads) {
      const int64_t c = first + i;
      if (c >= tile.cols) break;
      const float bound = squares[c] - 2.0f * dots[c] - slack * norms[c];
      const int64_t index = tile.first_col + c;
      if (!(bound <= threshold)) continue;
      if (query_groups != nullptr && query_groups[row] == reference_groups[index]) continue;
      hits[atomicAdd(&found, 1)] = {bound, index};
      hit = true;
    }
    if (!__syncthreads_or(hit)) continue;
    if (threadIdx.x == 0) {  // hits are rare after the first chunks; in any order they leave the same candidates
      for (int h = 0; h < found; ++h) {
        const Candidate last{my_bounds[0], my_indices[0] < 0 ? INT64_MAX : my_indices[0]};
        if (before(hits[h], last)) replace_last(hits[h], keep, my_bounds, my_indices);
      }
      found = 0;
      threshold = my_bounds[0];
    }
    __syncthreads();
  }
}

// Sum of this thread's share of (x - y)^2.
template <typename T>
__device__ inline double share_of(const T* x, const T* y, int64_t width, int lane) {
  double sum = 0;
  for (int64_t i = lane; i < width; i += kLanes) {
    const double gap = double(x[i]) - double(y[i]);
    sum += gap * gap;
  }
  return sum;
}

// Squared distance of the pair of this thread's group of lanes; all threads of the block take part. A group without a
// pair gives x = null. The result is right in lane 0 of each group.
template <typename T>
__device__ double distance(const T* x, const T* y, int64_t width, double* shared) {
  const int lane = threadIdx.x % kLanes;
  __syncthreads();
  shared[threadIdx.x] = x == nullptr ? 0.0 : share_of(x, y, width, lane);
  __syncthreads();
  double sum = 0;
  if (lane == 0)
    for (int l = 0; l < kLanes; ++l) sum += shared[threadIdx.x + l];
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    distances_kernel(const T* queries, const T* references, int64_t width, const int64_t* chosen, const int64_t* others,
                     int64_t each, int64_t pairs, double* squared) {
  __shared__ double shared[kThreads];
  const int64_t pair = int64_t(blockIdx.x) * kPairs + threadIdx.x / kLanes;
  const T *x = nullptr, *y = nullptr;
  if (pair < pairs) {
    const int64_t other = others == nullptr ? pair % each : others[pair];
    if (other >= 0) {
      x = queries + chosen[pair / each] * width;
      y = references + other * width;
    }
  }
  const double sum = distance(x, y, width, shared);
  if (threadIdx.x % kLanes == 0 && pair < pairs) squared[pair] = x == nullptr ? INFINITY : sum;
}

__device__ inline bool inside(double square, double radius, bool inclusive) {
  return inclusive ? square <= radius : square < radius;
}

struct BallSets {
  const double* query_radii;      // squared, of all rows
  const double* reference_radii;
  double square_scale;
  bool inclusive;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    balls_kernel(DotTile tile, const T* queries, const T* references, BallSets sets, const float* columns,
                 int64_t* in_balls, uint8_t* recalled, uint8_t* covered) {
  __shared__ int32_t undecided[kChunk];
  __shared__ double shared[kThreads];
  __shared__ int open, counted;
  const int64_t r = blockIdx.x, query = tile.first_row + r;
  const double query_radius = sets.query_radii[query];
  const float row_square = float(tile.row_squares[r]), slack = slack_of(tile.width, tile.row_squares[r]);
  const float row_radius = float(query_radius * sets.square_scale), unit = float(kRoundoff);
  const float* dots = tile.dots + r * tile.cols;
  int count = 0;
  if (threadIdx.x == 0) open = 0, counted = 0;
  __syncthreads();
  for (int64_t first = 0; first < tile.cols; first += kChunk) {
    bool unsure = false;
    for (int i = threadIdx.x; i < kChunk; i += kThreads) {
      const int64_t c = first + i;
      if (c >= tile.cols) break;
      const float sum = row_square + columns[c], norm = columns[tile.cols + c], radius = columns[2 * tile.cols + c];
      const float gap = sum - 2.0f * dots[c];
      const float error = slack * norm + 16 * unit * sum + kUnderflow;
      const float error_real = error + 4 * unit * radius, error_fake = error + 4 * unit * row_radius;
      const bool in_real = gap + error_real < radius, in_fake = gap + error_fake < row_radius;
      if ((!in_real && !(gap - error_real > radius)) || (!in_fake && !(gap - error_fake > row_radius))) {
        undecided[atomicAdd(&open, 1)] = int32_t(i);
        unsure = true;
        continue;
      }
      // Every thread that writes a flag writes 1, so their order does not matter.
      if (in_real) ++count, covered[tile.first_col + c] = 1;
      if (in_fake) recalled[tile.first_col + c] = 1;
    }
    if (!__syncthreads_or(unsure)) continue;
    const int listed = open;
    for (int base = 0; base < listed; base += kPairs) {
      const int mine = base + threadIdx.x / kLanes;
      const int64_t reference = mine < listed ? tile.first_col + first + undecided[mine] : -1;
      const T *x = nullptr, *y = nullptr;
      if (reference >= 0) x = queries + query * tile.width, y = references + reference * tile.width;
      const double square = distance(x, y, tile.width, shared);
      if (reference < 0 || threadIdx.x % kLanes != 0) continue;
      if (inside(square, query_radius, sets.inclusive)) recalled[reference] = 1;
      if (!inside(square, sets.reference_radii[reference], sets.inclusive)) continue;
      covered[reference] = 1;
      ++count;
    }
    __syncthreads();
    if (threadIdx.x == 0) open = 0;
    __syncthreads();
  }
  atomicAdd(&counted, count);
  __syncthreads();
  if (threadIdx.x == 0) in_balls[query] += counted;
}

unsigned grid_of(int64_t blocks) {
  if (blocks > 2147483647) throw std::invalid_argument("more than 2^31 blocks; give fewer rows at a time");
  return unsigned(blocks);
}

void launch_columns(const DotTile& tile, bool down, const double* radii, double square_scale, float* out,
                    cudaStream_t queue) {
  MEDTRUST_LAUNCH(columns_kernel, grid_of((tile.cols + kThreads - 1) / kThreads), kThreads, queue, tile.col_squares,
                  tile.cols, down, radii, square_scale, out);
  check_launch("neighbours columns");
}

}  // namespace

void neighbours_scan_cuda(const DotTile& tile, const int64_t* query_groups, const int64_t* reference_groups,
                          int64_t keep, float* scratch, float* bounds, int64_t* indices, void* stream) {
  if (tile.rows == 0 || tile.cols == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  launch_columns(tile, true, nullptr, 1, scratch, queue);
  MEDTRUST_LAUNCH(scan_kernel, grid_of(tile.rows), kThreads, queue, tile, query_groups, reference_groups, keep, scratch,
                  bounds, indices);
  check_launch("neighbours scan");
}

void neighbours_distances_cuda(const Rows& queries, const Rows& references, const int64_t* chosen, int64_t count,
                               const int64_t* others, int64_t each, double* squared, void* stream) {
  const int64_t pairs = count * each;
  if (pairs == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  const unsigned grid = grid_of((pairs + kPairs - 1) / kPairs);
  if (queries.is_double)
    MEDTRUST_LAUNCH(distances_kernel<double>, grid, kThreads, queue, static_cast<const double*>(queries.data),
                    static_cast<const double*>(references.data), queries.width, chosen, others, each, pairs, squared);
  else
    MEDTRUST_LAUNCH(distances_kernel<float>, grid, kThreads, queue, static_cast<const float*>(queries.data),
                    static_cast<const float*>(references.data), queries.width, chosen, others, each, pairs, squared);
  check_launch("neighbours distances");
}

void neighbours_balls_cuda(const DotTile& tile, const Rows& queries, const Rows& references, const double* query_radii,
                           const double* reference_radii, double square_scale, bool inclusive, float* scratch,
                           int64_t* in_balls, uint8_t* recalled, uint8_t* covered, void* stream) {
  if (tile.rows == 0 || tile.cols == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  launch_columns(tile, false, reference_radii + tile.first_col, square_scale, scratch, queue);
  const BallSets sets{query_radii, reference_radii, square_scale, inclusive};
  const unsigned grid = grid_of(tile.rows);
  if (queries.is_double)
    MEDTRUST_LAUNCH(balls_kernel<double>, grid, kThreads, queue, tile, static_cast<const double*>(queries.data),
                    static_cast<const double*>(references.data), sets, scratch, in_balls, recalled, covered);
  else
    MEDTRUST_LAUNCH(balls_kernel<float>, grid, kThreads, queue, tile, static_cast<const float*>(queries.data),
                    static_cast<const float*>(references.data), sets, scratch, in_balls, recalled, covered);
  check_launch("neighbours balls");
}

}  // namespace medtrust
