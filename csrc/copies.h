// Similarity of two images pixel by pixel, for the search of copies.
#pragma once

#include <cstdint>

namespace medtrust {

struct ImagePairs {
  const void *x, *y;  // [count, channels, height, width]
  int64_t count, channels, height, width;
  bool is_double;  // float64, else float32
};

// largest: [count] the largest correlation of the overlapping parts over all shifts of at most `radius` pixels along each
// axis; parts of no more than kFlat of their image's variation correlate 0
void max_ncc(const ImagePairs& pairs, int64_t radius, double* largest, int threads);
constexpr double kFlat = 1e-12;

// farthest: [count] the largest Euclidean distance between corresponding tiles; tiles at the border may be smaller
void tile_l2(const ImagePairs& pairs, int64_t tile, double* farthest, int threads);

// What is compiled once per instruction set: sums over n values, in a fixed order.
struct CopyKernels {
  double (*dot)(const double* x, const double* y, int64_t n);
  double (*squares)(const void* x, const void* y, int64_t first, int64_t n, bool is_double);  // of x - y from `first` on
};

namespace scalar {
extern const CopyKernels copy_kernels;
}
namespace avx2 {
extern const CopyKernels copy_kernels;
}
namespace avx512 {
extern const CopyKernels copy_kernels;
}

}  // namespace medtrust
