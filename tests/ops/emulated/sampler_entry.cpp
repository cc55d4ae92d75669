// C entry points of the emulated sampler kernels, and of the shared Philox, for ctypes.
#include "../../../csrc/cuda/sampler.cu"

using namespace medtrust;

extern "C" void philox_block_of(const uint32_t* counter, const uint32_t* key, uint32_t* out) {
  const Words words = philox({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  std::memcpy(out, words.w, sizeof words.w);
}

extern "C" void emulated_philox(int64_t kind, int64_t seed, int64_t step, int64_t offset, int64_t count, void* out) {
  philox_cuda(static_cast<Noise>(kind), {seed, step, offset}, count, out, nullptr);
}

extern "C" void emulated_reparameterise(const float* mean, const float* log_variance, int64_t seed, int64_t step,
                                        int64_t offset, int64_t count, float* out) {
  reparameterise_cuda(mean, log_variance, {seed, step, offset}, count, out, nullptr);
}

// numbers: count, half, rows, keep, quantise, seed, offset; limits: guidance, lo, hi, from, scale
extern "C" void emulated_step(const int64_t* numbers, const float* limits, const float* x, const void* conditional,
                              const void* unconditional, const float* memory, const float* table, const int64_t* row,
                              void* next, float* kept, int32_t* not_a_number) {
  SamplerSpec spec{};
  spec.count = numbers[0], spec.half = static_cast<Half>(numbers[1]), spec.rows = numbers[2];
  spec.keep = static_cast<Keep>(numbers[3]), spec.quantise = numbers[4] != 0;
  spec.seed = numbers[5], spec.offset = numbers[6];
  spec.guidance = limits[0], spec.lo = limits[1], spec.hi = limits[2], spec.from = limits[3], spec.scale = limits[4];
  const SamplerBuffers buffers{x,    conditional, unconditional, memory,  table,  row,
                               next, kept,        not_a_number,  nullptr, nullptr};
  sampler_step_cuda(spec, buffers, nullptr);
}
