// The row kernels of neighbours.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../neighbours.h"
#include "vec.h"

namespace medtrust {
namespace {

constexpr float kUnit = 1.0f / (1 << 24);  // unit roundoff of float32

template <typename T>
double squared_distance_of(const T* x, const T* y, int64_t width) {
  constexpr int64_t L = lanes<double>;
  constexpr int kChains = 4;  // independent sums hide the latency of the FMA; their number fixes the order of addition
  vec<double> sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * L <= width; i += kChains * L)
    for (int s = 0; s < kChains; ++s) {
      const vec<double> gap = load_double(x + i + s * L) - load_double(y + i + s * L);
      sums[s] += gap * gap;
    }
  double tail = 0;
  for (; i < width; ++i) {
    const double gap = double(x[i]) - double(y[i]);
    tail += gap * gap;
  }
  const vec<double> both = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int64_t l = 0; l < L; ++l) tail += both[l];
  return tail;
}

double squared_distance(const void* x, const void* y, int64_t width, bool is_double) {
  if (is_double) return squared_distance_of(static_cast<const double*>(x), static_cast<const double*>(y), width);
  return squared_distance_of(static_cast<const float*>(x), static_cast<const float*>(y), width);
}

template <typename T>
double prepare_row(const T* x, int64_t width, const double* centre, double scale, float* rounded) {
  constexpr int64_t L = lanes<double>;
  vec<double> sum{};
  int64_t i = 0;
  for (; i + L <= width; i += L) {
    const vec<double> gap = scale * (load_double(x + i) - load(centre + i));
    store_float(rounded + i, gap);
    sum += gap * gap;
  }
  double total = 0;
  for (; i < width; ++i) {
    const double gap = scale * (double(x[i]) - centre[i]);
    rounded[i] = float(gap);
    total += gap * gap;
  }
  for (int64_t l = 0; l < L; ++l) total += sum[l];
  return total;
}

double prepare(const void* row, int64_t width, bool is_double, const double* centre, double scale, float* rounded) {
  if (is_double) return prepare_row(static_cast<const double*>(row), width, centre, scale, rounded);
  return prepare_row(static_cast<const float*>(row), width, centre, scale, rounded);
}

int64_t scan(const float* dots, const float* col_squares, const float* col_norms, float slack, float threshold,
             int64_t cols, float* bounds, int32_t* hits) {
  constexpr int64_t L = lanes<float>, kGroup = 4 * L;
  int64_t count = 0, c = 0;
  for (; c + kGroup <= cols; c += kGroup) {
    vec<float> least = splat(threshold);
    for (int64_t i = c; i < c + kGroup; i += L) {
      const vec<float> bound = load(col_squares + i) - 2.0f * load(dots + i) - slack * load(col_norms + i);
      store(bounds + i, bound);
      least = bound < least ? bound : least;
    }
    float lowest = threshold;
    for (int64_t l = 0; l < L; ++l) lowest = least[l] < lowest ? least[l] : lowest;
    if (!(lowest < threshold)) continue;
    for (int64_t i = c; i < c + kGroup; ++i)
      if (bounds[i] < threshold) hits[count++] = int32_t(i);
  }
  for (; c < cols; ++c) {
    bounds[c] = col_squares[c] - 2.0f * dots[c] - slack * col_norms[c];
    if (bounds[c] < threshold) hits[count++] = int32_t(c);
  }
  return count;
}

int64_t balls(const BallRow& row, uint8_t* recalled, uint8_t* covered, int32_t* undecided, int64_t* undecided_count) {
  constexpr int64_t kBlock = 256;
  int64_t inside = 0, open = 0;
  int32_t real[kBlock], fake[kBlock];  // 1 inside, 0 outside, 2 undecided
  for (int64_t first = 0; first < row.cols; first += kBlock) {
    const int64_t count = row.cols - first < kBlock ? row.cols - first : kBlock;
    const float* dots = row.dots + first;
    const float* squares = row.col_squares + first;
    const float* norms = row.col_norms + first;
    const float* radii = row.col_radii + first;
    int32_t unsure = 0;
    for (int64_t c = 0; c < count; ++c) {
      const float sum = row.row_square + squares[c];
      const float distance = sum - 2.0f * dots[c];
      const float error = row.slack * norms[c] + 16 * kUnit * sum + kUnderflow;
      const float error_real = error + 4 * kUnit * radii[c], error_fake = error + 4 * kUnit * row.row_radius;
      const int32_t in_real = distance + error_real < radii[c], out_real = distance - error_real > radii[c];
      const int32_t in_fake = distance + error_fake < row.row_radius, out_fake = distance - error_fake > row.row_radius;
      real[c] = in_real + 2 * (1 - in_real - out_real);
      fake[c] = in_fake + 2 * (1 - in_fake - out_fake);
      unsure |= (real[c] | fake[c]) & 2;
    }
    uint8_t* const covers = covered + first;
    uint8_t* const recalls = recalled + first;
    int32_t sum = 0;
    for (int64_t c = 0; c < count; ++c) {
      sum += real[c] & 1;
      covers[c] = uint8_t(covers[c] | (real[c] & 1));
      recalls[c] = uint8_t(recalls[c] | (fake[c] & 1));
    }
    inside += sum;
    if (!unsure) continue;
    for (int64_t c = 0; c < count; ++c)
      if ((real[c] | fake[c]) & 2) {
        inside -= real[c] & 1;  // both questions are answered again from the exact distance
        undecided[open++] = int32_t(first + c);
      }
  }
  *undecided_count = open;
  return inside;
}

}  // namespace

namespace MEDTRUST_ISA {
const NeighbourKernels neighbour_kernels = {prepare, squared_distance, scan, balls};
}

}  // namespace medtrust
