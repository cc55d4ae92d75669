// Sums over a block in a fixed order.
#pragma once

#include "launch.cuh"

namespace medtrust {
namespace {

// Sum over the block in a fixed tree; every thread receives it. shared: [blockDim.x], a power of two
__device__ inline double block_sum(double value, double* shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  return shared[0];
}

}  // namespace
}  // namespace medtrust
