// The separable filter behind SSIM: product maps, then four maps filtered at once. Included only by files that are
// compiled once per instruction set, hence the unnamed namespace (see vec.h).
//
// Four filtered maps suffice: E[x], E[y], E[x^2 + y^2], E[xy]. Variance does not change when a constant is subtracted
// from the image, so each tile first subtracts a pivot near its own mean. Without it float32 loses the
// variance of narrow ranges far from zero (CT soft tissue at 1064 +- 5, 16-bit at 60000 +- 20).
//
// kGroup output rows are made at a time, and everything between the pixels and the map stays in the first-level cache:
// a vector of columns is filtered down its rows and transposed, so that the second pass, along the rows, is the first
// one's code on other memory: aligned, no shuffle per tap. A window is symmetric, so both neighbours at a
// distance are added before they are multiplied, and in units of the middle tap, which then takes no product.
#pragma once

#include <cmath>
#include <type_traits>
#include <utility>

#include "../ssim.h"
#include "vec.h"

namespace medtrust {
namespace {

constexpr int64_t kGroup = 16;                            // output rows made together
constexpr int64_t kReach = kGroup + kMaxTaps - 1;         // input rows that they need
constexpr int kBand = 8;                                  // results of a filter made from the same registers
constexpr int64_t kTurn = 48;                             // columns filtered down before the second pass takes them
constexpr int64_t kColumns = kMaxTaps + kTurn + 3 * kBand;  // columns held for the second pass

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
  const int64_t down = w.rows > 64 ? 8 : w.rows > 16 ? 4 : 1, right = w.cols > 128 ? 32 : w.cols > 16 ? 8 : 1;
  double sum = 0;
  int64_t count = 0;
  for (int64_t r = 0; r < w.rows; r += down) {
    const T* row = source.row(w.depth, w.row + r);
    for (int64_t c = 0; c < w.cols; c += right, ++count) sum += double(row[mirror(w.col + c, source.width)]);
  }
  return double(T(sum / double(count)));
}

// A power of two near 1 / data_range. In these units the formula's denominators are near 1 whatever the images' own
// unit, so float32 can multiply them; the factor itself rounds nothing.
inline double unit_of(const SsimSpec& spec) {
  return __builtin_isfinite(spec.guard) && spec.guard > 0 ? std::ldexp(1.0, -(std::ilogb(spec.guard) / 2)) : 1.0;
}

template <typename R>
struct Scratch {
  R products[4][kReach][lanes<R>];     // of one vector of columns
  R down[kGroup][lanes<R>];            // one map of it after the filter
  R across[4][kColumns][kGroup];       // the maps filtered down, transposed
  R done[4][kBand][kGroup];            // filtered both ways
  int64_t rows[kReach];                // where the input rows begin in a slice
};

// A window's taps in units of the middle one: side[k] belongs to both neighbours at distance k + 1.
template <typename R>
struct Taps {
  R side[kMaxTaps / 2 + 1];
  int64_t half;
  R square;  // of the middle tap: brings what was filtered both ways to its own unit

  explicit Taps(const SsimSpec& spec) : half(spec.size / 2) {
    const double middle = spec.taps[half];
    for (int64_t k = 0; k < half; ++k) side[k] = R(spec.taps[half - 1 - k] / middle);
    square = R(middle * middle);
  }
};

// kBand vectors of a filtered map: out[j] from in[j .. j + size). K = 0 takes the size at run time.
template <int K, typename R>
inline void folded(const R* in, int64_t stride, const Taps<R>& taps, R* out, int64_t out_stride) {
  if constexpr (K > 0) {
    constexpr int H = K / 2;
    vec<R> v[kBand + K - 1], side[H];
#pragma GCC unroll 8
    for (int k = 0; k < H; ++k) side[k] = splat(taps.side[k]);
#pragma GCC unroll 32
    for (int i = 0; i < kBand + K - 1; ++i) v[i] = load(in + i * stride);
#pragma GCC unroll 8
    for (int j = 0; j < kBand; ++j) {
      vec<R> sum = v[j + H];
#pragma GCC unroll 8
      for (int k = 1; k <= H; ++k) sum += side[k - 1] * (v[j + H - k] + v[j + H + k]);
      store(out + j * out_stride, sum);
    }
  } else {
    vec<R> sum[kBand];
    const R* const middle = in + taps.half * stride;
    for (int j = 0; j < kBand; ++j) sum[j] = load(middle + j * stride);
    for (int64_t k = 1; k <= taps.half; ++k)
      for (int j = 0; j < kBand; ++j)
        sum[j] += taps.side[k - 1] * (load(middle + (j - k) * stride) + load(middle + (j + k) * stride));
    for (int j = 0; j < kBand; ++j) store(out + j * out_stride, sum[j]);
  }
}

// Swaps the off-diagonal blocks of side kStep: lanes of `a` from `low` on, of `b` up to `high`.
template <int kStep, typename R, size_t... I>
inline void exchange(vec<R>& a, vec<R>& b, std::index_sequence<I...>) {
  constexpr int L = int(lanes<R>);
#if defined(__clang__)
  const vec<R> low = __builtin_shufflevector(a, b, (int(I) & kStep ? L + int(I) - kStep : int(I))...);
  const vec<R> high = __builtin_shufflevector(a, b, (int(I) & kStep ? L + int(I) : int(I) + kStep)...);
#else
  typedef typename std::conditional<sizeof(R) == 4, int32_t, int64_t>::type Index;
  typedef Index indices __attribute__((vector_size(MEDTRUST_BYTES)));
  const vec<R> low = __builtin_shuffle(a, b, indices{(int(I) & kStep ? L + int(I) - kStep : int(I))...});
  const vec<R> high = __builtin_shuffle(a, b, indices{(int(I) & kStep ? L + int(I) : int(I) + kStep)...});
#endif
  a = low;
  b = high;
}

template <int kStep, typename R>
inline void exchange_all(vec<R>* v) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes<R>; ++i)
    if (!(i & kStep)) exchange<kStep, R>(v[i], v[i + kStep], std::make_index_sequence<size_t(lanes<R>)>());
  if constexpr (kStep > 1) exchange_all<kStep / 2, R>(v);
}

// out[c][r] = in[r][c] for kGroup rows r of as many columns c as a vector has.
template <typename R>
inline void transposed(const R (*in)[lanes<R>], R (*out)[kGroup]) {
  constexpr int64_t L = lanes<R>;
  for (int64_t part = 0; part < kGroup; part += L) {
    vec<R> v[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) v[i] = load(in[part + i]);
    exchange_all<int(L / 2), R>(v);
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; ++i) store(out[i] + part, v[i]);
  }
}

// A vector of a row's pixels from column `col` on; where it is not inside, mirrored, and past what is mirrored the last
// pixel repeats.
template <bool kInside, typename R, typename T>
inline vec<R> pixels(const T* row, int64_t width, int64_t col) {
  typedef T raw __attribute__((vector_size(lanes<R> * sizeof(T))));
  raw v;
  if constexpr (kInside) {
    std::memcpy(&v, row + col, sizeof v);
  } else {
    for (int64_t i = 0; i < lanes<R>; ++i) {
      const int64_t c = mirror(col + i, width);
      v[i] = row[c < 0 ? 0 : least(c, width - 1)];
    }
  }
  if constexpr (sizeof(T) < 4) {  // by way of a whole number as wide: compilers take the direct way lane by lane
    typedef typename std::conditional<sizeof(R) == 4, int32_t, int64_t>::type Whole;
    typedef Whole wholes __attribute__((vector_size(MEDTRUST_BYTES)));
    return __builtin_convertvector(__builtin_convertvector(v, wholes), vec<R>);
  } else {
    return __builtin_convertvector(v, vec<R>);
  }
}

// What a tile is made from.
template <typename T>
struct Pair {
  const Source<T>&x, &y;
  const SsimSpec& spec;
  const SsimTile& tile;
  const Window& window;
  double px, py, unit;
};

// The products of one vector of columns from `col` on, of one slice of depth; keeps the largest squared distance of a
// pixel pair from the pivots, in units, in `far`.
template <bool kInside, bool kDeep, typename R, typename T>
inline void multiply(const Pair<T>& pair, const T* xs, const T* ys, int64_t col, int64_t k, Scratch<R>& s, vec<R>& far) {
  const vec<R> unit = splat(R(pair.unit)), px = splat(R(pair.px * pair.unit)), py = splat(R(pair.py * pair.unit));
  const int64_t width = pair.spec.width, rows = kGroup + pair.spec.size - 1, known = pair.spec.size - 1;
  const vec<R> weight = splat(R(kDeep ? pair.spec.taps[k] : 1.0));
  vec<R> most = far;
  for (int64_t i = 0; i < rows; ++i) {
    const T *const x = xs + s.rows[i], *const y = ys + s.rows[i];
    // The rows that the group above has not read. An address past the end is never touched.
    if (kInside && i >= known) __builtin_prefetch(x + (col + 2 * kGroup)), __builtin_prefetch(y + (col + 2 * kGroup));
    const vec<R> a = pixels<kInside, R>(x, width, col) * unit - px;  // a power of two rounds nothing
    const vec<R> b = pixels<kInside, R>(y, width, col) * unit - py;
    const vec<R> squares = a * a + b * b, product = a * b;
    most = squares > most ? squares : most;
    if constexpr (kDeep) {
      store(s.products[0][i], weight * a + load(s.products[0][i]));
      store(s.products[1][i], weight * b + load(s.products[1][i]));
      store(s.products[2][i], weight * squares + load(s.products[2][i]));
      store(s.products[3][i], weight * product + load(s.products[3][i]));
    } else {
      store(s.products[0][i], a);
      store(s.products[1][i], b);
      store(s.products[2][i], squares);
      store(s.products[3][i], product);
    }
  }
  far = most;
}

template <typename R, typename T>
inline void multiply(const Pair<T>& pair, int64_t col, Scratch<R>& s, vec<R>& far) {
  const int64_t from = pair.window.col + col, plane = pair.spec.height * pair.spec.width;
  const bool inside = from >= 0 && from + lanes<R> <= pair.spec.width, deep = pair.spec.depth_size > 1;
  if (deep) std::memset(s.products, 0, sizeof s.products);
  for (int64_t k = 0; k < pair.spec.depth_size; ++k) {
    const int64_t slice = mirror(pair.window.depth + k, pair.spec.depth) * plane;
    const T *const xs = pair.x.data + slice, *const ys = pair.y.data + slice;
    if (deep)
      inside ? multiply<true, true>(pair, xs, ys, from, k, s, far) : multiply<false, true>(pair, xs, ys, from, k, s, far);
    else
      inside ? multiply<true, false>(pair, xs, ys, from, k, s, far) : multiply<false, false>(pair, xs, ys, from, k, s, far);
  }
}

// Filters the four maps of kGroup output rows from `row` on and hands out the results a band of columns at a time:
// each(columns), the first of which lie in s.done, without the square of the middle tap.
template <int K, typename R, typename T, typename Each>
inline void filtered(const Pair<T>& pair, const Taps<R>& taps, int64_t row, Scratch<R>& s, vec<R>& far,
                     const Each& each) {
  constexpr int64_t L = lanes<R>;
  const int64_t cols = pair.tile.cols, reach = pair.spec.size - 1;
  for (int64_t i = 0; i < kGroup + reach; ++i) {  // rows past the last one are filtered, never summed
    const int64_t from = pair.window.row + least(row + i, pair.window.rows - 1);
    s.rows[i] = mirror(from, pair.spec.height) * pair.spec.width;
  }
  int64_t first = 0, have = 0;  // s.across holds the columns [first, have)
  for (int64_t col = 0; col < cols;) {
    for (int64_t turn = 0; turn < kTurn && have < cols + reach; turn += L, have += L) {
      multiply<R>(pair, have, s, far);
      for (int m = 0; m < 4; ++m) {
        for (int64_t r = 0; r < kGroup; r += kBand)
          folded<K, R>(s.products[m][r], L, taps, s.down[r], L);
        transposed<R>(s.down, s.across[m] + (have - first));
      }
    }
    const bool all = have >= cols + reach;
    for (; col < cols && (all || col + kBand + reach <= have); col += kBand) {
      for (int m = 0; m < 4; ++m)
        for (int64_t part = 0; part < kGroup; part += L)
          folded<K, R>(s.across[m][col - first] + part, kGroup, taps, s.done[m][0] + part, kGroup);
      each(least(kBand, cols - col));
    }
    for (int m = 0; m < 4; ++m)
      std::memmove(s.across[m], s.across[m] + (col - first), size_t(have > col ? have - col : 0) * sizeof *s.across[m]);
    first = col;
  }
}

// Zeroes the lanes of a row's last vector that lie past its end.
template <typename R>
inline void cut(vec<R>& v, int64_t left) {
  for (int64_t i = left; i < lanes<R>; ++i) v[i] = 0;
}

}  // namespace
}  // namespace medtrust
