// C entry points of the emulated polynomial kernel, for ctypes.
#include "../../../csrc/cuda/poly3.cu"

using namespace medtrust;

extern "C" int64_t emulated_poly3_tiles(int64_t n, int64_t m) { return poly3_cuda_tiles(n, m); }

extern "C" void emulated_poly3(const Rows* x, const Rows* y, int same, double scale, double* scratch, double* sum) {
  poly3_cuda(*x, *y, same != 0, scale, scratch, sum, nullptr);
}
