// The gradient of structural similarity with respect to both images, in float64 throughout.
#pragma once

#include <cstdint>

#include "ssim.h"

namespace medtrust {

// inputs:  x, y [planes, 1, height, width] float32 or, where `is_double`, float64
//          upstream [2, planes] float64: gradients of the planes' mean SSIM and contrast-structure
// outputs: grad_x, grad_y, in the type of the images; null where not wanted
void ssim_gradient_cpu(const void* x, const void* y, bool is_double, const SsimSpec& spec, const double* upstream,
                       void* grad_x, void* grad_y, int threads);

constexpr int kGradientMaps = 4;  // of the means of x and y, of x^2 + y^2 and of x y, each about the pivots

// What turns filtered values of one row into gradients of the loss with respect to them.
struct SsimSlope {
  double c1, c2, covariance;
  double pivot_x, pivot_y;    // subtracted from the images before they are filtered
  double of_ssim, of_cs;      // gradient of the loss with respect to one pixel of each map
};

struct SsimRows {  // rows of the two images under the window, `count` of them, `width` wide
  const void* const* x;
  const void* const* y;
  bool is_double;
  int64_t count, width;
};

// The loops that are compiled once per instruction set.
struct SsimGradientKernels {
  // lines [4][width]: the rows weighted and added up.
  void (*down)(const SsimRows& rows, const double* taps, double pivot_x, double pivot_y, double* const* lines);
  // slopes [4][width]: filters lines [4][width + size - 1] along the row and differentiates.
  void (*slopes)(const double* const* lines, const double* taps, int64_t size, int64_t width, const SsimSlope& slope,
                 double* const* slopes);
  // out [width]: values [width + size - 1] weighted and added up.
  void (*across)(const double* values, const double* taps, int64_t size, int64_t width, double* out);
  // One row of the gradient from `rows.count` rows of slopes: maps[m] + i * stride is that of number indices[i].
  void (*gather)(const double* const* maps, const int64_t* indices, const double* weights, int64_t count, int64_t stride,
                 const SsimRows& image, double pivot_x, double pivot_y, void* grad_x, void* grad_y);
};
namespace scalar {
extern const SsimGradientKernels ssim_gradient_kernels;
}
namespace avx2 {
extern const SsimGradientKernels ssim_gradient_kernels;
}
namespace avx512 {
extern const SsimGradientKernels ssim_gradient_kernels;
}

}  // namespace medtrust
