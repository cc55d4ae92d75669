// The row kernels of mmd.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../mmd.h"
#include "vec.h"

namespace medtrust {
namespace {

template <typename T>
void centre_row(const T* row, int64_t width, const double* centre, double* centred, double* largest, double* square) {
  constexpr int64_t L = lanes<double>;
  vec<double> sums{}, most{};
  int64_t i = 0;
  for (; i + L <= width; i += L) {
    const vec<double> x = load_double(row + i) - load(centre + i);
    store(centred + i, x);
    sums += x * x;
    const vec<double> size = x < 0 ? -x : x;
    most = size > most ? size : most;
  }
  double total = 0, top = 0;
  for (; i < width; ++i) {
    const double x = double(row[i]) - centre[i], size = x < 0 ? -x : x;
    centred[i] = x;
    total += x * x;
    top = size > top ? size : top;
  }
  for (int64_t l = 0; l < L; ++l) {
    total += sums[l];
    top = most[l] > top ? most[l] : top;
  }
  *largest = top;
  *square = total;
}

void centre(const void* row, int64_t width, bool is_double, const double* centre, double* centred, double* largest,
            double* square) {
  if (is_double) return centre_row(static_cast<const double*>(row), width, centre, centred, largest, square);
  centre_row(static_cast<const float*>(row), width, centre, centred, largest, square);
}

void digits(const double* centred, int64_t width, double factor, int64_t count, int64_t wide, int8_t* digits) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits
  constexpr int64_t kBlock = 256;
  int64_t magic, bias = 0;
  std::memcpy(&magic, &kMagic, sizeof magic);
  for (int64_t i = 0; i < count; ++i) bias = bias << 8 | 0x80;
  int64_t numbers[kBlock];
  for (int64_t first = 0; first < width; first += kBlock) {
    const int64_t block = width - first < kBlock ? width - first : kBlock;
    for (int64_t i = 0; i < block; ++i) {
      const double shifted = centred[first + i] * factor + kMagic;
      int64_t bits;
      std::memcpy(&bits, &shifted, sizeof bits);
      numbers[i] = ((bits - magic) + bias) ^ bias;  // the bytes are now digits of -128..127
    }
    for (int64_t d = 0; d < count; ++d)
      for (int64_t i = 0; i < block; ++i) digits[d * wide + first + i] = int8_t(numbers[i] >> (8 * (count - 1 - d)));
  }
}

void products(const double* a, const double* b, int64_t width, double* c) {
  constexpr int64_t L = lanes<double>, kPart = MEDTRUST_BYTES == 64 ? 4 : 2;  // vectors of a row that stay in registers
  constexpr int64_t kDepth = 64;  // rows of b that stay in the first-level cache while all of a's pass
  for (int64_t i = 0; i < kPair * kPair; ++i) c[i] = 0;
  for (int64_t first = 0; first < width; first += kDepth) {
    const int64_t last = width - first < kDepth ? width : first + kDepth;
    for (int64_t r = 0; r < kPair; r += kLeft)
      for (int64_t col = 0; col < kPair; col += kPart * L) {
        const double *const left = a + r * width, *const right = b + col;
        double* const to = c + r * kPair + col;
        vec<double> sums[kLeft][kPart];
        for (int64_t i = 0; i < kLeft; ++i)
          for (int64_t v = 0; v < kPart; ++v) sums[i][v] = load(to + i * kPair + v * L);
        for (int64_t k = first; k < last; ++k)
          for (int64_t i = 0; i < kLeft; ++i)
            for (int64_t v = 0; v < kPart; ++v)
              sums[i][v] += splat(left[k * kLeft + i]) * load(right + k * kPair + v * L);
        for (int64_t i = 0; i < kLeft; ++i)
          for (int64_t v = 0; v < kPart; ++v) store(to + i * kPair + v * L, sums[i][v]);
      }
  }
}

double poly3_range(const double* dots, const double* weights, int64_t from, int64_t to, double scale) {
  constexpr int64_t L = lanes<double>;
  vec<double> sum{};
  int64_t c = from;
  for (; c + L <= to; c += L) {
    const vec<double> base = scale * (load(weights + c) * load(dots + c)) + 1.0;
    sum += base * base * base;
  }
  double total = 0;
  for (; c < to; ++c) {
    const double base = scale * (weights[c] * dots[c]) + 1.0;
    total += base * base * base;
  }
  for (int64_t l = 0; l < L; ++l) total += sum[l];
  return total;
}

double poly3(const MmdBlock& block, double scale) {
  double total = 0;
  for (int64_t r = 0; r < block.rows; ++r) {
    const double* const dots = block.dots + r * kPair;
    const double factor = scale * block.row_weights[r];
    // A row is cut at its diagonal rather than corrected by it: the diagonal dwarfs the rest.
    total += block.diagonal ? poly3_range(dots, block.col_weights, 0, r, factor) +
                                  poly3_range(dots, block.col_weights, r + 1, block.cols, factor)
                            : poly3_range(dots, block.col_weights, 0, block.cols, factor);
  }
  return total;
}

}  // namespace

namespace MEDTRUST_ISA {
const MmdKernels mmd_kernels = {centre, digits, products, poly3};
}

}  // namespace medtrust
