// The separable filter behind SSIM: product maps of a tile, then four maps filtered at once. Included only by files that
// are compiled once per instruction set, hence the unnamed namespace (see vec.h).
//
// Four filtered maps suffice: E[x], E[y], E[x^2 + y^2], E[xy]. Variance does not change when a constant is subtracted
// from the image, so each tile first subtracts a pivot near its own mean. Without it float32 loses the
// variance of narrow ranges far from zero (CT soft tissue at 1064 +- 5, 16-bit at 60000 +- 20).
#pragma once

#include <cmath>

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

// A power of two near 1 / data_range. In these units the formula's denominators are near 1 whatever the images' own
// unit, so float32 can multiply them; the factor itself rounds nothing.
inline double unit_of(const SsimSpec& spec) {
  return __builtin_isfinite(spec.guard) && spec.guard > 0 ? std::ldexp(1.0, -(std::ilogb(spec.guard) / 2)) : 1.0;
}

// out[c] = (row[col + c] - pivot) * unit, mirrored at both ends.
template <typename T, typename R>
inline void centred(const T* __restrict__ row, int64_t width, int64_t col, int64_t cols, R p, R unit,
                    R* __restrict__ out) {
  int64_t c = 0;
  for (; c < cols && col + c < 0; ++c) out[c] = (R(row[mirror(col + c, width)]) - p) * unit;
  const int64_t inside = least(cols, width - col);
  const T* from = row + col;
  for (; c < inside; ++c) out[c] = (R(from[c]) - p) * unit;
  for (; c < cols; ++c) out[c] = (R(row[mirror(col + c, width)]) - p) * unit;
}

template <typename R>
struct Scratch {
  int64_t stride;  // columns of a row, a multiple of the vector width
  int64_t rows;    // rows of a map, enough for whole bands
  R* line;         // [2, stride] one centred row of x and y
  R* maps;         // [4, rows, stride] products
  R* band;         // [4, kBand, stride] after the vertical filter
};

// Fills the four product maps; returns the largest squared distance of a pixel pair from the pivots, in units.
template <typename T, typename R>
R fill(const Source<T>& x, const Source<T>& y, const SsimSpec& spec, const Window& w, double px, double py,
       double unit, const Scratch<R>& s) {
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
      centred(x.row(w.depth + k, w.row + r), x.width, w.col, w.cols, R(px), R(unit), lx);
      centred(y.row(w.depth + k, w.row + r), y.width, w.col, w.cols, R(py), R(unit), ly);
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

// One vector of a filtered row.
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

// Filters the four maps of s and hands out the results a vector at a time: each(row, col, m0, m1, m2, m3), then
// end_row(). The last vector of a row may reach past `cols`.
template <int K, typename R, typename Each, typename EndRow>
inline void filtered(const Scratch<R>& s, const double* window, int64_t size, int64_t rows, int64_t cols, Each each,
                     EndRow end_row) {
  R taps[kMaxTaps];
  for (int64_t k = 0; k < size; ++k) taps[k] = R(window[k]);
  const int64_t span = kBand * s.stride;
  for (int64_t r0 = 0; r0 < rows; r0 += kBand) {
    for (int m = 0; m < 4; ++m)
      vertical<K, R>(s.maps + (m * s.rows + r0) * s.stride, s.stride, taps, size, s.band + m * span);
    const int64_t band = least(kBand, rows - r0);
    for (int64_t j = 0; j < band; ++j) {
      const R* row = s.band + j * s.stride;
      for (int64_t c = 0; c < cols; c += lanes<R>)
        each(r0 + j, c, horizontal<K, R>(row + c, taps, size), horizontal<K, R>(row + span + c, taps, size),
             horizontal<K, R>(row + 2 * span + c, taps, size), horizontal<K, R>(row + 3 * span + c, taps, size));
      end_row();
    }
  }
}

// Zeroes the lanes of a row's last vector that lie past its end.
template <typename R>
inline void cut(vec<R>& v, int64_t left) {
  for (int64_t i = left; i < lanes<R>; ++i) v[i] = 0;
}

// How many columns and rows the scratch of a map needs so that whole vectors and bands can be filtered.
template <typename R>
inline int64_t stride_for(int64_t cols, int64_t size) {
  return ceil_to(ceil_to(cols, lanes<R>) + size - 1, lanes<R>);
}
inline int64_t rows_for(int64_t rows, int64_t size) { return ceil_to(rows, kBand) + size - 1; }

}  // namespace
}  // namespace medtrust
