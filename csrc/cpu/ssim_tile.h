// One tile of the SSIM map. Compiled once per instruction set; MEDTRUST_ISA names the namespace and MEDTRUST_BYTES the
// vector width. Everything but ssim_tile is in an unnamed namespace: a function shared between the translation
// units could be linked from the widest one and then crash older processors.
#include "ssim_filter.h"
#include "ssim_uniform.h"

namespace medtrust {
namespace {

template <int K, typename R>
SsimSums averaged(const SsimSpec& spec, const SsimTile& tile, double px, double py, double unit, const Scratch<R>& s) {
  const R c1 = R(spec.c1 * unit * unit), c2 = R(spec.c2 * unit * unit), norm = R(spec.covariance);
  const R mx = R(px * unit), my = R(py * unit);
  SsimSums total{0, 0};
  vec<R> ssim{}, cs{};
  filtered<K, R>(
      s, spec.taps, spec.size, tile.rows, tile.cols,
      [&](int64_t, int64_t c, vec<R> a, vec<R> b, vec<R> squares, vec<R> product) {
        const vec<R> mean_x = a + mx, mean_y = b + my;
        const vec<R> luminance = 2 * mean_x * mean_y + c1, means = mean_x * mean_x + mean_y * mean_y + c1;
        const vec<R> shared = 2 * norm * (product - a * b) + c2, variances = norm * (squares - (a * a + b * b)) + c2;
        // One division serves both fractions, and 1 - 0 keeps identical images at 1.
        const vec<R> inverse = 1 / (means * variances);
        vec<R> contrast = 1 - (variances - shared) * (means * inverse);
        vec<R> map = 1 - (means * variances - luminance * shared) * inverse;
        if (c + lanes<R> > tile.cols) cut<R>(map, tile.cols - c), cut<R>(contrast, tile.cols - c);
        ssim += map;
        cs += contrast;
      },
      [&] {
        for (int64_t i = 0; i < lanes<R>; ++i) {
          total.ssim += double(ssim[i]);
          total.cs += double(cs[i]);
        }
        ssim = cs = vec<R>{};
      });
  return total;
}

template <typename T, typename R>
bool attempt(const Source<T>& x, const Source<T>& y, const SsimSpec& spec, const SsimTile& tile, const Window& w,
             double px, double py, double* scratch, SsimSums* sums) {
  Scratch<R> s;
  s.stride = stride_for<R>(tile.cols, spec.size);
  s.rows = rows_for(tile.rows, spec.size);
  s.line = reinterpret_cast<R*>(scratch);
  s.band = s.line + 2 * s.stride;
  s.maps = s.band + 4 * kBand * s.stride;
  const double unit = unit_of(spec);
  const R most = fill<T, R>(x, y, spec, w, px, py, unit, s);
  if (sizeof(R) < sizeof(double) && double(most) > spec.guard * unit * unit) return false;
  *sums = spec.size == 11 ? averaged<11, R>(spec, tile, px, py, unit, s)
          : spec.size == 7 ? averaged<7, R>(spec, tile, px, py, unit, s)
                           : averaged<0, R>(spec, tile, px, py, unit, s);
  return true;
}

template <typename T>
SsimSums typed_tile(const T* x, const T* y, const SsimSpec& spec, const SsimTile& tile, double* scratch) {
  const int64_t offset = tile.plane * spec.depth * spec.height * spec.width;
  const Source<T> sx{x + offset, spec.depth, spec.height, spec.width};
  const Source<T> sy{y + offset, spec.depth, spec.height, spec.width};
  const int64_t border = spec.reflect ? spec.size / 2 : 0;
  const int64_t depth_border = spec.reflect ? spec.depth_size / 2 : 0;
  SsimSums sums{0, 0};
  if constexpr (sizeof(T) == 1) {
    if (countable(spec)) return counted_tile(sx, sy, spec, tile, scratch);
  }
  const Window w{tile.depth - depth_border, tile.row - border, tile.rows + spec.size - 1, tile.col - border,
                 tile.cols + spec.size - 1};
  const double px = pivot(sx, w), py = pivot(sy, w);
  if (!attempt<T, float>(sx, sy, spec, tile, w, px, py, scratch, &sums))
    attempt<T, double>(sx, sy, spec, tile, w, px, py, scratch, &sums);
  return sums;
}

}  // namespace

namespace MEDTRUST_ISA {

SsimSums ssim_tile(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile, double* scratch) {
  switch (spec.pixel) {
    case Pixel::u8:
      return typed_tile(static_cast<const uint8_t*>(x), static_cast<const uint8_t*>(y), spec, tile, scratch);
    case Pixel::u16:
      return typed_tile(static_cast<const uint16_t*>(x), static_cast<const uint16_t*>(y), spec, tile, scratch);
    default:
      return typed_tile(static_cast<const float*>(x), static_cast<const float*>(y), spec, tile, scratch);
  }
}

}  // namespace MEDTRUST_ISA
}  // namespace medtrust
