#include "../isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace medtrust {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "scalar";
  }
}

static Isa best() {
#ifdef MEDTRUST_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::scalar;
}

Isa isa() {
  const Isa here = best();
  const char* forced = std::getenv("MEDTRUST_CPU");
  if (forced == nullptr || *forced == '\0') return here;
  const std::string name(forced);
  for (Isa choice : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (name != isa_name(choice)) continue;
    if (choice > here)
      throw std::runtime_error("MEDTRUST_CPU=" + name + " is set, but this processor or build has only " +
                               isa_name(here) + "; unset it or set MEDTRUST_CPU=" + isa_name(here));
    return choice;
  }
  throw std::runtime_error("MEDTRUST_CPU=" + name + " is not one of scalar, avx2, avx512; unset it to let cpuid pick");
}

int max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace medtrust
