// C entry points of the emulated kernels, for ctypes.
#include "../../../csrc/cuda/ssim.cu"

extern "C" int64_t emulated_ssim(const void* x, const void* y, int64_t planes, int64_t height, int64_t width,
                                 int64_t pixel, const double* taps, int reflect, const double* constants,
                                 double* scratch, double* ssim, double* cs) {
  medtrust::SsimSpec spec{};
  spec.planes = planes, spec.depth = 1, spec.height = height, spec.width = width;
  spec.pixel = static_cast<medtrust::Pixel>(pixel);
  spec.size = 11, spec.depth_size = 1, spec.taps = taps, spec.reflect = reflect != 0;
  spec.c1 = constants[0], spec.c2 = constants[1], spec.covariance = constants[2], spec.guard = constants[3];
  if (scratch == nullptr) return medtrust::ssim_cuda_tiles(height, width, spec.reflect);
  medtrust::ssim_cuda(x, y, spec, scratch, ssim, cs, nullptr);
  return 0;
}
