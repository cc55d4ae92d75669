// Picks the matrix unit.
#include "../matrix.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../isa.h"

#if defined(MEDTRUST_MATRIX)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace medtrust {

#ifdef MEDTRUST_MATRIX
namespace {

bool has_avx512bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1);
}

// Linux grants a process the tiles' registers only when asked to.
bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool bf16 = d >> 22 & 1, tiles = d >> 24 & 1, int8 = d >> 25 & 1;
  return bf16 && tiles && int8 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

const MatrixKernels* matrix_kernels() {
  static const bool bf16 = has_avx512bf16(), tiles = has_amx();
  const char* wish = std::getenv("MEDTRUST_MATRIX");
  const std::string name(wish == nullptr ? "" : wish);
  const bool wide = isa() == Isa::avx512;
  if (name == "none") return nullptr;
  if (!name.empty() && name != "amx" && name != "avx512bf16")
    throw std::runtime_error("MEDTRUST_MATRIX=" + name + " is not one of none, avx512bf16, amx; unset it to let cpuid pick");
  if (wide && tiles && name != "avx512bf16") return &amx::matrix_kernels;
  if (wide && bf16 && name != "amx") return &avx512bf16::matrix_kernels;
  if (!name.empty())
    throw std::runtime_error("MEDTRUST_MATRIX=" + name + " is set, but this processor, or MEDTRUST_CPU, has no such unit");
  return nullptr;
}
#else
const MatrixKernels* matrix_kernels() {
  const char* wish = std::getenv("MEDTRUST_MATRIX");
  const std::string name(wish == nullptr ? "none" : wish);
  if (name.empty() || name == "none") return nullptr;
  throw std::runtime_error("MEDTRUST_MATRIX=" + name + " is set, but this build has no matrix units");
}
#endif

}  // namespace medtrust
