// C entry points of the emulated kernel sums, for ctypes.
#include "../../../csrc/cuda/mmd.cu"

using namespace medtrust;

extern "C" int64_t emulated_mmd_tiles(int64_t n, int64_t m) { return mmd_cuda_tiles(n, m); }

extern "C" void emulated_mmd(const Rows* x, const Rows* y, int same, int64_t kind, double scale, double* scratch,
                             double* sum) {
  mmd_cuda(*x, *y, same != 0, static_cast<Discrepancy>(kind), scale, scratch, sum, nullptr);
}
