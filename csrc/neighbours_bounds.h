// How far a float32 GEMM can be off: one set of formulas for the processor and the device.
#pragma once

#include <cmath>
#include <cstdint>

#include "neighbours.h"

#ifdef __CUDACC__
#define MEDTRUST_BOUND __host__ __device__ inline
#else
#define MEDTRUST_BOUND inline
#endif

namespace medtrust {

constexpr double kRoundoff = 1.0 / (1 << 24);  // of float32

// Twice the largest error of a float32 dot product of `width` centred and rounded terms, without the factor |r|.
MEDTRUST_BOUND float slack_of(int64_t width, double row_square) {
  return float(2.0 * double(width + 16) * kRoundoff * sqrt(row_square) * (1 + 4 * kRoundoff));
}

// |r|^2 rounded down far enough to absorb the arithmetic that follows it in a lower bound.
MEDTRUST_BOUND float lowered(double square) { return float(square * (1 - 16 * kRoundoff) - double(kUnderflow)); }

// |r| rounded up.
MEDTRUST_BOUND float raised_norm(double square) { return float(sqrt(square) * (1 + 4 * kRoundoff)); }

}  // namespace medtrust
