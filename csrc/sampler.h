// One step of a diffusion or flow sampler in one pass, counter-based noise, and the reparameterised latent of a VAE.
//
// Every sampler here is linear in what it reads, once the model's output has been turned into a clean image:
//   output  = unconditional + guidance (conditional - unconditional)
//   clean   = clamp(kx x + km output)
//   next    = cx x + cc clean + cm memory + cn noise(seed, row + 1)
// The six numbers are a row of a table made in float64 by medtrust/ops/schedules.py. Without a clamp the first terms of
// next are dx x + dm output, dx = cx + cc kx and dm = cc km: fewer roundings, and the float64 of the table keeps them.
#pragma once

#include <cmath>
#include <cstdint>

namespace medtrust {

enum class Half : int64_t { none = 0, ieee = 1, brain = 2 };  // float32, float16 or bfloat16 model output
enum class Keep : int64_t { nothing = 0, clean = 1, x = 2 };  // what the next row wants to remember
enum class Noise : int64_t { words = 0, uniform = 1, normal = 2 };

constexpr int64_t kRowSize = 8;

struct SamplerRow {
  float kx, km, cx, cc, cm, cn, dx, dm;
};

struct NoiseSource {
  int64_t seed, step;
  int64_t offset;  // of the first element in the noise of (seed, step)
};

struct SamplerSpec {
  int64_t count;           // elements
  Half half;               // dtype of both model outputs
  float guidance, lo, hi;  // clamp of the clean image; infinite for none
  bool clamped() const { return lo > -INFINITY || hi < INFINITY; }
  int64_t rows;            // of the table
  int64_t seed, offset;    // of the noise
  Keep keep;
  bool quantise;           // write uint8 instead of float32
  float from, scale;       // value that becomes 0, and 255 / (value that becomes 255 - from)
  float input_scale;       // factor on what the next row's network sees
};

struct SamplerBuffers {
  const float* x;               // [count]
  const void* conditional;      // [count] float32, float16 or bfloat16
  const void* unconditional;    // [count] or null: no guidance
  const float* memory;          // [count] or null; read where the row's cm is not zero
  const float* table;           // [rows, kRowSize]
  const int64_t* row;           // one number, so that a captured CUDA graph can count it up
  void* next;                   // [count] float32 (may be x) or uint8
  float* kept;                  // [count] (may be memory) or null
  int32_t* not_a_number;        // set to 1 where a NaN was to be quantised; null unless quantising
  float* told;                  // [count] or null: next times input_scale; on the processor only
  float* told_again;            // [count] or null: the same once more, for a network that is asked twice
};

// outputs: out [count]: uint32 words, float32 uniforms in [0, 1) or float32 standard normals
void philox_cpu(Noise kind, const NoiseSource& source, int64_t count, void* out, int threads);
void philox_cuda(Noise kind, const NoiseSource& source, int64_t count, void* out, void* stream);

void sampler_step_cpu(const SamplerSpec& spec, const SamplerBuffers& buffers, int threads);
void sampler_step_cuda(const SamplerSpec& spec, const SamplerBuffers& buffers, void* stream);

// out [count] = mean + exp(log_variance / 2) noise
void reparameterise_cpu(const float* mean, const float* log_variance, const NoiseSource& source, int64_t count,
                        float* out, int threads);
void reparameterise_cuda(const float* mean, const float* log_variance, const NoiseSource& source, int64_t count,
                         float* out, void* stream);

// The elements [begin, end) of the above, by instruction set.
struct SamplerKernels {
  void (*noise)(Noise kind, const NoiseSource& source, int64_t begin, int64_t end, void* out);
  void (*step)(const SamplerSpec& spec, const SamplerBuffers& buffers, const SamplerRow& row, int64_t row_index,
               int64_t begin, int64_t end);
  void (*reparameterise)(const float* mean, const float* log_variance, const NoiseSource& source, int64_t begin,
                         int64_t end, float* out);
};
namespace scalar {
extern const SamplerKernels sampler_kernels;
}
namespace avx2 {
extern const SamplerKernels sampler_kernels;
}
namespace avx512 {
extern const SamplerKernels sampler_kernels;
}

}  // namespace medtrust
