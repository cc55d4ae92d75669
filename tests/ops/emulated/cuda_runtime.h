// Enough of CUDA to run the kernels' own source on a CPU: a block is a team of threads with a barrier, blocks run one
// after another. It proves indexing, barriers and arithmetic without a device; it says nothing about speed.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(n)

struct Dim {
  unsigned x;
};
inline thread_local Dim threadIdx;
inline Dim blockIdx, blockDim, gridDim;
inline std::barrier<>* team = nullptr;
inline std::atomic<int> vote{0};

inline void __syncthreads() { team->arrive_and_wait(); }
inline int __syncthreads_or(int predicate) {
  if (predicate) vote = 1;
  team->arrive_and_wait();
  const int result = vote;
  team->arrive_and_wait();
  if (threadIdx.x == 0) vote = 0;
  team->arrive_and_wait();
  return result;
}

template <typename T>
T atomicAdd(T* sum, T value) {
  return std::atomic_ref<T>(*sum).fetch_add(value);
}
inline unsigned atomicMin(unsigned* least, unsigned value) {
  std::atomic_ref<unsigned> here(*least);
  unsigned was = here;
  while (value < was && !here.compare_exchange_weak(was, value)) {}
  return was;
}

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

template <typename Kernel>
void emulate(unsigned blocks, unsigned threads, Kernel kernel) {
  std::barrier<> barrier(threads);
  team = &barrier;
  blockDim.x = threads;
  gridDim.x = blocks;
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t)
    workers.emplace_back([&, t] {
      threadIdx.x = t;
      for (unsigned b = 0; b < blocks; ++b) {
        if (t == 0) blockIdx.x = b;
        barrier.arrive_and_wait();
        kernel();
        barrier.arrive_and_wait();
      }
    });
  for (auto& worker : workers) worker.join();
}

#define MEDTRUST_LAUNCH(kernel, blocks, threads, stream, ...) \
  (void)(stream), emulate(blocks, threads, [&] { kernel(__VA_ARGS__); })
