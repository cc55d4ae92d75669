// The inner loops of ssim_gradient.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../ssim_gradient.h"
#include "vec.h"

namespace medtrust {
namespace {

// V is a vector of doubles, or one double where a row is narrower than a vector.
template <typename V>
constexpr int64_t kWide = int64_t(sizeof(V) / sizeof(double));

inline void fetch(const double* p, double* v) { *v = *p; }
inline void fetch(const float* p, double* v) { *v = double(*p); }
inline void put(double* p, double v) { *p = v; }
inline void put(float* p, double v) { *p = float(v); }
#if MEDTRUST_BYTES > 8
template <typename T>
inline void fetch(const T* p, vec<double>* v) {
  *v = load_double(p);
}
inline void put(double* p, vec<double> v) { store(p, v); }
inline void put(float* p, vec<double> v) { store_float(p, v); }
#endif
template <typename V, typename T>
inline V get(const T* p) {
  V v;
  fetch(p, &v);
  return v;
}

// Calls visit(V, column) for columns that cover the row; the last vector overlaps the one before.
template <typename Visit>
inline void along(int64_t width, Visit&& visit) {
  constexpr int64_t wide = lanes<double>;
  if (width < wide) {
    for (int64_t x = 0; x < width; ++x) visit(double{}, x);
    return;
  }
  for (int64_t x = 0; x < width; x += wide) visit(vec<double>{}, x + wide <= width ? x : width - wide);
}

template <typename T>
void down_rows(const SsimRows& rows, const double* taps, double pivot_x, double pivot_y, double* const* lines) {
  along(rows.width, [&](auto zero, int64_t at) {
    using V = decltype(zero);
    V mean_x{}, mean_y{}, squares{}, products{};
    for (int64_t r = 0; r < rows.count; ++r) {
      const V x = get<V>(static_cast<const T*>(rows.x[r]) + at) - pivot_x;
      const V y = get<V>(static_cast<const T*>(rows.y[r]) + at) - pivot_y;
      mean_x += taps[r] * x;
      mean_y += taps[r] * y;
      squares += taps[r] * (x * x + y * y);
      products += taps[r] * (x * y);
    }
    put(lines[0] + at, mean_x);
    put(lines[1] + at, mean_y);
    put(lines[2] + at, squares);
    put(lines[3] + at, products);
  });
}

void down(const SsimRows& rows, const double* taps, double pivot_x, double pivot_y, double* const* lines) {
  if (rows.is_double) down_rows<double>(rows, taps, pivot_x, pivot_y, lines);
  else down_rows<float>(rows, taps, pivot_x, pivot_y, lines);
}

template <typename V>
inline V filtered(const double* values, const double* taps, int64_t size) {
  V sum{};
  for (int64_t t = 0; t < size; ++t) sum += taps[t] * get<V>(values + t);
  return sum;
}

void slopes(const double* const* lines, const double* taps, int64_t size, int64_t width, const SsimSlope& s,
            double* const* out) {
  along(width, [&](auto zero, int64_t at) {
    using V = decltype(zero);
    const V a = filtered<V>(lines[0] + at, taps, size), b = filtered<V>(lines[1] + at, taps, size);
    const V mean_x = a + s.pivot_x, mean_y = b + s.pivot_y;
    const V spread = s.covariance * (filtered<V>(lines[2] + at, taps, size) - a * a - b * b) + s.c2;
    const V shared = s.covariance * (filtered<V>(lines[3] + at, taps, size) - a * b);
    const V light = mean_x * mean_x + mean_y * mean_y + s.c1;
    const V contrast = (2.0 * shared + s.c2) / spread, luminance = (2.0 * mean_x * mean_y + s.c1) / light;
    const V to_contrast = s.of_ssim * luminance + s.of_cs, to_luminance = s.of_ssim * contrast * 2.0 / light;
    const V to_squares = -s.covariance * to_contrast * contrast / spread;
    const V to_products = 2.0 * s.covariance * to_contrast / spread;
    put(out[0] + at, to_luminance * (mean_y - mean_x * luminance) - 2.0 * a * to_squares - b * to_products);
    put(out[1] + at, to_luminance * (mean_x - mean_y * luminance) - 2.0 * b * to_squares - a * to_products);
    put(out[2] + at, to_squares);
    put(out[3] + at, to_products);
  });
}

void across(const double* values, const double* taps, int64_t size, int64_t width, double* out) {
  along(width, [&](auto zero, int64_t at) { put(out + at, filtered<decltype(zero)>(values + at, taps, size)); });
}

template <typename T>
void gather_rows(const double* const* maps, const int64_t* indices, const double* weights, int64_t count,
                 int64_t stride, const SsimRows& image, double pivot_x, double pivot_y, T* grad_x, T* grad_y) {
  along(image.width, [&](auto zero, int64_t at) {
    using V = decltype(zero);
    V sums[kGradientMaps] = {};
    for (int64_t i = 0; i < count; ++i)
      for (int m = 0; m < kGradientMaps; ++m) sums[m] += weights[i] * get<V>(maps[m] + indices[i] * stride + at);
    const V x = get<V>(static_cast<const T*>(image.x[0]) + at) - pivot_x;
    const V y = get<V>(static_cast<const T*>(image.y[0]) + at) - pivot_y;
    if (grad_x != nullptr) put(grad_x + at, sums[0] + 2.0 * x * sums[2] + y * sums[3]);
    if (grad_y != nullptr) put(grad_y + at, sums[1] + 2.0 * y * sums[2] + x * sums[3]);
  });
}

void gather(const double* const* maps, const int64_t* indices, const double* weights, int64_t count, int64_t stride,
            const SsimRows& image, double pivot_x, double pivot_y, void* grad_x, void* grad_y) {
  if (image.is_double)
    gather_rows(maps, indices, weights, count, stride, image, pivot_x, pivot_y, static_cast<double*>(grad_x),
                static_cast<double*>(grad_y));
  else
    gather_rows(maps, indices, weights, count, stride, image, pivot_x, pivot_y, static_cast<float*>(grad_x),
                static_cast<float*>(grad_y));
}

}  // namespace

namespace MEDTRUST_ISA {
const SsimGradientKernels ssim_gradient_kernels = {down, slopes, across, gather};
}

}  // namespace medtrust
