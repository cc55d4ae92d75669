// The sampler ops on the device. A thread owns one Philox block, four elements: it reads them, steps them and writes
// them, so the ops may work in place and no order of threads matters.
#include "../sampler_element.h"
#include "launch.cuh"

namespace medtrust {
namespace {

constexpr int kThreads = 256;

struct Ieee {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};
__device__ inline float value_of(float a) { return a; }
__device__ inline float value_of(Ieee a) { return widen_ieee(a.bits); }
__device__ inline float value_of(Brain a) { return widen_brain(a.bits); }

template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

// The four elements of one Philox block, of which a batch may own only some.
struct Place {
  uint64_t block;
  int64_t first;  // index in the batch of the block's first element, -3 at least
  int64_t count;
  bool whole;  // all four are the batch's and lie aligned in memory
};

__device__ inline Place place_of(int64_t thread, int64_t offset, int64_t count, bool aligned) {
  Place p;
  p.block = uint64_t(offset / 4 + thread);
  p.first = 4 * thread - offset % 4;
  p.count = count;
  p.whole = aligned && p.first >= 0 && p.first + 4 <= count;
  return p;
}
__device__ inline bool owns(const Place& p, int j) { return p.first + j >= 0 && p.first + j < p.count; }

template <typename T>
__device__ inline void load(const T* from, const Place& p, float (&to)[4]) {
  if (p.whole) {
    const Quad<T> q = *reinterpret_cast<const Quad<T>*>(from + p.first);
    for (int j = 0; j < 4; ++j) to[j] = value_of(q.v[j]);
    return;
  }
  for (int j = 0; j < 4; ++j) to[j] = owns(p, j) ? value_of(from[p.first + j]) : 0.0f;
}

template <typename T>
__device__ inline void save(const T (&from)[4], const Place& p, T* to) {
  if (p.whole) {
    Quad<T> q;
    for (int j = 0; j < 4; ++j) q.v[j] = from[j];
    *reinterpret_cast<Quad<T>*>(to + p.first) = q;
    return;
  }
  for (int j = 0; j < 4; ++j)
    if (owns(p, j)) to[p.first + j] = from[j];
}

__device__ inline void normals(const NoiseSource& source, uint64_t block, float (&z)[4]) {
  const Words words = philox_block(uint64_t(source.seed), uint64_t(source.step), block);
  normal_pair<float>(words.w[0], words.w[1], z[0], z[1]);
  normal_pair<float>(words.w[2], words.w[3], z[2], z[3]);
}

__global__ void __launch_bounds__(kThreads)
    noise_kernel(Noise kind, NoiseSource source, int64_t count, bool aligned, void* out) {
  const Place p = place_of(int64_t(blockIdx.x) * kThreads + threadIdx.x, source.offset, count, aligned);
  if (kind == Noise::normal) {
    float z[4];
    normals(source, p.block, z);
    save(z, p, static_cast<float*>(out));
    return;
  }
  const Words words = philox_block(uint64_t(source.seed), uint64_t(source.step), p.block);
  if (kind == Noise::words) {
    save(words.w, p, static_cast<uint32_t*>(out));
    return;
  }
  float u[4];
  for (int j = 0; j < 4; ++j) u[j] = uniform_of(words.w[j]);
  save(u, p, static_cast<float*>(out));
}

__global__ void __launch_bounds__(kThreads) reparameterise_kernel(const float* mean, const float* log_variance,
                                                                  NoiseSource source, int64_t count, bool aligned,
                                                                  float* out) {
  const Place p = place_of(int64_t(blockIdx.x) * kThreads + threadIdx.x, source.offset, count, aligned);
  float m[4], v[4], z[4];
  load(mean, p, m);
  load(log_variance, p, v);
  normals(source, p.block, z);
  for (int j = 0; j < 4; ++j) m[j] = add(m[j], mul(exponential(mul(v[j], 0.5f)), z[j]));
  save(m, p, out);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) step_kernel(SamplerSpec spec, SamplerBuffers b, bool clamped, bool aligned) {
  const Place p = place_of(int64_t(blockIdx.x) * kThreads + threadIdx.x, spec.offset, spec.count, aligned);
  const int64_t index = *b.row;
  const float poison = Lanes<float>::of_bits(0x7fc00000);  // a counter that ran off the table must not look like an image
  SamplerRow row{poison, poison, poison, poison, poison, poison, poison, poison};
  if (index >= 0 && index < spec.rows) {
    const float* r = b.table + index * kRowSize;
    row = {r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]};
  }
  if (row.cm != 0 && b.memory == nullptr) row.cm = poison;
  float x[4], output[4], memory[4] = {}, z[4] = {}, kept[4];
  load(b.x, p, x);
  load(static_cast<const T*>(b.conditional), p, output);
  if (b.unconditional != nullptr) {
    float base[4];
    load(static_cast<const T*>(b.unconditional), p, base);
    for (int j = 0; j < 4; ++j) output[j] = guided(output[j], base[j], spec.guidance);
  }
  if (row.cm != 0 && b.memory != nullptr) load(b.memory, p, memory);
  if (row.cn != 0) normals({spec.seed, index + 1, spec.offset}, p.block, z);
  bool bad = false;
  uint8_t levels[4];
  for (int j = 0; j < 4; ++j) {
    const float clean = limited(two_products(row.kx, x[j], row.km, output[j]), spec.lo, spec.hi);
    kept[j] = spec.keep == Keep::x ? x[j] : clean;
    const float direct =
        clamped ? two_products(row.cx, x[j], row.cc, clean) : two_products(row.dx, x[j], row.dm, output[j]);
    x[j] = add(direct, two_products(row.cm, memory[j], row.cn, z[j]));
    if (!spec.quantise) continue;
    bad = bad || (owns(p, j) && x[j] != x[j]);
    levels[j] = quantised(x[j], spec.from, spec.scale);
  }
  if (spec.keep != Keep::nothing) save(kept, p, b.kept);
  if (spec.quantise)
    save(levels, p, static_cast<uint8_t*>(b.next));
  else
    save(x, p, static_cast<float*>(b.next));
  if (bad) *b.not_a_number = 1;  // every thread that writes writes the same
}

bool aligned16(const void* a, const void* b, const void* c, const void* d = nullptr, const void* e = nullptr,
               const void* f = nullptr) {
  return (uintptr_t(a) | uintptr_t(b) | uintptr_t(c) | uintptr_t(d) | uintptr_t(e) | uintptr_t(f)) % 16 == 0;
}

unsigned grid_of(int64_t offset, int64_t count) {
  const int64_t owners = (offset % 4 + count + 3) / 4, blocks = (owners + kThreads - 1) / kThreads;
  if (blocks > 2147483647) throw std::invalid_argument("more than 2^41 elements; split the batch");
  return unsigned(blocks);
}

template <typename T>
void launch_step(const SamplerSpec& spec, const SamplerBuffers& b, cudaStream_t queue) {
  const bool aligned =
      spec.offset % 4 == 0 && aligned16(b.x, b.conditional, b.unconditional, b.memory, b.next, b.kept);
  const unsigned grid = grid_of(spec.offset, spec.count);
  MEDTRUST_LAUNCH(step_kernel<T>, grid, kThreads, queue, spec, b, spec.clamped(), aligned);
  check_launch("sampler step");
}

}  // namespace

void philox_cuda(Noise kind, const NoiseSource& source, int64_t count, void* out, void* stream) {
  const bool aligned = source.offset % 4 == 0 && aligned16(out, nullptr, nullptr);
  const unsigned grid = grid_of(source.offset, count);
  MEDTRUST_LAUNCH(noise_kernel, grid, kThreads, static_cast<cudaStream_t>(stream), kind, source, count, aligned, out);
  check_launch("philox");
}

void reparameterise_cuda(const float* mean, const float* log_variance, const NoiseSource& source, int64_t count,
                         float* out, void* stream) {
  const bool aligned = source.offset % 4 == 0 && aligned16(mean, log_variance, out);
  const unsigned grid = grid_of(source.offset, count);
  MEDTRUST_LAUNCH(reparameterise_kernel, grid, kThreads, static_cast<cudaStream_t>(stream), mean, log_variance, source,
                  count, aligned, out);
  check_launch("reparameterise");
}

void sampler_step_cuda(const SamplerSpec& spec, const SamplerBuffers& b, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (spec.half) {
    case Half::ieee: return launch_step<Ieee>(spec, b, queue);
    case Half::brain: return launch_step<Brain>(spec, b, queue);
    default: return launch_step<float>(spec, b, queue);
  }
}

}  // namespace medtrust
