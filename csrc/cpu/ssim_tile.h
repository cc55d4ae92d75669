// One tile of the SSIM map. Compiled once per instruction set; MEDTRUST_ISA names the namespace and MEDTRUST_BYTES the
// vector width. Everything but ssim_tile is in an unnamed namespace: a function shared between the translation
// units could be linked from the widest one and then crash older processors.
//
// Four filtered maps suffice: E[x], E[y], E[x^2 + y^2], E[xy]. Variance does not change when a constant is subtracted
// from the image, so each tile first subtracts a pivot near its own mean. Without it float32 loses the
// variance of narrow ranges far from zero (CT soft tissue at 1064 +- 5, 16-bit at 60000 +- 20).
#include "../ssim.h"
#include "vec.h"

namespace medtrust {
namespace {

constexpr int kBand = 8;  // output rows filtered together: eight accumulators hide the latency of the FMA

inline int64_t ceil_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Mirror without repeating the edge (numpy and torch call it "reflect"); the caller guarantees |overhang| < n.
inline int64_t mirror(int64_t i, int64_t n) {
  if (i < 0) i = -i;
  return i < n ? i : 2 * (n - 1) - i;
}

// The input rectangle that a tile needs, before mirroring.
struct Window {
  int64_t depth, row, rows, col, cols;
};

template <typename T>
struct Source {
  const T* data;  // [depth, height, width] of one plane
  int64_t depth, height, width;

  const T* row(int64_t d, int64_t r) const { return data + (mirror(d, depth) * height + mirror(r, height)) * width; }
};

// A value near the tile's mean, exactly representable as T: the mean of a fixed sparse grid.
template <typename T>
double pivot(const Source<T>& source, const Window& w) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t r = 0; r < w.rows; r += 4) {
    const T* row = source.row(w.depth, w.row + r);
    for (int64_t c = 0; c < w.cols; c += 8, ++count) sum += double(row[mirror(w.col + c, source.width)]);
  }
  return double(T(sum / double(count)));
}

// out[c] = row[col + c] - pivot, mirrored at both ends.
template <typename T, typename R>
inline void centred(const T* __restrict__ row, int64_t width, int64_t col, int64_t cols, R p, R* __restrict__ out) {
  int64_t c = 0;
  for (; c < cols && col + c < 0; ++c) out[c] = R(row[mirror(col + c, width)]) - p;
  const int64_t inside = least(cols, width - col);
  const T* from = row + col;
  for (; c < inside; ++c) out[c] = R(from[c]) - p;
  for (; c < cols; ++c) out[c] = R(row[mirror(col + c, width)]) - p;
}

template <typename R>
struct Scratch {
  int64_t stride;  // columns of a row, a multiple of the vector width
  int64_t rows;    // rows of a map, enough for whole bands
  R* line;         // [2, stride] one centred row of x and y
  R* maps;         // [4, rows, stride] products
  R* band;         // [4, kBand, stride] after the vertical filter
};

// Fills the four product maps; returns the largest squared distance of a pixel pair from the pivots.
template <typename T, typename R>
R fill(const Source<T>& x, const Source<T>& y, const SsimSpec& spec, const Window& w, double px, double py,
       const Scratch<R>& s) {
  constexpr int64_t L = lanes<R>;
  R* lx = s.line;
  R* ly = s.line + s.stride;
  for (int64_t c = w.cols; c < s.stride; ++c) lx[c] = ly[c] = 0;
  const int64_t plane = s.rows * s.stride;
  const int64_t surplus = (s.rows - w.rows) * s.stride;  // rows past the last band's end: filtered, never summed
  for (int m = 0; m < 4; ++m)
    if (surplus > 0) std::memset(s.maps + m * plane + w.rows * s.stride, 0, size_t(surplus) * sizeof(R));
  vec<R> far{};
  for (int64_t r = 0; r < w.rows; ++r) {
    R* m = s.maps + r * s.stride;
    for (int64_t k = 0; k < spec.depth_size; ++k) {
      centred(x.row(w.depth + k, w.row + r), x.width, w.col, w.cols, R(px), lx);
      centred(y.row(w.depth + k, w.row + r), y.width, w.col, w.cols, R(py), ly);
      const vec<R> weight = splat(R(spec.depth_size == 1 ? 1.0 : spec.taps[k]));
      for (int64_t c = 0; c < s.stride; c += L) {
        const vec<R> a = load(lx + c), b = load(ly + c);
        const vec<R> squares = a * a + b * b, product = a * b;
        far = squares > far ? squares : far;
        if (spec.depth_size == 1) {
          store(m + c, a);
          store(m + plane + c, b);
          store(m + 2 * plane + c, squares);
          store(m + 3 * plane + c, product);
          continue;
        }
        const bool first = k == 0;
        store(m + c, weight * a + (first ? vec<R>{} : load(m + c)));
        store(m + plane + c, weight * b + (first ? vec<R>{} : load(m + plane + c)));
        store(m + 2 * plane + c, weight * squares + (first ? vec<R>{} : load(m + 2 * plane + c)));
        store(m + 3 * plane + c, weight * product + (first ? vec<R>{} : load(m + 3 * plane + c)));
      }
    }
  }
  R most = 0;
  for (int64_t i = 0; i < L; ++i) most = far[i] > most ? far[i] : most;
  return most;
}

// kBand rows of one map: out[j] = sum_k taps[k] in[j + k]. K = 0 takes the size at run time.
template <int K, typename R>
inline void vertical(const R* in, int64_t stride, const R* taps, int64_t size, R* out) {
  constexpr int64_t L = lanes<R>;
  for (int64_t c = 0; c < stride; c += L) {
    vec<R> sum[kBand] = {};
    if constexpr (K > 0) {
#pragma GCC unroll 32
      for (int i = 0; i < kBand + K - 1; ++i) {
        const vec<R> v = load(in + i * stride + c);
#pragma GCC unroll 8
        for (int j = 0; j < kBand; ++j)
          if (i >= j && i - j < K) sum[j] += taps[i - j] * v;
      }
    } else {
      for (int64_t k = 0; k < size; ++k)
#pragma GCC unroll 8
        for (int j = 0; j < kBand; ++j) sum[j] += taps[k] * load(in + (j + k) * stride + c);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kBand; ++j) store(out + j * stride + c, sum[j]);
  }
}

template <int K, typename R>
inline vec<R> horizontal(const R* in, const R* taps, int64_t size) {
  vec<R> sum{};
  if constexpr (K > 0) {
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) sum += taps[k] * load(in + k);
  } else {
    for (int64_t k = 0; k < size; ++k) sum += taps[k] * load(in + k);
  }
  return sum;
}

template <int K, typename R>
SsimSums filter(const SsimSpec& spec, const SsimTile& tile, double px, double py, const Scratch<R>& s) {
  constexpr int64_t L = lanes<R>;
  R taps[kMaxTaps];
  for (int64_t k = 0; k < spec.size; ++k) taps[k] = R(spec.taps[k]);
  const int64_t span = kBand * s.stride;
  const R c1 = R(spec.c1), c2 = R(spec.c2), norm = R(spec.covariance), mx = R(px), my = R(py);
  SsimSums total{0, 0};
  for (int64_t r0 = 0; r0 < tile.rows; r0 += kBand) {
    for (int m = 0; m < 4; ++m)
      vertical<K, R>(s.maps + (m * s.rows + r0) * s.stride, s.stride, taps, spec.size, s.band + m * span);
    const int64_t band = least(kBand, tile.rows - r0);
    for (int64_t j = 0; j < band; ++j) {
      const R* row = s.band + j * s.stride;
      vec<R> ssim{}, cs{};
      for (int64_t c = 0; c < tile.cols; c += L) {
        const vec<R> a = horizontal<K, R>(row + c, taps, spec.size);
        const vec<R> b = horizontal<K, R>(row + span + c, taps, spec.size);
        const vec<R> squares = horizontal<K, R>(row + 2 * span + c, taps, spec.size);
        const vec<R> product = horizontal<K, R>(row + 3 * span + c, taps, spec.size);
        const vec<R> mean_x = a + mx, mean_y = b + my;
        const vec<R> variances = norm * (squares - (a * a + b * b)), covariance = norm * (product - a * b);
        vec<R> contrast = (2 * covariance + c2) / (variances + c2);
        vec<R> map = contrast * ((2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1));
        if (c + L > tile.cols)
          for (int64_t i = tile.cols - c; i < L; ++i) map[i] = contrast[i] = 0;
        ssim += map;
        cs += contrast;
      }
      for (int64_t i = 0; i < L; ++i) {
        total.ssim += double(ssim[i]);
        total.cs += double(cs[i]);
      }
    }
  }
  return total;
}

template <typename T, typename R>
bool attempt(const Source<T>& x, const Source<T>& y, const SsimSpec& spec, const SsimTile& tile, const Window& w,
             double px, double py, double* scratch, SsimSums* sums) {
  Scratch<R> s;
  s.stride = ceil_to(ceil_to(tile.cols, lanes<R>) + spec.size - 1, lanes<R>);
  s.rows = ceil_to(tile.rows, kBand) + spec.size - 1;
  s.line = reinterpret_cast<R*>(scratch);
  s.band = s.line + 2 * s.stride;
  s.maps = s.band + 4 * kBand * s.stride;
  const R most = fill<T, R>(x, y, spec, w, px, py, s);
  if (sizeof(R) < sizeof(double) && double(most) > spec.guard) return false;
  *sums = spec.size == 11 ? filter<11, R>(spec, tile, px, py, s)
          : spec.size == 7 ? filter<7, R>(spec, tile, px, py, s)
                           : filter<0, R>(spec, tile, px, py, s);
  return true;
}

template <typename T>
SsimSums typed_tile(const T* x, const T* y, const SsimSpec& spec, const SsimTile& tile, double* scratch) {
  const int64_t offset = tile.plane * spec.depth * spec.height * spec.width;
  const Source<T> sx{x + offset, spec.depth, spec.height, spec.width};
  const Source<T> sy{y + offset, spec.depth, spec.height, spec.width};
  const int64_t border = spec.reflect ? spec.size / 2 : 0;
  const int64_t depth_border = spec.reflect ? spec.depth_size / 2 : 0;
  const Window w{tile.depth - depth_border, tile.row - border, tile.rows + spec.size - 1, tile.col - border,
                 tile.cols + spec.size - 1};
  const double px = pivot(sx, w), py = pivot(sy, w);
  SsimSums sums{0, 0};
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
