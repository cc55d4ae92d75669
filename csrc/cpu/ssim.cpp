// Cuts the SSIM map into tiles, runs them on threads and adds their sums in a fixed order.
#include "../ssim.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "../isa.h"

namespace medtrust {
namespace {

constexpr int64_t kTileRows = 64;
constexpr int64_t kTileCols = 512;

struct Free {
  void operator()(double* p) const { std::free(p); }
};

// A thread keeps its own: fresh memory would cost a small image more faults than its filtering takes.
double* scratch() {
  thread_local std::unique_ptr<double, Free> kept;
  if (kept == nullptr) kept.reset(static_cast<double*>(std::aligned_alloc(64, size_t(kScratchBytes))));
  return kept.get();
}

SsimTileFn tile_function() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::ssim_tile;
    case Isa::avx2: return avx2::ssim_tile;
    default: break;
  }
#endif
  return scalar::ssim_tile;
}

int64_t parts(int64_t n, int64_t most) { return (n + most - 1) / most; }

}  // namespace

void ssim_cpu(const void* x, const void* y, const SsimSpec& spec, double* ssim, double* cs, int threads) {
  const int64_t depth = spec.out_depth(), height = spec.out_height(), width = spec.out_width();
  if (spec.size < 1 || spec.size > kMaxTaps || spec.size % 2 == 0 || depth < 1 || height < 1 || width < 1)
    throw std::invalid_argument("ssim: the window does not fit the image");
  for (int64_t k = 0; k <= spec.size / 2; ++k)
    if (spec.taps[k] != spec.taps[spec.size - 1 - k] || !(spec.taps[spec.size / 2] > 0))
      throw std::invalid_argument("ssim: the window is not symmetric about a positive middle tap");
  const SsimTileFn tile = tile_function();

  // Equal shares, rounded up to whole vectors: the split depends on the shape alone.
  const int64_t down = parts(height, kTileRows), across = parts(width, kTileCols);
  const int64_t rows = parts(parts(height, down), 8) * 8, cols = parts(parts(width, across), 16) * 16;
  const int64_t per_slice = parts(height, rows) * parts(width, cols);
  const int64_t per_plane = depth * per_slice, total = spec.planes * per_plane;

  std::vector<SsimSums> sums(size_t(total), SsimSums{0, 0});
  if (threads < 1 || spec.planes * depth * height * width < 1 << 13) threads = 1;  // less work than waking a team
  if (threads > total) threads = int(total);

  std::atomic<bool> starved{false};
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < total; ++i) {
    const int64_t in_plane = i % per_plane, in_slice = in_plane % per_slice;
    const int64_t row = in_slice / parts(width, cols) * rows, col = in_slice % parts(width, cols) * cols;
    const SsimTile part{i / per_plane,
                        in_plane / per_slice,
                        row,
                        rows < height - row ? rows : height - row,
                        col,
                        cols < width - col ? cols : width - col};
    double* const pad = scratch();
    if (pad == nullptr)
      starved = true;  // no exception may leave the threads
    else
      sums[size_t(i)] = tile(x, y, spec, part, pad);
  }
  if (starved) throw std::bad_alloc();

  const double count = double(depth) * double(height) * double(width);
  for (int64_t p = 0; p < spec.planes; ++p) {
    SsimSums sum{0, 0};
    for (int64_t i = p * per_plane; i < (p + 1) * per_plane; ++i) {
      sum.ssim += sums[size_t(i)].ssim;
      sum.cs += sums[size_t(i)].cs;
    }
    ssim[p] = sum.ssim / count;
    cs[p] = sum.cs / count;
  }
}

}  // namespace medtrust
