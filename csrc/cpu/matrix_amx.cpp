// Products on the tile registers: 0-3 hold the block, 4 and 5 two left tiles, 6 and 7 two right ones.
#include <immintrin.h>

#include "../matrix.h"

namespace medtrust::amx {
namespace {

struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

void begin() {
  Config config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = kTileBytes, config.rows[i] = kTile;
  asm volatile("" : : "r"(&config) : "memory");  // gcc's intrinsic names only the first bytes as its input
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

void zero() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

constexpr int64_t kRow = kPair * 4;  // bytes of a block's row

void restore(const void* block) {
  const char* const c = static_cast<const char*>(block);
  _tile_loadd(0, c, kRow);
  _tile_loadd(1, c + kTileBytes, kRow);
  _tile_loadd(2, c + kTile * kRow, kRow);
  _tile_loadd(3, c + kTile * kRow + kTileBytes, kRow);
}

void store(void* block) {
  char* const c = static_cast<char*>(block);
  _tile_stored(0, c, kRow);
  _tile_stored(1, c + kTileBytes, kRow);
  _tile_stored(2, c + kTile * kRow, kRow);
  _tile_stored(3, c + kTile * kRow + kTileBytes, kRow);
}

constexpr int64_t kBytes = kTile * kTileBytes;  // of a tile

void load(const char* a, const char* b, int64_t second_a, int64_t second_b) {
  _tile_loadd(4, a, kTileBytes);
  _tile_loadd(5, a + second_a, kTileBytes);
  _tile_loadd(6, b, kTileBytes);
  _tile_loadd(7, b + second_b, kTileBytes);
}

void bf16(const uint16_t* left, const uint16_t* right, int64_t steps, int64_t count, bool add, float* c) {
  const char* a = reinterpret_cast<const char*>(left);
  const char* b = reinterpret_cast<const char*>(right);
  if (add) {
    restore(c);
  } else {
    zero();
  }
  for (int64_t s = 0; s < count; ++s) {
    load(a + s * kBytes, b + s * kBytes, steps * kBytes, steps * kBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  store(c);
}

void digits(const int8_t* left, const int8_t* right, int64_t steps, int64_t digits, double* c) {
  const char* const a = reinterpret_cast<const char*>(left);
  const char* const b = reinterpret_cast<const char*>(right);
  alignas(64) int32_t sums[kPair * kPair];
  for (int64_t i = 0; i < kPair * kPair; ++i) c[i] = 0;
  const int64_t second = digits * steps * kBytes;
  for (int64_t level = digits - 1; level >= 0; --level) {  // the small ones first
    const double weight = 1.0 / double(int64_t(1) << (8 * level));
    // |digit| <= 128: so many steps of 64 products for each of level + 1 pairs stay within int32.
    const int64_t limit = (int64_t(1) << 31) / (64 * 128 * 128 * (level + 1)) - 1;
    for (int64_t first = 0; first < steps; first += limit) {
      const int64_t last = first + limit < steps ? first + limit : steps;
      zero();
      for (int64_t i = 0; i <= level; ++i)
        for (int64_t s = first; s < last; ++s) {
          load(a + (i * steps + s) * kBytes, b + ((level - i) * steps + s) * kBytes, second, second);
          _tile_dpbssd(0, 4, 6);
          _tile_dpbssd(1, 4, 7);
          _tile_dpbssd(2, 5, 6);
          _tile_dpbssd(3, 5, 7);
        }
      store(sums);
      for (int64_t i = 0; i < kPair * kPair; ++i) c[i] += weight * double(sums[i]);
    }
  }
}

}  // namespace

const MatrixKernels matrix_kernels = {"amx", begin, end, bf16, digits};

}  // namespace medtrust::amx
