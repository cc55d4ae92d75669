// SSIM of 2-D images with 11 taps. A block owns a rectangle of the map, one thread per column, and marches down the
// rows: each input row is centred into shared memory, filtered across, and added into the eleven output rows that it
// reaches, whose partial sums live in registers.
#include "../ssim.h"
#include "reduce.cuh"

namespace medtrust {
namespace {

constexpr int kTaps = 11;
constexpr int kCols = 128;  // threads of a block, columns of its rectangle
constexpr int kRows = 32;   // rows of its rectangle: a thread adds at most this many pixels in float32
constexpr int kHalo = kTaps - 1;

struct Plan {
  int64_t height, width, out_height, out_width, tiles_across, tiles;
  int border;  // rows and columns mirrored on each side
  double taps[kTaps];
  double c1, c2, covariance, guard, count;
};

__device__ inline int64_t mirror(int64_t i, int64_t n) {
  if (i < 0) i = -i;
  return i < n ? i : 2 * (n - 1) - i;
}

template <typename T>
struct Rectangle {
  const T* x;  // [height, width] of one plane
  const T* y;
  int64_t row, col;  // of the first input pixel, before mirroring
  int rows, cols;    // of the output
};

template <typename T, typename R>
__device__ void load_row(const Rectangle<T>& tile, const Plan& plan, int r, double px, double py, R* sx, R* sy,
                         R& farthest) {
  const int64_t offset = mirror(tile.row + r, plan.height) * plan.width;
  for (int c = threadIdx.x; c < kCols + kHalo; c += kCols) {
    R a = 0, b = 0;
    if (c < tile.cols + kHalo) {
      const int64_t at = offset + mirror(tile.col + c, plan.width);
      a = R(tile.x[at]) - R(px);
      b = R(tile.y[at]) - R(py);
    }
    const R squares = a * a + b * b;
    farthest = squares > farthest ? squares : farthest;
    sx[c] = a;
    sy[c] = b;
  }
}

// Adds this thread's column of the map into (ssim, cs); returns its farthest squared distance from the pivots.
template <typename T, typename R>
__device__ R march(const Rectangle<T>& tile, const Plan& plan, double px, double py, R* lines, double& ssim,
                   double& cs) {
  R taps[kTaps];
#pragma unroll
  for (int k = 0; k < kTaps; ++k) taps[k] = R(plan.taps[k]);
  const R c1 = R(plan.c1), c2 = R(plan.c2), norm = R(plan.covariance), mx = R(px), my = R(py);
  R partial[kTaps][4] = {};
  R farthest = 0, sum_ssim = 0, sum_cs = 0;
  const int last = tile.rows + kHalo;
  constexpr int kLine = kCols + kHalo;
  for (int base = 0; base < last; base += kTaps) {
#pragma unroll
    for (int phase = 0; phase < kTaps; ++phase) {  // unrolled so that the ring of partial sums stays in registers
      const int r = base + phase;
      R* sx = lines + (r & 1) * 2 * kLine;
      R* sy = sx + kLine;
      if (r < last) load_row(tile, plan, r, px, py, sx, sy, farthest);
      __syncthreads();  // one barrier a row suffices: the next row fills the other buffer
      if (r >= last) continue;
      R across[4] = {};
#pragma unroll
      for (int k = 0; k < kTaps; ++k) {
        const R a = sx[threadIdx.x + k], b = sy[threadIdx.x + k];
        across[0] += taps[k] * a;
        across[1] += taps[k] * b;
        across[2] += taps[k] * (a * a + b * b);
        across[3] += taps[k] * (a * b);
      }
#pragma unroll
      for (int k = 0; k < kTaps; ++k) {  // this row is tap k of output row r - k, kept in slot (r - k) mod 11
        const int slot = (phase - k + kTaps) % kTaps;
#pragma unroll
        for (int m = 0; m < 4; ++m)
          partial[slot][m] = k == 0 ? taps[k] * across[m] : partial[slot][m] + taps[k] * across[m];
      }
      const int slot = (phase + 1) % kTaps;  // output row r - 10 is complete
      if (r >= kHalo && threadIdx.x < tile.cols) {
        const R a = partial[slot][0], b = partial[slot][1];
        const R mean_x = a + mx, mean_y = b + my;
        const R variances = norm * (partial[slot][2] - (a * a + b * b));
        const R covariance = norm * (partial[slot][3] - a * b);
        const R contrast = (2 * covariance + c2) / (variances + c2);
        sum_cs += contrast;
        sum_ssim += contrast * ((2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1));
      }
    }
  }
  ssim = double(sum_ssim);
  cs = double(sum_cs);
  return farthest;
}

template <typename T>
__global__ void __launch_bounds__(kCols) tile_kernel(const T* x, const T* y, Plan plan, double* slots) {
  __shared__ double shared[kCols];
  __shared__ double lines[4 * (kCols + kHalo)];
  const int64_t plane = blockIdx.x / plan.tiles, index = blockIdx.x % plan.tiles;
  const int64_t row = index / plan.tiles_across * kRows, col = index % plan.tiles_across * kCols;
  const int64_t offset = plane * plan.height * plan.width;
  const Rectangle<T> tile{x + offset,
                          y + offset,
                          row - plan.border,
                          col - plan.border,
                          int(plan.out_height - row < kRows ? plan.out_height - row : kRows),
                          int(plan.out_width - col < kCols ? plan.out_width - col : kCols)};

  // Pivots near the rectangle's means, exactly representable in the input's type.
  const int64_t c = mirror(tile.col + (threadIdx.x < tile.cols ? threadIdx.x : tile.cols - 1), plan.width);
  double sum_x = 0, sum_y = 0;
  int sampled = 0;
  for (int r = 0; r < tile.rows + kHalo; r += 8, ++sampled) {
    const int64_t at = mirror(tile.row + r, plan.height) * plan.width + c;
    sum_x += double(tile.x[at]);
    sum_y += double(tile.y[at]);
  }
  const double px = double(T(block_sum(sum_x, shared) / (sampled * kCols)));
  const double py = double(T(block_sum(sum_y, shared) / (sampled * kCols)));

  double ssim, cs;
  const float farthest = march<T, float>(tile, plan, px, py, reinterpret_cast<float*>(lines), ssim, cs);
  if (__syncthreads_or(double(farthest) > plan.guard)) march<T, double>(tile, plan, px, py, lines, ssim, cs);
  ssim = block_sum(ssim, shared);
  cs = block_sum(cs, shared);
  if (threadIdx.x == 0) {
    slots[2 * blockIdx.x] = ssim;
    slots[2 * blockIdx.x + 1] = cs;
  }
}

// One block per plane adds its slots in a fixed order.
__global__ void __launch_bounds__(kCols) sum_kernel(const double* slots, Plan plan, double* ssim, double* cs) {
  __shared__ double shared[kCols];
  const double* mine = slots + 2 * int64_t(blockIdx.x) * plan.tiles;
  double sums[2] = {0, 0};
  for (int64_t i = threadIdx.x; i < plan.tiles; i += kCols) {
    sums[0] += mine[2 * i];
    sums[1] += mine[2 * i + 1];
  }
  sums[0] = block_sum(sums[0], shared);
  sums[1] = block_sum(sums[1], shared);
  if (threadIdx.x == 0) {
    ssim[blockIdx.x] = sums[0] / plan.count;
    cs[blockIdx.x] = sums[1] / plan.count;
  }
}

Plan plan_of(int64_t height, int64_t width, bool reflect) {
  Plan plan{};
  plan.height = height, plan.width = width;
  plan.border = reflect ? kTaps / 2 : 0;
  plan.out_height = height - (reflect ? 0 : kHalo), plan.out_width = width - (reflect ? 0 : kHalo);
  plan.tiles_across = (plan.out_width + kCols - 1) / kCols;
  plan.tiles = plan.tiles_across * ((plan.out_height + kRows - 1) / kRows);
  plan.count = double(plan.out_height) * double(plan.out_width);
  return plan;
}

}  // namespace

int64_t ssim_cuda_tiles(int64_t height, int64_t width, bool reflect) { return plan_of(height, width, reflect).tiles; }

void ssim_cuda(const void* x, const void* y, const SsimSpec& spec, double* scratch, double* ssim, double* cs,
               void* stream) {
  if (spec.size != kTaps || spec.depth_size != 1 || spec.out_height() < 1 || spec.out_width() < 1)
    throw std::invalid_argument("the CUDA kernel serves 2-D images and windows of 11");
  Plan plan = plan_of(spec.height, spec.width, spec.reflect);
  for (int k = 0; k < kTaps; ++k) plan.taps[k] = spec.taps[k];
  plan.c1 = spec.c1, plan.c2 = spec.c2, plan.covariance = spec.covariance, plan.guard = spec.guard;
  const int64_t blocks = spec.planes * plan.tiles;
  if (blocks > 2147483647) throw std::invalid_argument("more than 2^31 tiles; split the batch");
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto grid = unsigned(blocks);
  switch (spec.pixel) {
    case Pixel::u8:
      MEDTRUST_LAUNCH(tile_kernel<uint8_t>, grid, kCols, queue, static_cast<const uint8_t*>(x),
                      static_cast<const uint8_t*>(y), plan, scratch);
      break;
    case Pixel::u16:
      MEDTRUST_LAUNCH(tile_kernel<uint16_t>, grid, kCols, queue, static_cast<const uint16_t*>(x),
                      static_cast<const uint16_t*>(y), plan, scratch);
      break;
    default:
      MEDTRUST_LAUNCH(tile_kernel<float>, grid, kCols, queue, static_cast<const float*>(x),
                      static_cast<const float*>(y), plan, scratch);
  }
  check_launch("ssim tiles");
  MEDTRUST_LAUNCH(sum_kernel, unsigned(spec.planes), kCols, queue, scratch, plan, ssim, cs);
  check_launch("ssim sums");
}

}  // namespace medtrust
