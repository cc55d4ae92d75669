// The element loops of sampler.h. Compiled once per instruction set; see vec.h for the unnamed namespace.
#include "../sampler_element.h"
#include "vec.h"

#ifdef MEDTRUST_X86
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own _mm512 headers, not this file
#endif
#endif

namespace medtrust {
namespace {

typedef vec<float> vfloat;
typedef int32_t vint __attribute__((vector_size(MEDTRUST_BYTES)));
typedef uint32_t vword __attribute__((vector_size(MEDTRUST_BYTES)));
typedef uint64_t vpair __attribute__((vector_size(MEDTRUST_BYTES)));

constexpr int64_t L = lanes<float>;
constexpr int64_t kBlock = 1024;            // elements whose intermediate values stay in the first-level cache
constexpr int64_t kRoom = kBlock + 4 * L;   // with the elements that whole vectors add at both ends
constexpr int64_t kAhead = 128;             // elements fetched early: the network has pushed x out of the near caches

#ifdef MEDTRUST_X86
#if MEDTRUST_BYTES == 64
#define MEDTRUST_MM(name) _mm512_##name
typedef __m512i mint;
typedef __m512 mfloat;
#elif MEDTRUST_BYTES == 32
#define MEDTRUST_MM(name) _mm256_##name
typedef __m256i mint;
typedef __m256 mfloat;
#else
#define MEDTRUST_MM(name) _mm_##name
typedef __m128i mint;
typedef __m128 mfloat;
#endif
#endif

template <>
struct Lanes<vfloat> {
  using Signed = vint;
  using Unsigned = vword;
  static vfloat number(vint a) { return __builtin_convertvector(a, vfloat); }
  static vfloat of_bits(vint a) { return (vfloat)a; }
#ifdef MEDTRUST_X86
  static vfloat root(vfloat a) { return (vfloat)MEDTRUST_MM(sqrt_ps)((mfloat)a); }
#else
  static vfloat root(vfloat a) {
    for (int64_t i = 0; i < L; ++i) a[i] = std::sqrt(a[i]);
    return a;
  }
#endif
};

#ifdef MEDTRUST_X86
// One block per 128 bits: counter words in the order of memory, so two words of each 64 bits multiply at once.
struct PhiloxVectors {
  vpair keys[kPhiloxRounds];

  explicit PhiloxVectors(uint64_t seed) {
    uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
    for (vpair& round : keys) {
      for (int64_t i = 0; i < L / 2; ++i) round[i] = key[i % 2];
      key[0] += kWeyl0;
      key[1] += kWeyl1;
    }
  }

  vword operator()(vpair state) const {
    vpair multipliers;
    for (int64_t i = 0; i < L / 2; ++i) multipliers[i] = i % 2 ? kMultiplier1 : kMultiplier0;
#pragma GCC unroll 10
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const mint product = MEDTRUST_MM(mul_epu32)((mint)state, (mint)multipliers);
      const vpair crossed = (vpair)MEDTRUST_MM(shuffle_epi32)(product, _MM_PERM_ENUM(0x1b));
      state = crossed ^ (state >> 32) ^ keys[round];
    }
    return (vword)state;
  }
};

// Words of the noise from element `first`, a multiple of 4, up to at least `count` of them; `take` gets two vectors of
// words that follow each other.
template <typename Take>
inline void for_words(const NoiseSource& source, int64_t first, int64_t count, const Take& take) {
  const PhiloxVectors philox_of(uint64_t(source.seed));
  vpair a, b, stride;
  for (int64_t i = 0; i < L / 2; ++i) {
    const uint64_t block = uint64_t(first / 4 + i / 2);
    a[i] = i % 2 ? uint64_t(source.step) : block;
    b[i] = i % 2 ? uint64_t(source.step) : block + uint64_t(L / 4);
    stride[i] = i % 2 ? 0 : uint64_t(L / 2);
  }
  for (int64_t i = 0; i < count; i += 2 * L, a += stride, b += stride) take(i, philox_of(a), philox_of(b));
}

inline void fill_normals(const NoiseSource& source, int64_t first, int64_t count, float* out) {
  for_words(source, first, count, [out](int64_t i, vword a, vword b) {
    const mfloat even = MEDTRUST_MM(shuffle_ps)((mfloat)a, (mfloat)b, 0x88);
    const mfloat odd = MEDTRUST_MM(shuffle_ps)((mfloat)a, (mfloat)b, 0xdd);
    vfloat x, y;
    normal_pair<vfloat>((vword)even, (vword)odd, x, y);
    store(out + i, (vfloat)MEDTRUST_MM(unpacklo_ps)((mfloat)x, (mfloat)y));
    store(out + i + L, (vfloat)MEDTRUST_MM(unpackhi_ps)((mfloat)x, (mfloat)y));
  });
}

inline void fill_words(const NoiseSource& source, int64_t first, int64_t count, uint32_t* out) {
  for_words(source, first, count, [out](int64_t i, vword a, vword b) {
    std::memcpy(out + i, &a, sizeof a);
    std::memcpy(out + i + L, &b, sizeof b);
  });
}
#else
inline void fill_words(const NoiseSource& source, int64_t first, int64_t count, uint32_t* out) {
  for (int64_t i = 0; i < count; i += 4) {
    const Words words = philox_block(uint64_t(source.seed), uint64_t(source.step), uint64_t((first + i) / 4));
    std::memcpy(out + i, words.w, sizeof words.w);
  }
}

inline void fill_normals(const NoiseSource& source, int64_t first, int64_t count, float* out) {
  uint32_t words[kRoom];
  fill_words(source, first, count, words);
  for (int64_t i = 0; i < count; i += 2) normal_pair<float>(words[i], words[i + 1], out[i], out[i + 1]);
}
#endif

// Normals of the elements [begin, begin + count) of a call, count <= kBlock; returns where they start in `room`.
inline const float* normals(const NoiseSource& source, int64_t begin, int64_t count, float* room) {
  const int64_t element = source.offset + begin, lead = element % 4;
  fill_normals(source, element - lead, count + lead, room);
  return room + lead;
}

void noise(Noise kind, const NoiseSource& source, int64_t begin, int64_t end, void* out) {
  alignas(64) uint32_t words[kRoom];
  alignas(64) float room[kRoom];
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t count = end - i < kBlock ? end - i : kBlock;
    if (kind == Noise::normal) {
      std::memcpy(static_cast<float*>(out) + i, normals(source, i, count, room), size_t(count) * 4);
      continue;
    }
    const int64_t element = source.offset + i, lead = element % 4;
    fill_words(source, element - lead, count + lead, words);
    if (kind == Noise::words) {
      std::memcpy(static_cast<uint32_t*>(out) + i, words + lead, size_t(count) * 4);
    } else {
      float* uniforms = static_cast<float*>(out) + i;
      for (int64_t j = 0; j < count; ++j) uniforms[j] = uniform_of(words[lead + j]);
    }
  }
}

void reparameterise(const float* mean, const float* log_variance, const NoiseSource& source, int64_t begin, int64_t end,
                    float* out) {
  alignas(64) float room[kRoom];
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t count = end - i < kBlock ? end - i : kBlock;
    const float* z = normals(source, i, count, room);
    int64_t j = 0;
    for (; j + L <= count; j += L) {
      const vfloat deviation = exponential(mul(load(log_variance + i + j), constant<vfloat>(0.5f)));
      store(out + i + j, add(load(mean + i + j), mul(deviation, load(z + j))));
    }
    for (; j < count; ++j)
      out[i + j] = add(mean[i + j], mul(exponential(mul(log_variance[i + j], 0.5f)), z[j]));
  }
}

// A block of a model's output as float32: itself, or widened into `room`.
inline const float* widened(const void* output, Half half, int64_t begin, int64_t count, float* room) {
  if (half == Half::none) return static_cast<const float*>(output) + begin;
  const uint16_t* from = static_cast<const uint16_t*>(output) + begin;
  if (half == Half::ieee)
    for (int64_t i = 0; i < count; ++i) room[i] = widen_ieee(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) room[i] = widen_brain(from[i]);
  return room;
}

// What a step reads and writes for one block; of `memory` and `noise`, the one that a row does without points at zeros.
struct Streams {
  const float *x, *conditional, *unconditional, *memory, *noise;
  float *next, *kept;
};

struct Factors {
  SamplerRow row;
  float guidance, lo, hi;
  bool keep_x;
};

template <typename F>
inline F at(const float* p) {
  F value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// kClamped: the clean image is; kGuided: there are two outputs; kMixed: memory or noise is added; kKept: one is kept.
template <typename F, bool kClamped, bool kGuided, bool kMixed, bool kKept>
inline void element(const Streams& s, const Factors& f, int64_t i) {
  const F x = at<F>(s.x + i);
  F output = at<F>(s.conditional + i);
  if (kGuided) output = guided(output, at<F>(s.unconditional + i), constant<F>(f.guidance));
  F clean{}, next;
  if (kClamped || kKept)
    clean = limited(two_products(constant<F>(f.row.kx), x, constant<F>(f.row.km), output), constant<F>(f.lo),
                    constant<F>(f.hi));
  next = kClamped ? two_products(constant<F>(f.row.cx), x, constant<F>(f.row.cc), clean)
                  : two_products(constant<F>(f.row.dx), x, constant<F>(f.row.dm), output);
  if (kMixed)
    next = add(next, two_products(constant<F>(f.row.cm), at<F>(s.memory + i), constant<F>(f.row.cn),
                                  at<F>(s.noise + i)));
  const F kept = f.keep_x ? x : clean;
  std::memcpy(s.next + i, &next, sizeof next);
  if (kKept) std::memcpy(s.kept + i, &kept, sizeof kept);
}

template <bool... kFlags>
void elements(const Streams& s, const Factors& f, int64_t count) {
  int64_t i = 0;
  for (; i + L <= count; i += L) {
    __builtin_prefetch(s.x + i + kAhead);
    __builtin_prefetch(s.conditional + i + kAhead);
    element<vfloat, kFlags...>(s, f, i);
  }
  for (; i < count; ++i) element<float, kFlags...>(s, f, i);
}

using Elements = void (*)(const Streams& s, const Factors& f, int64_t count);

template <bool... kFlags>
Elements chosen() {
  return elements<kFlags...>;
}
template <bool... kFlags, typename... Rest>
Elements chosen(bool flag, Rest... rest) {
  return flag ? chosen<kFlags..., true>(rest...) : chosen<kFlags..., false>(rest...);
}

// The next row's network input, from a block that is still in the first-level cache.
inline void tell(const float* next, float factor, int64_t count, float* told) {
  int64_t j = 0;
  for (; j + L <= count; j += L) store(told + j, mul(load(next + j), constant<vfloat>(factor)));
  for (; j < count; ++j) told[j] = mul(next[j], factor);
}

void step(const SamplerSpec& spec, const SamplerBuffers& b, const SamplerRow& row, int64_t row_index, int64_t begin,
          int64_t end) {
  alignas(64) static const float zeros[kBlock] = {};
  alignas(64) float noise_room[kRoom], conditional_room[kBlock], unconditional_room[kBlock], next_room[kBlock];
  const NoiseSource source{spec.seed, row_index + 1, spec.offset};
  const Factors factors{row, spec.guidance, spec.lo, spec.hi, spec.keep == Keep::x};
  const Elements run = chosen(spec.clamped(), b.unconditional != nullptr, row.cm != 0 || row.cn != 0,
                              spec.keep != Keep::nothing);
  int32_t bad = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t count = end - i < kBlock ? end - i : kBlock;
    Streams s{};
    s.x = b.x + i;
    s.conditional = widened(b.conditional, spec.half, i, count, conditional_room);
    if (b.unconditional) s.unconditional = widened(b.unconditional, spec.half, i, count, unconditional_room);
    s.memory = row.cm != 0 ? b.memory + i : zeros;
    s.noise = row.cn != 0 ? normals(source, i, count, noise_room) : zeros;
    s.next = spec.quantise ? next_room : static_cast<float*>(b.next) + i;
    if (spec.keep != Keep::nothing) s.kept = b.kept + i;
    run(s, factors, count);
    if (b.told) tell(s.next, spec.input_scale, count, b.told + i);
    if (b.told_again) tell(s.next, spec.input_scale, count, b.told_again + i);
    if (!spec.quantise) continue;
    uint8_t* levels = static_cast<uint8_t*>(b.next) + i;
    for (int64_t j = 0; j < count; ++j) {
      bad |= next_room[j] != next_room[j];
      levels[j] = quantised(next_room[j], spec.from, spec.scale);
    }
  }
  if (bad) __atomic_store_n(b.not_a_number, 1, __ATOMIC_RELAXED);
}

}  // namespace

namespace MEDTRUST_ISA {
const SamplerKernels sampler_kernels = {noise, step, reparameterise};
}

}  // namespace medtrust
