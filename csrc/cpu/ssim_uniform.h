// SSIM of 8-bit images under a uniform window, by integer sums that slide down the columns: exact, without a pivot, and
// one addition and one subtraction per row whatever the window's size.
#pragma once

#if MEDTRUST_BYTES >= 32
#include <immintrin.h>
#endif

#include "ssim_filter.h"

namespace medtrust {
namespace {

typedef uint32_t words __attribute__((vector_size(MEDTRUST_BYTES)));
typedef int32_t whole __attribute__((vector_size(MEDTRUST_BYTES)));

// A pair (a, b) of numbers below 2^15 lies in one word: a + b * 2^16. Sums of pairs are pairs of sums.
inline words squares_of(words pair) {  // a^2 + b^2
#if MEDTRUST_BYTES == 64
  return (words)_mm512_madd_epi16((__m512i)pair, (__m512i)pair);
#elif MEDTRUST_BYTES == 32
  return (words)_mm256_madd_epi16((__m256i)pair, (__m256i)pair);
#else
  const words a = pair & 0xffffu, b = pair >> 16;
  return a * a + b * b;
#endif
}
inline words twice_product(words pair) {  // 2 a b
#if MEDTRUST_BYTES == 64
  return (words)_mm512_madd_epi16((__m512i)pair, (__m512i)(pair << 16 | pair >> 16));
#elif MEDTRUST_BYTES == 32
  return (words)_mm256_madd_epi16((__m256i)pair, (__m256i)(pair << 16 | pair >> 16));
#else
  return 2 * (pair & 0xffffu) * (pair >> 16);
#endif
}

inline words widened(const uint8_t* p) {
#if MEDTRUST_BYTES == 64
  return (words)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif MEDTRUST_BYTES == 32
  return (words)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  words v;
  for (int i = 0; i < MEDTRUST_BYTES / 4; ++i) v[i] = p[i];
  return v;
#endif
}

inline words pair_of(const uint8_t* x, const uint8_t* y, int64_t left) {
  constexpr int64_t L = lanes<float>;
  if (left >= L) return widened(x) | widened(y) << 16;
  uint8_t a[L] = {}, b[L] = {};  // nothing past the row's end may be read
  std::memcpy(a, x, size_t(left > 0 ? left : 0));
  std::memcpy(b, y, size_t(left > 0 ? left : 0));
  return widened(a) | widened(b) << 16;
}

constexpr int64_t kMostCounted = 11;  // 11^4 * 2 * 255^2 < 2^31: the numerators below fit a signed word

inline bool countable(const SsimSpec& spec) {
  if (spec.size > kMostCounted || spec.depth_size != 1 || spec.reflect) return false;
  for (int64_t k = 1; k < spec.size; ++k)
    if (spec.taps[k] != spec.taps[0]) return false;
  return true;
}

inline words load_words(const uint32_t* p) {
  words v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_words(uint32_t* p, words v) { std::memcpy(p, &v, sizeof v); }

// Sums of a column over the window's rows, and of a column with its right neighbour.
struct Columns {
  uint32_t *sum, *two;
};

// A vector of window sums: size / 2 sums of two, and the last column.
inline words windows(const Columns& columns, int64_t c, int64_t size) {
  words sum = load_words(columns.sum + c + size - 1);
  for (int64_t k = 0; k + 1 < size; k += 2) sum += load_words(columns.two + c + k);
  return sum;
}

template <int K>
SsimSums counted(const Source<uint8_t>& x, const Source<uint8_t>& y, const SsimSpec& spec, const SsimTile& tile,
                 double* scratch) {
  constexpr int64_t L = lanes<float>;
  const int64_t size = K > 0 ? K : spec.size, cols = tile.cols + size - 1;
  const int64_t stride = ceil_to(ceil_to(tile.cols, L) + size - 1, L), room = stride + L;
  uint32_t* lines = reinterpret_cast<uint32_t*>(scratch);
  std::memset(lines, 0, size_t(6 * room) * sizeof *lines);
  const Columns columns[3] = {
      {lines, lines + room}, {lines + 2 * room, lines + 3 * room}, {lines + 4 * room, lines + 5 * room}};
  const auto &pairs = columns[0], &squares = columns[1], &products = columns[2];

  // Everything is multiplied by n^2: sums in place of means.
  const double n = double(size * size);
  const uint32_t count = uint32_t(size * size);
  const float c1 = float(spec.c1 * n * n), c2 = float(spec.c2 * n * n), norm = float(spec.covariance);
  SsimSums total{0, 0};
  for (int64_t r = 1 - size; r < tile.rows; ++r) {
    const uint8_t* new_x = x.row(tile.depth, tile.row + r + size - 1) + tile.col;
    const uint8_t* new_y = y.row(tile.depth, tile.row + r + size - 1) + tile.col;
    const uint8_t* old_x = r > 0 ? x.row(tile.depth, tile.row + r - 1) + tile.col : nullptr;
    const uint8_t* old_y = r > 0 ? y.row(tile.depth, tile.row + r - 1) + tile.col : nullptr;
    for (int64_t c = 0; c < stride; c += L) {
      const words in = pair_of(new_x + c, new_y + c, cols - c);
      words pair = in, square = squares_of(in), product = twice_product(in);
      if (r > 0) {
        const words out = pair_of(old_x + c, old_y + c, cols - c);
        pair -= out, square -= squares_of(out), product -= twice_product(out);
      }
      store_words(pairs.sum + c, load_words(pairs.sum + c) + pair);
      store_words(squares.sum + c, load_words(squares.sum + c) + square);
      store_words(products.sum + c, load_words(products.sum + c) + product);
    }
    if (r < 0) continue;
    for (const Columns& each : columns)
      for (int64_t c = 0; c < stride; c += L)
        store_words(each.two + c, load_words(each.sum + c) + load_words(each.sum + c + 1));
    vec<float> ssim{}, cs{};
    for (int64_t c = 0; c < tile.cols; c += L) {
      const words sums = windows(pairs, c, size);
      const words mean_squares = squares_of(sums), mean_product = twice_product(sums);
      const whole variance = (whole)(count * windows(squares, c, size) - mean_squares);
      const whole covariance = (whole)(count * windows(products, c, size) - mean_product);
      const vec<float> means = __builtin_convertvector((whole)mean_squares, vec<float>) + c1;
      const vec<float> luminance = __builtin_convertvector((whole)mean_product, vec<float>) + c1;
      const vec<float> variances = norm * __builtin_convertvector(variance, vec<float>) + c2;
      const vec<float> shared = norm * __builtin_convertvector(covariance, vec<float>) + c2;
      const vec<float> inverse = 1 / (means * variances);
      vec<float> contrast = 1 - (variances - shared) * (means * inverse);
      vec<float> map = 1 - (means * variances - luminance * shared) * inverse;
      if (c + L > tile.cols) cut<float>(map, tile.cols - c), cut<float>(contrast, tile.cols - c);
      ssim += map;
      cs += contrast;
    }
    for (int64_t i = 0; i < L; ++i) {
      total.ssim += double(ssim[i]);
      total.cs += double(cs[i]);
    }
  }
  return total;
}

SsimSums counted_tile(const Source<uint8_t>& x, const Source<uint8_t>& y, const SsimSpec& spec, const SsimTile& tile,
                      double* scratch) {
  return spec.size == 7 ? counted<7>(x, y, spec, tile, scratch) : counted<0>(x, y, spec, tile, scratch);
}

}  // namespace
}  // namespace medtrust
