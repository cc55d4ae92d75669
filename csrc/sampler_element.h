// The arithmetic of one element of a sampler step, shared by the CPU's vectors and the CUDA kernels; see philox.h for why
// every product and sum is rounded by itself, and vec.h for the unnamed namespace.
#pragma once

#include "philox.h"
#include "sampler.h"

namespace medtrust {
namespace {

// float16 to float32, infinities and NaN included.
MEDTRUST_BOTH float widen_ieee(uint16_t h) {
  const int32_t magnitude = (h & 0x7fff) << 13;
  const float value = mul(Lanes<float>::of_bits(magnitude), 0x1p112f);
  const int32_t special = (h & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
  return Lanes<float>::of_bits(bits_of(value) | special | int32_t(uint32_t(h & 0x8000) << 16));
}
MEDTRUST_BOTH float widen_brain(uint16_t h) { return Lanes<float>::of_bits(int32_t(uint32_t(h) << 16)); }

template <typename F>
MEDTRUST_BOTH F guided(F conditional, F unconditional, F guidance) {
  return add(unconditional, mul(guidance, add(conditional, -unconditional)));
}

// Comparisons in this order let a NaN through.
template <typename F>
MEDTRUST_BOTH F limited(F a, F lo, F hi) {
  a = a < lo ? lo : a;
  return a > hi ? hi : a;
}

template <typename F>
MEDTRUST_BOTH F two_products(F a, F x, F b, F y) {
  return add(mul(a, x), mul(b, y));
}

// 0..255, rounded to the nearest, a half upwards; 0 for a NaN, which the caller reports.
MEDTRUST_BOTH uint8_t quantised(float value, float from, float scale) {
  const float level = mul(add(value, -from), scale);
  return level == level ? uint8_t(int32_t(add(limited(level, 0.0f, 255.0f), 0.5f))) : uint8_t(0);
}

}  // namespace
}  // namespace medtrust
