// C entry points of the emulated neighbour kernels, for ctypes.
#include "../../../csrc/cuda/neighbours.cu"

using namespace medtrust;

extern "C" void emulated_scan(const float* dots, const int64_t* shape, const double* row_squares,
                              const double* col_squares, const int64_t* query_groups, const int64_t* reference_groups,
                              int64_t keep, float* scratch, float* bounds, int64_t* indices) {
  const DotTile tile{dots, shape[0], shape[1], shape[2], shape[3], row_squares, col_squares, shape[4]};
  neighbours_scan_cuda(tile, query_groups, reference_groups, keep, scratch, bounds, indices, nullptr);
}

extern "C" void emulated_distances(const Rows* queries, const Rows* references, const int64_t* chosen, int64_t count,
                                   const int64_t* others, int64_t each, double* squared) {
  neighbours_distances_cuda(*queries, *references, chosen, count, others, each, squared, nullptr);
}

extern "C" void emulated_balls(const float* dots, const int64_t* shape, const double* row_squares,
                               const double* col_squares, const Rows* queries, const Rows* references,
                               const double* query_radii, const double* reference_radii, double square_scale,
                               int inclusive, float* scratch, int64_t* in_balls, uint8_t* recalled, uint8_t* covered) {
  const DotTile tile{dots, shape[0], shape[1], shape[2], shape[3], row_squares, col_squares, shape[4]};
  neighbours_balls_cuda(tile, *queries, *references, query_radii, reference_radii, square_scale, inclusive != 0,
                        scratch, in_balls, recalled, covered, nullptr);
}
