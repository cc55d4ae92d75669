// The inner loops of radiomics.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../radiomics_pixel.h"
#include "vec.h"

namespace medtrust {
namespace {

template <typename T>
bool discretise_row(const T* pixels, const uint8_t* mask, int64_t width, const RadiomicsSpec& spec, uint16_t* levels,
                    float* values, int64_t* kept) {
  const double lo = spec.lo, multiply = spec.multiply, divide = spec.divide, top = double(spec.levels - 1);
  int32_t bad = 0;
  for (int64_t x = 0; x < width; ++x) levels[x] = grey_level(double(pixels[x]), lo, multiply, divide, top);
  if (mask == nullptr) {
    for (int64_t x = 0; x < width; ++x) bad |= !usable(pixels[x]);
    for (int64_t x = 0; x < width && values != nullptr; ++x) values[x] = float(pixels[x]);
    *kept = width;
    return bad == 0;
  }
  int64_t count = 0;
  for (int64_t x = 0; x < width; ++x) {
    const bool inside = mask[x] != 0;
    values[count] = float(pixels[x]);
    bad |= inside & !usable(pixels[x]);
    count += inside;
  }
  for (int64_t x = 0; x < width; ++x) levels[x] = mask[x] != 0 ? levels[x] : uint16_t(0);
  *kept = count;
  return bad == 0;
}

bool discretise(const void* pixels, const uint8_t* mask, int64_t width, const RadiomicsSpec& spec, uint16_t* levels,
                float* values, int64_t* kept) {
  switch (spec.grey) {
    case Grey::u8:
      return discretise_row(static_cast<const uint8_t*>(pixels), mask, width, spec, levels, values, kept);
    case Grey::u16:
      return discretise_row(static_cast<const uint16_t*>(pixels), mask, width, spec, levels, values, kept);
    case Grey::i16:
      return discretise_row(static_cast<const int16_t*>(pixels), mask, width, spec, levels, values, kept);
    default: return discretise_row(static_cast<const float*>(pixels), mask, width, spec, levels, values, kept);
  }
}

void neighbourhood(const LevelRows& rows, int64_t stride, uint16_t* __restrict cell, uint16_t* __restrict gap) {
  const uint16_t *above = rows.above, *here = rows.here, *below = rows.below;
  const uint16_t step = uint16_t(stride);
  for (int64_t x = 0; x < rows.width; ++x) {
    const uint16_t centre = here[x];
    const uint16_t others[8] = {above[x - 1], above[x],     above[x + 1], here[x - 1],
                                here[x + 1],  below[x - 1], below[x],     below[x + 1]};
    uint16_t sum = 0, same = 0, inside = 0;
    for (int k = 0; k < 8; ++k) {
      sum = uint16_t(sum + others[k]);
      same = uint16_t(same + (others[k] == centre));
      inside = uint16_t(inside + (others[k] != 0));
    }
    const int16_t difference = int16_t(inside * centre - sum);
    gap[x] = uint16_t(difference < 0 ? -difference : difference);
    cell[x] = uint16_t((inside * 9 + same) * step + centre);
  }
}

// Masks instead of conditions: only then does the compiler use vectors.
void continued(const uint16_t* here, const uint16_t* there, const uint16_t* __restrict before,
               uint16_t* __restrict now, int64_t width) {
  for (int64_t x = 0; x < width; ++x) now[x] = uint16_t((before[x] & uint16_t(-(there[x] == here[x]))) + 1);
}

void runs(const LevelRows& rows, const RunRows& runs) {
  for (int d = 0; d < 3; ++d) {
    const int64_t from = d - 1;  // the run comes from the pixel above at the left, straight above or at the right
    continued(rows.here, rows.above + from, runs.before[d] + from, runs.now[d], rows.width);
  }
}

void joins(const LevelRows& rows, uint8_t* __restrict codes) {
  const uint16_t *above = rows.above, *here = rows.here;
  for (int64_t x = 0; x < rows.width; ++x) {
    const uint16_t centre = here[x];
    codes[x] = uint8_t((above[x] == centre) * kNorth + (above[x + 1] == centre) * kNorthEast +
                       (here[x - 1] == centre) * kWest + (above[x - 1] == centre) * kNorthWest);
  }
}

// Sums over the values in a fixed number of chains. One step takes a vector, the tail its last elements one by one.
constexpr int64_t kLanes = lanes<double>;

inline double across(vec<double> v) {
  double sum = 0;
  for (int64_t l = 0; l < kLanes; ++l) sum += v[l];
  return sum;
}
inline vec<double> magnitude(vec<double> v) { return v < 0.0 ? -v : v; }

Extremes extremes(const float* values, int64_t count) {
  const double first = count ? double(values[0]) : 0;
  vec<double> sum[2] = {}, squares[2] = {}, low = splat(first), high = splat(first);
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
    for (int s = 0; s < 2; ++s) {
      const vec<double> v = load_double(values + i + s * kLanes);
      sum[s] += v;
      squares[s] += v * v;
      low = v < low ? v : low;
      high = v > high ? v : high;
    }
  Extremes out{across(sum[0] + sum[1]), across(squares[0] + squares[1]), first, first};
  for (int64_t l = 0; l < kLanes; ++l) {
    out.lowest = low[l] < out.lowest ? low[l] : out.lowest;
    out.highest = high[l] > out.highest ? high[l] : out.highest;
  }
  for (; i < count; ++i) {
    const double v = values[i];
    out.sum += v;
    out.squares += v * v;
    out.lowest = v < out.lowest ? v : out.lowest;
    out.highest = v > out.highest ? v : out.highest;
  }
  return out;
}

Moments4 moments(const float* values, int64_t count, double centre) {
  vec<double> m2[2] = {}, m3[2] = {}, m4[2] = {}, absolute[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
    for (int s = 0; s < 2; ++s) {
      const vec<double> d = load_double(values + i + s * kLanes) - centre, square = d * d;
      m2[s] += square;
      m3[s] += square * d;
      m4[s] += square * square;
      absolute[s] += magnitude(d);
    }
  Moments4 out{across(m2[0] + m2[1]), across(m3[0] + m3[1]), across(m4[0] + m4[1]), across(absolute[0] + absolute[1])};
  for (; i < count; ++i) {
    const double d = values[i] - centre, square = d * d;
    out.m2 += square;
    out.m3 += square * d;
    out.m4 += square * square;
    out.absolute += d < 0 ? -d : d;
  }
  return out;
}

double absolute(const float* values, int64_t count, double centre) {
  vec<double> sum[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
    for (int s = 0; s < 2; ++s) sum[s] += magnitude(load_double(values + i + s * kLanes) - centre);
  double out = across(sum[0] + sum[1]);
  for (; i < count; ++i) {
    const double d = values[i] - centre;
    out += d < 0 ? -d : d;
  }
  return out;
}

void inner(const float* values, int64_t count, double low, double high, double centre, double* out) {
  vec<double> number = {}, sum = {}, absolute = {};
  const vec<double> zero = {}, one = splat(1.0);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const vec<double> v = load_double(values + i), d = magnitude(v - centre);
    const auto within = (v >= low) & (v <= high);
    number += within ? one : zero;
    sum += within ? v : zero;
    absolute += within ? d : zero;
  }
  out[0] = across(number), out[1] = across(sum), out[2] = across(absolute);
  for (; i < count; ++i) {
    const double v = values[i], d = v - centre;
    if (!(v >= low && v <= high)) continue;
    out[0] += 1;
    out[1] += v;
    out[2] += d < 0 ? -d : d;
  }
}

bool whole(const float* values, int64_t count) {
  int32_t broken = 0;
  for (int64_t i = 0; i < count; ++i) broken |= float(int32_t(values[i])) != values[i];
  return broken == 0;
}

void bin(const float* values, int64_t count, double lowest, double scale, uint16_t* bins) {
  for (int64_t i = 0; i < count; ++i) bins[i] = uint16_t(int32_t((double(values[i]) - lowest) * scale));
}

}  // namespace

namespace MEDTRUST_ISA {
const RadiomicsKernels radiomics_kernels = {discretise, neighbourhood, runs,  joins, extremes,
                                            moments,    absolute,      inner, whole, bin};
}

}  // namespace medtrust
