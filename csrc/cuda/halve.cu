// The 2x2 mean of MS-SSIM: a thread per pixel of the result.
#include "../halve.h"

#include "launch.cuh"

namespace medtrust {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    halve_kernel(const T* images, int64_t count, int64_t height, int64_t width, float* means) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t rows = height / 2, cols = width / 2, row = i / cols;
  const T* above = images + (row / rows * height + row % rows * 2) * width + i % cols * 2;
  const T* below = above + width;
  means[i] = 0.25f * ((float(above[0]) + float(above[1])) + (float(below[0]) + float(below[1])));
}

template <typename T>
void launch(const void* images, int64_t planes, int64_t height, int64_t width, float* means, cudaStream_t queue) {
  const int64_t count = planes * (height / 2) * (width / 2), blocks = (count + kThreads - 1) / kThreads;
  if (blocks > 2147483647) throw std::invalid_argument("more than 2^39 pixels; split the batch");
  if (blocks == 0) return;
  MEDTRUST_LAUNCH(halve_kernel<T>, unsigned(blocks), kThreads, queue, static_cast<const T*>(images), count, height,
                  width, means);
  check_launch("halve");
}

}  // namespace

void halve_cuda(const void* images, int64_t planes, int64_t height, int64_t width, Pixel pixel, float* means,
                void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (pixel) {
    case Pixel::u8: return launch<uint8_t>(images, planes, height, width, means, queue);
    case Pixel::u16: return launch<uint16_t>(images, planes, height, width, means, queue);
    default: return launch<float>(images, planes, height, width, means, queue);
  }
}

}  // namespace medtrust
