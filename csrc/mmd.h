// Sums of a kernel over pairs of rows, for the maximum mean discrepancy: a small difference of large means.
//
// Where the processor multiplies 8-bit integers in tiles, rows become 4 to 6 balanced digits of 8 bits below the power of
// two above their largest value. Products of digits add up exactly in int32; only products beyond the last level and
// what the digits leave of a value are lost, and the number of digits is the least one for which a bound on both, times
// the kernel's slope, is below kPrecision. Elsewhere products are float64. Blocks of 32 x 32 pairs are summed in a fixed
// order, so no thread count changes a bit.
#pragma once

#include "matrix.h"
#include "neighbours.h"

namespace medtrust {

enum class Discrepancy : int { poly3 = 0, gauss = 1 };

constexpr double kPrecision = 1e-9;  // of a kernel value, relative to the one of parallel rows of the same lengths

// sums: [3], over ordered pairs of different real rows, of different fake rows, and over real x fake, of
// (scale x.y + 1)^3 or exp(-scale |x - y|^2). centre [d] is subtracted from each row.
void mmd_sums(const Rows& real, const Rows& fake, const double* centre, Discrepancy kind, double scale, double* sums,
              int threads);

constexpr int64_t kLeft = 4;  // rows of a block multiplied together

// What is compiled once per instruction set. Blocks are 32 x 32, of which rows x cols count.
struct MmdBlock {
  const double* dots;                      // [32, 32], to be multiplied by both weights
  const double *row_weights, *col_weights; // [32]
  const double *row_squares, *col_squares; // [32]
  int64_t rows, cols;
  bool diagonal;  // leave out equal row and column numbers
};

struct MmdKernels {
  // Centres a row in double; returns its largest magnitude and its square.
  void (*centre)(const void* row, int64_t width, bool is_double, const double* centre, double* centred, double* largest,
                 double* square);
  // digits [count, wide] of centred * factor, most significant first
  void (*digits)(const double* centred, int64_t width, double factor, int64_t count, int64_t wide, int8_t* digits);
  // c [32, 32] = a b; a [32 / kLeft, width, kLeft], b [width, 32]
  void (*products)(const double* a, const double* b, int64_t width, double* c);
  double (*poly3)(const MmdBlock& block, double scale);
};

namespace scalar {
extern const MmdKernels mmd_kernels;
}
namespace avx2 {
extern const MmdKernels mmd_kernels;
}
namespace avx512 {
extern const MmdKernels mmd_kernels;
}

}  // namespace medtrust
