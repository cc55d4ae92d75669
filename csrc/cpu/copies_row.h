// The row kernels of copies.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../copies.h"
#include "vec.h"

namespace medtrust {
namespace {

double dot(const double* x, const double* y, int64_t n) {
  constexpr int64_t L = lanes<double>;
  vec<double> sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    sums[0] += load(x + i) * load(y + i);
    sums[1] += load(x + i + L) * load(y + i + L);
  }
  double total = 0;
  for (; i < n; ++i) total += x[i] * y[i];
  const vec<double> both = sums[0] + sums[1];
  for (int64_t l = 0; l < L; ++l) total += both[l];
  return total;
}

template <typename T>
double squares_of(const T* x, const T* y, int64_t n) {
  constexpr int64_t L = lanes<double>;
  vec<double> sum{};
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const vec<double> gap = load_double(x + i) - load_double(y + i);
    sum += gap * gap;
  }
  double total = 0;
  for (; i < n; ++i) {
    const double gap = double(x[i]) - double(y[i]);
    total += gap * gap;
  }
  for (int64_t l = 0; l < L; ++l) total += sum[l];
  return total;
}

double squares(const void* x, const void* y, int64_t first, int64_t n, bool is_double) {
  if (is_double) return squares_of(static_cast<const double*>(x) + first, static_cast<const double*>(y) + first, n);
  return squares_of(static_cast<const float*>(x) + first, static_cast<const float*>(y) + first, n);
}

}  // namespace

namespace MEDTRUST_ISA {
const CopyKernels copy_kernels = {dot, squares};
}

}  // namespace medtrust
