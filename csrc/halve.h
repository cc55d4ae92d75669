// The 2x2 mean that leads MS-SSIM from one scale to the next.
#pragma once

#include <cstdint>

#include "pixel.h"

namespace medtrust {

// input:  images [planes, height, width]; an odd last row or column is left out
// output: means [planes, height / 2, width / 2] float32
void halve_cpu(const void* images, int64_t planes, int64_t height, int64_t width, Pixel pixel, float* means,
               int threads);

// The same on the device; stream a cudaStream_t.
void halve_cuda(const void* images, int64_t planes, int64_t height, int64_t width, Pixel pixel, float* means,
                void* stream);

}  // namespace medtrust
