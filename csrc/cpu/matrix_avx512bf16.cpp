// The same blocks by vdpbf16ps: two right tiles in registers, left pairs broadcast.
#include <immintrin.h>

#include <cstring>

#include "../matrix.h"

namespace medtrust::avx512bf16 {
namespace {

void nothing() {}

void bf16(const uint16_t* left, const uint16_t* right, int64_t steps, int64_t count, bool add, float* c) {
  constexpr int64_t kElements = kTile * kTileBytes / 2, kPairs = 16, kRows = 8;
  for (int64_t half = 0; half < kPair; half += kRows) {
    const uint16_t* a = left + half / kTile * steps * kElements + half % kTile * (kTileBytes / 2);
    __m512 sums[kRows][2];
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t v = 0; v < 2; ++v)
        sums[r][v] = add ? _mm512_loadu_ps(c + (half + r) * kPair + v * kTile) : _mm512_setzero_ps();
    for (int64_t s = 0; s < count; ++s)
      for (int64_t p = 0; p < kPairs; ++p) {
        const uint16_t* b = right + s * kElements + p * 2 * kTile;
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b);
        const __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + steps * kElements);
#pragma GCC unroll 8
        for (int64_t r = 0; r < kRows; ++r) {
          int32_t pair;
          std::memcpy(&pair, a + s * kElements + r * (kTileBytes / 2) + 2 * p, sizeof pair);
          const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
          sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, b0);
          sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, b1);
        }
      }
    for (int64_t r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(c + (half + r) * kPair, sums[r][0]);
      _mm512_storeu_ps(c + (half + r) * kPair + kTile, sums[r][1]);
    }
  }
}

}  // namespace

const MatrixKernels matrix_kernels = {"avx512bf16", nothing, nothing, bf16, nullptr};

}  // namespace medtrust::avx512bf16
