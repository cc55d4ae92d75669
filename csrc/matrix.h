// Matrix units of a processor: products of 32 x 32 blocks of short integers or bfloat16.
//
// Packed rows lie in tiles of 16 rows, one tile after the other along a row ("steps"). A left tile holds [16 rows] of 64
// bytes; a right tile holds [16 groups of 4 bytes][16 rows], which is what the units want of the transposed factor.
#pragma once

#include <cstdint>

namespace medtrust {

constexpr int64_t kTile = 16;        // rows of a tile
constexpr int64_t kTileBytes = 64;   // bytes of a row in a tile
constexpr int64_t kPair = 2 * kTile; // rows and columns of a block

struct MatrixKernels {
  const char* name;
  void (*begin)();  // by each thread before its first block
  void (*end)();    // and after its last
  // c [32, 32] = a b^T, or += with `add`, over `count` steps. a, b: two tiles' worth of rows, `steps` tiles apart. Error
  // as of a float32 sum in some order.
  void (*bf16)(const uint16_t* a, const uint16_t* b, int64_t steps, int64_t count, bool add, float* c);
  // c [32, 32] = sum over i + j < digits of a_i b_j^T 2^(-8 (i + j)), exact but for the rounding of that sum in double.
  // a, b: [2, digits, steps] tiles. Null where the unit has none.
  void (*digits)(const int8_t* a, const int8_t* b, int64_t steps, int64_t digits, double* c);
};

// The unit in use, or null. MEDTRUST_MATRIX=none|avx512bf16|amx forces one; std::runtime_error where it cannot run.
const MatrixKernels* matrix_kernels();

#ifdef MEDTRUST_MATRIX
namespace amx {
extern const MatrixKernels matrix_kernels;
}
namespace avx512bf16 {
extern const MatrixKernels matrix_kernels;
}
#endif

}  // namespace medtrust
