// Vectors of MEDTRUST_BYTES bytes. Included only by files that are compiled once per instruction set, hence the unnamed
// namespace: a function shared between the translation units could be linked from the widest one.
#pragma once

#include <cstdint>
#include <cstring>

namespace medtrust {
namespace {

template <typename R>
struct Vec;
template <>
struct Vec<float> {
  typedef float type __attribute__((vector_size(MEDTRUST_BYTES)));
};
template <>
struct Vec<double> {
  typedef double type __attribute__((vector_size(MEDTRUST_BYTES)));
};

template <typename R>
using vec = typename Vec<R>::type;
template <typename R>
constexpr int64_t lanes = MEDTRUST_BYTES / int64_t(sizeof(R));

template <typename R>
inline vec<R> load(const R* p) {
  vec<R> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename R>
inline void store(R* p, vec<R> v) {
  std::memcpy(p, &v, sizeof v);
}
typedef float half_vec __attribute__((vector_size(MEDTRUST_BYTES / 2)));  // as many floats as a vector has doubles

inline vec<double> load_double(const double* p) { return load(p); }
inline vec<double> load_double(const float* p) {
  half_vec v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, vec<double>);
}
inline void store_float(float* p, vec<double> v) {
  const half_vec rounded = __builtin_convertvector(v, half_vec);
  std::memcpy(p, &rounded, sizeof rounded);
}
template <typename R>
inline vec<R> splat(R a) {
  return a - vec<R>{};
}

}  // namespace
}  // namespace medtrust
