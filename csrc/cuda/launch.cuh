// Kernel launches by one macro, so that tests/ops/emulated/cuda_runtime.h can run the same sources on the CPU.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#ifdef __CUDACC__
#define MEDTRUST_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace medtrust {

inline void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace medtrust
