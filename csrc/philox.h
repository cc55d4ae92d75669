// Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, doi:10.1145/2063384.2063405) and the numbers made from it.
//
// Element e of the noise of (seed, step) is word e % 4 of the block whose key is the seed (low and high half) and whose
// counter is (e / 4, step), 64 bits each, low half first: the layout of cuRAND's Philox with `step` as the subsequence.
// No two (step, element) of one seed share a counter, and a thread, a batch split or a device can start anywhere.
//
// The arithmetic is written once, for a float and for a vector of floats, with every product and sum rounded by itself:
// a fused multiply-add would give other bits where the processor has one. Hence the same bits on every processor, and
// on CUDA, whose intrinsics below are exempt from fusing.
#pragma once

// Set here rather than on the command line, so that the promise holds for everyone who includes the file.
#if defined(__CUDACC__)
#elif defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

#include "both.h"

namespace medtrust {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

struct Words {
  uint32_t w[4];
};

MEDTRUST_BOTH Words philox(Words c, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = uint64_t(kMultiplier0) * c.w[0], p1 = uint64_t(kMultiplier1) * c.w[2];
    c = {{uint32_t(p1 >> 32) ^ c.w[1] ^ key0, uint32_t(p1), uint32_t(p0 >> 32) ^ c.w[3] ^ key1, uint32_t(p0)}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return c;
}

MEDTRUST_BOTH Words philox_block(uint64_t seed, uint64_t step, uint64_t block) {
  return philox({{uint32_t(block), uint32_t(block >> 32), uint32_t(step), uint32_t(step >> 32)}}, uint32_t(seed),
                uint32_t(seed >> 32));
}

// F is float or a vector of floats; Lanes<F> knows the integers of the same width and what C++ has no operator for.
template <typename F>
struct Lanes;
template <typename F>
using Signed = typename Lanes<F>::Signed;
template <typename F>
using Unsigned = typename Lanes<F>::Unsigned;

template <>
struct Lanes<float> {
  using Signed = int32_t;
  using Unsigned = uint32_t;
  MEDTRUST_BOTH static float number(int32_t a) { return float(a); }
#ifdef __CUDA_ARCH__
  MEDTRUST_BOTH static float root(float a) { return __fsqrt_rn(a); }
  MEDTRUST_BOTH static float of_bits(int32_t a) { return __int_as_float(a); }
#else
  MEDTRUST_BOTH static float root(float a) { return std::sqrt(a); }
  MEDTRUST_BOTH static float of_bits(int32_t a) {
    float f;
    std::memcpy(&f, &a, sizeof f);
    return f;
  }
#endif
};

#ifdef __CUDA_ARCH__
MEDTRUST_BOTH float mul(float a, float b) { return __fmul_rn(a, b); }
MEDTRUST_BOTH float add(float a, float b) { return __fadd_rn(a, b); }
MEDTRUST_BOTH int32_t bits_of(float a) { return __float_as_int(a); }
#else
template <typename F>
MEDTRUST_BOTH F mul(F a, F b) {
  return a * b;
}
template <typename F>
MEDTRUST_BOTH F add(F a, F b) {
  return a + b;
}
template <typename F>
MEDTRUST_BOTH Signed<F> bits_of(F a) {
  Signed<F> i;
  std::memcpy(&i, &a, sizeof i);
  return i;
}
#endif

template <typename F>
MEDTRUST_BOTH F constant(float a) {
  return F{} + a;
}

// ((c0 x + c1) x + ...) + last, Horner's rule.
template <typename F, int N>
MEDTRUST_BOTH F polynomial(F x, const float (&coefficients)[N]) {
  F sum = constant<F>(coefficients[0]);
  for (int i = 1; i < N; ++i) sum = add(mul(sum, x), constant<F>(coefficients[i]));
  return sum;
}

// sqrt(-2 ln u) for u = (word + 1/2) / 2^32. Read as a signed number the word gives u below one half and u - 1 above it,
// either with the full precision of a float32, so that neither tail of u is coarse.
template <typename F>
MEDTRUST_BOTH F radius(Unsigned<F> word) {
  // (ln(1 + x) - x + x^2 / 2) / x^3 on [sqrt(1/2) - 1, sqrt(2) - 1], minimax, error times x^2 below 1e-9
  constexpr float kLog[] = {0.0691542476f, -0.1178983524f, 0.1187296584f,  -0.1238434315f, 0.1421865821f,
                            -0.1666925102f, 0.2000222653f, -0.2499998659f, 0.3333331048f};
  const F s = mul(add(Lanes<F>::number((Signed<F>)word), constant<F>(0.5f)), constant<F>(0x1p-32f));
  const F u = s < F{} ? add(s, constant<F>(1.0f)) : s;
  const Signed<F> exponent = (bits_of(u) - 0x3f3504f3) >> 23;  // of u / sqrt(1/2)
  const F near_one = add(Lanes<F>::of_bits(bits_of(u) - (Signed<F>)((Unsigned<F>)exponent << 23)), constant<F>(-1.0f));
  const F x = exponent == 0 ? s : near_one;
  const F e = Lanes<F>::number(exponent), square = mul(x, x);
  F log = mul(mul(square, x), polynomial(x, kLog));
  log = add(log, mul(e, constant<F>(-2.12194440e-4f)));  // ln 2 in two parts, the larger one exact in few bits
  log = add(log, mul(square, constant<F>(-0.5f)));
  log = add(add(log, x), mul(e, constant<F>(0.693359375f)));
  return Lanes<F>::root(mul(log, constant<F>(-2.0f)));
}

// Cosine and sine of 2 pi word / 2^32. The quadrant comes off exactly, in integers.
template <typename F>
MEDTRUST_BOTH void turn(Unsigned<F> word, F& cosine, F& sine) {
  // sin(pi f / 2) / f and cos(pi f / 2) in f^2 for |f| <= 1/2, minimax, errors 5e-9 and 5e-11
  constexpr float kSine[] = {-0.004602177069f, 0.07968022674f, -0.6459634900f, 1.570796371f};
  constexpr float kCosine[] = {0.0009036316769f, -0.02086007223f, 0.2536692023f, -1.233700514f, 1.0f};
  const Unsigned<F> quadrant = (word + 0x20000000u) >> 30;
  const F f = mul(Lanes<F>::number((Signed<F>)(word - (quadrant << 30))), constant<F>(0x1p-30f));
  const F square = mul(f, f);
  const F s = mul(f, polynomial(square, kSine)), c = polynomial(square, kCosine);
  const auto odd = (quadrant & 1u) != 0u;
  const Signed<F> flip_cosine = (Signed<F>)(((quadrant + 1u) & 2u) << 30);
  const Signed<F> flip_sine = (Signed<F>)((quadrant & 2u) << 30);
  cosine = Lanes<F>::of_bits(bits_of(odd ? s : c) ^ flip_cosine);
  sine = Lanes<F>::of_bits(bits_of(odd ? c : s) ^ flip_sine);
}

// Box & Muller 1958: two independent standard normals from two words.
template <typename F>
MEDTRUST_BOTH void normal_pair(Unsigned<F> first, Unsigned<F> second, F& a, F& b) {
  const F r = radius<F>(first);
  F cosine, sine;
  turn<F>(second, cosine, sine);
  a = mul(r, cosine);
  b = mul(r, sine);
}

// exp(x), to 1 unit in the last place; infinite above 88.7, zero below -104, NaN for NaN.
template <typename F>
MEDTRUST_BOTH F exponential(F x) {
  constexpr float kExp[] = {0.001394112129f, 0.008363179862f, 0.04166637361f, 0.1666657627f, 0.5f};
  x = x > constant<F>(89.0f) ? constant<F>(89.0f) : x;
  x = x < constant<F>(-105.0f) ? constant<F>(-105.0f) : x;
  const F shift = constant<F>(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
  const F shifted = add(mul(x, constant<F>(1.44269504f)), shift);
  const F n = add(shifted, -shift);
  const F coarse = add(x, mul(n, constant<F>(-0.693359375f))), fine = mul(n, constant<F>(2.12194440e-4f));
  const F r = add(coarse, fine), rest = add(add(coarse, -r), fine);  // of the rounding of r
  const F value = add(add(add(mul(mul(r, r), polynomial(r, kExp)), rest), r), constant<F>(1.0f));
  const Signed<F> power = bits_of(shifted) - 0x4b400000;
  const Signed<F> half = power >> 1;  // in two factors, so that neither leaves the range of a float32
  // unsigned: after a NaN the power is any number
  const Signed<F> one = (Signed<F>)((Unsigned<F>)(half + 127) << 23);
  const Signed<F> other = (Signed<F>)((Unsigned<F>)(power - half + 127) << 23);
  return mul(mul(value, Lanes<F>::of_bits(one)), Lanes<F>::of_bits(other));
}

MEDTRUST_BOTH float uniform_of(uint32_t word) { return mul(float(word >> 8), 0x1p-24f); }

}  // namespace
}  // namespace medtrust
