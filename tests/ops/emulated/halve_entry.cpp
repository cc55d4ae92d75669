// C entry point of the emulated 2x2 mean, for ctypes.
#include "../../../csrc/cuda/halve.cu"

extern "C" void emulated_halve(const void* images, int64_t planes, int64_t height, int64_t width, int64_t pixel,
                               float* means) {
  medtrust::halve_cuda(images, planes, height, width, static_cast<medtrust::Pixel>(pixel), means, nullptr);
}
