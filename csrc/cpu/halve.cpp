// One translation unit for every processor: the loop waits for memory whatever its vectors.
#include "../halve.h"

namespace medtrust {
namespace {

template <typename T>
void halve(const T* images, int64_t planes, int64_t height, int64_t width, float* means, int threads) {
  const int64_t rows = height / 2, cols = width / 2;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < planes * rows; ++i) {
    const T* above = images + (i / rows * height + i % rows * 2) * width;
    const T* below = above + width;
    float* out = means + i * cols;
    for (int64_t c = 0; c < cols; ++c)
      out[c] = 0.25f * ((float(above[2 * c]) + float(above[2 * c + 1])) +
                        (float(below[2 * c]) + float(below[2 * c + 1])));
  }
}

}  // namespace

void halve_cpu(const void* images, int64_t planes, int64_t height, int64_t width, Pixel pixel, float* means,
               int threads) {
  if (planes * height * width < 1 << 15) threads = 1;  // less work than waking a team
  switch (pixel) {
    case Pixel::u8: return halve(static_cast<const uint8_t*>(images), planes, height, width, means, threads);
    case Pixel::u16: return halve(static_cast<const uint16_t*>(images), planes, height, width, means, threads);
    default: return halve(static_cast<const float*>(images), planes, height, width, means, threads);
  }
}

}  // namespace medtrust
