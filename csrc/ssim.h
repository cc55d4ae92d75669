// Structural similarity of image planes: sums of the SSIM map and of its contrast-structure factor.
#pragma once

#include <cstdint>

#include "pixel.h"

namespace medtrust {

constexpr int64_t kMaxTaps = 63;  // odd window sizes up to this
constexpr int64_t kScratchBytes = 96 << 10;  // that a tile works in

struct SsimSpec {
  int64_t planes, depth, height, width;  // x, y: [planes, depth, height, width], contiguous
  Pixel pixel;
  int64_t size;         // taps along height and width (odd)
  int64_t depth_size;   // taps along depth: 1 for 2-D images, else `size`
  const double* taps;   // [size], sums to 1, symmetric
  bool reflect;         // mirror the border (map as large as the image) instead of valid windows only
  double c1, c2;        // (k1 L)^2, (k2 L)^2
  double covariance;    // n / (n - 1) for sample covariance, 1 for population covariance
  double guard;         // a tile is filtered in float64 where (x - pivot)^2 + (y - pivot)^2 exceeds this

  int64_t out_depth() const { return reflect ? depth : depth - depth_size + 1; }
  int64_t out_height() const { return reflect ? height : height - size + 1; }
  int64_t out_width() const { return reflect ? width : width - size + 1; }
};

// One rectangle of the output map; every rectangle is computed alone, so the split into threads changes no bit.
struct SsimTile {
  int64_t plane, depth, row, rows, col, cols;
};

struct SsimSums {
  double ssim, cs;
};

// inputs:  x, y [planes, depth, height, width]
// outputs: ssim, cs [planes]: means over the output map
void ssim_cpu(const void* x, const void* y, const SsimSpec& spec, double* ssim, double* cs, int threads);

// inputs:  x, y [planes, height, width] on the device; taps [11] on the host; stream a cudaStream_t
// scratch: [planes, tiles, 2] float64 on the device, tiles = ssim_cuda_tiles(height, width, reflect)
// outputs: ssim, cs [planes] float64 on the device
int64_t ssim_cuda_tiles(int64_t height, int64_t width, bool reflect);
void ssim_cuda(const void* x, const void* y, const SsimSpec& spec, double* scratch, double* ssim, double* cs,
               void* stream);

using SsimTileFn = SsimSums (*)(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile,
                                double* scratch);
namespace scalar {
SsimSums ssim_tile(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile, double* scratch);
}
namespace avx2 {
SsimSums ssim_tile(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile, double* scratch);
}
namespace avx512 {
SsimSums ssim_tile(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile, double* scratch);
}

}  // namespace medtrust
