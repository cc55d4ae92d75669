// Sums of a kernel over pairs of rows on the device.
#pragma once

#include <cstdint>

#include "mmd.h"

namespace medtrust {

// Sum of (scale x.y + 1)^3 or exp(-scale |x - y|^2) in float64; `same` leaves out pairs of equal row numbers and uses
// the symmetry.
// inputs:  x [n, d], y [m, d] on the device; y is x where `same`
// scratch: [mmd_cuda_tiles(n, m)] float64 on the device
// output:  sum [1] float64 on the device
int64_t mmd_cuda_tiles(int64_t n, int64_t m);
void mmd_cuda(const Rows& x, const Rows& y, bool same, Discrepancy kind, double scale, double* scratch, double* sum,
              void* stream);

}  // namespace medtrust
