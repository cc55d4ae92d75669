// A kernel summed over tiles of 64 x 64 pairs. A thread holds 4 x 4 dot products or squared distances, the latter as
// sum (x - y)^2, in registers; the tile's kernel values are added in a fixed tree into a slot of their own, and a second kernel adds the slots in a fixed order.
#include "../mmd_cuda.h"

#include <cmath>

#include "reduce.cuh"

namespace medtrust {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;   // rows and columns of a tile
constexpr int kDepth = 16;  // features held in shared memory at a time
constexpr int kEach = 4;    // rows and columns of a thread, 16 apart so that a warp reads neighbouring words
constexpr int kApart = kTile / kEach;

template <typename T>
__device__ void load_slab(const T* rows, int64_t count, int64_t width, int64_t first, int64_t at,
                          double (*slab)[kTile + 1]) {
  for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
    const int64_t row = first + i / kDepth, feature = at + i % kDepth;
    slab[i % kDepth][i / kDepth] = row < count && feature < width ? double(rows[row * width + feature]) : 0.0;
  }
}

template <typename T, Discrepancy kind>
__global__ void __launch_bounds__(kThreads) tile_kernel(const T* x, int64_t n, const T* y, int64_t m, int64_t width,
                                                        int64_t across, bool same, double scale, double* slots) {
  __shared__ double left[kDepth][kTile + 1], right[kDepth][kTile + 1];
  __shared__ double shared[kThreads];
  const int64_t tile_row = blockIdx.x / across, tile_col = blockIdx.x % across;
  if (same && tile_col < tile_row) {  // this tile is the one above the diagonal transposed, which counts twice
    if (threadIdx.x == 0) slots[blockIdx.x] = 0;
    return;
  }
  const int64_t row = tile_row * kTile, col = tile_col * kTile;
  const int my_row = threadIdx.x / kApart, my_col = threadIdx.x % kApart;
  double dots[kEach][kEach] = {};  // or squared distances
  for (int64_t at = 0; at < width; at += kDepth) {
    load_slab(x, n, width, row, at, left);
    load_slab(y, m, width, col, at, right);
    __syncthreads();
#pragma unroll
    for (int f = 0; f < kDepth; ++f) {
      double a[kEach], b[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        a[i] = left[f][my_row + i * kApart];
        b[i] = right[f][my_col + i * kApart];
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          if (kind == Discrepancy::poly3) dots[i][j] += a[i] * b[j];
          else dots[i][j] += (a[i] - b[j]) * (a[i] - b[j]);
        }
    }
    __syncthreads();
  }
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int64_t r = row + my_row + i * kApart, c = col + my_col + j * kApart;
      const double base = scale * dots[i][j] + 1;
      const double value = kind == Discrepancy::poly3 ? base * base * base : exp(-scale * dots[i][j]);
      if (r < n && c < m && !(same && r == c)) sum += value;
    }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) slots[blockIdx.x] = same && tile_col != tile_row ? 2 * sum : sum;
}

__global__ void __launch_bounds__(kThreads) slots_kernel(const double* slots, int64_t count, double* out) {
  __shared__ double shared[kThreads];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += slots[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) *out = sum;
}

int64_t tiles_of(int64_t rows) { return (rows + kTile - 1) / kTile; }

template <typename T, Discrepancy kind>
void launch(const Rows& x, const Rows& y, bool same, double scale, unsigned tiles, double* slots, cudaStream_t queue) {
  const auto kernel = tile_kernel<T, kind>;
  MEDTRUST_LAUNCH(kernel, tiles, kThreads, queue, static_cast<const T*>(x.data), x.count,
                  static_cast<const T*>(y.data), y.count, x.width, tiles_of(y.count), same, scale, slots);
  check_launch("mmd tiles");
}

template <typename T>
void launch_tiles(const Rows& x, const Rows& y, bool same, Discrepancy kind, double scale, unsigned tiles,
                  double* slots, cudaStream_t queue) {
  if (kind == Discrepancy::poly3) launch<T, Discrepancy::poly3>(x, y, same, scale, tiles, slots, queue);
  else launch<T, Discrepancy::gauss>(x, y, same, scale, tiles, slots, queue);
}

}  // namespace

int64_t mmd_cuda_tiles(int64_t n, int64_t m) { return tiles_of(n) * tiles_of(m); }

void mmd_cuda(const Rows& x, const Rows& y, bool same, Discrepancy kind, double scale, double* scratch, double* sum,
              void* stream) {
  const int64_t tiles = mmd_cuda_tiles(x.count, y.count);
  if (tiles < 1 || tiles > 2147483647) throw std::invalid_argument("1 to 2^31 tiles of 64 x 64 pairs expected");
  const auto queue = static_cast<cudaStream_t>(stream);
  if (x.is_double) launch_tiles<double>(x, y, same, kind, scale, unsigned(tiles), scratch, queue);
  else launch_tiles<float>(x, y, same, kind, scale, unsigned(tiles), scratch, queue);
  MEDTRUST_LAUNCH(slots_kernel, 1, kThreads, queue, scratch, tiles, sum);
  check_launch("mmd sums");
}

}  // namespace medtrust
