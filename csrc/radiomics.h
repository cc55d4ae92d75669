// Radiomics of 2-D image planes: first-order statistics and five texture matrices, IBSI definitions.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace medtrust {

enum class Grey : int64_t { u8 = 0, u16 = 1, i16 = 2, f32 = 3 };

enum Family : int64_t {  // bits, in the order of the output columns
  kFirstOrder = 1,
  kCooccurrence = 2,
  kRuns = 4,
  kZones = 8,
  kToneDifference = 16,
  kDependence = 32,
};
constexpr int64_t kFamilySizes[] = {20, 25, 16, 16, 5, 16};
constexpr int64_t kMaxLevels = 256;
constexpr int64_t kMaxSide = 65535;  // run lengths are 16-bit

struct RadiomicsSpec {
  int64_t planes, height, width;     // images: [planes, height, width], contiguous
  int64_t channels;                  // consecutive planes that share a mask
  Grey grey;
  double lo, multiply, divide;       // level = 1 + (x - lo) * multiply / divide, rounded down
  int64_t levels;                    // and clipped to 1..levels
  bool merged;                       // add up the four directions' matrices instead of averaging their features
  int64_t families;                  // bits of Family

  int64_t features() const {
    int64_t sum = 0;
    for (int f = 0; f < 6; ++f) sum += (families >> f & 1) * kFamilySizes[f];
    return sum;
  }
};

static inline void check_sizes(const RadiomicsSpec& spec) {
  if (spec.levels < 1 || spec.levels > kMaxLevels || spec.height < 1 || spec.width < 1 || spec.height > kMaxSide ||
      spec.width > kMaxSide || spec.height * spec.width > (int64_t(1) << 31) - 4 || spec.channels < 1)
    throw std::invalid_argument("radiomics: sizes out of range");
}

enum class RegionState : int64_t { fine = 0, empty = 1, not_finite = 2 };

// inputs:  images [planes, height, width]; mask [planes / channels, height, width] bytes, or null for whole images
// outputs: values [planes, features] float64; states [planes] int64; a plane whose state is not `fine` has no values
void radiomics_cpu(const void* images, const uint8_t* mask, const RadiomicsSpec& spec, double* values, int64_t* states,
                   int threads);

// What the feature formulas read: integer counts alone, so that no order of counting can change a bit.
struct Directions {
  const uint32_t* tables[4];  // [levels + 1, levels + 1] each: pairs (level here, level there); 0 is outside
};
struct RunLengths {
  const uint32_t* tables[4];  // [lengths + 1, levels + 1] each: pixels that are the length-th of their run so far
  int64_t lengths;            // longest run that can occur
};
struct Zone {
  int32_t size, level;
};

// One row of padded levels with its neighbours; [-1] and [width] may be read.
struct LevelRows {
  const uint16_t *above, *here, *below;
  int64_t width;
};
// Lengths so far of the runs to the lower right, down and to the lower left; padded like the levels.
struct RunRows {
  const uint16_t* before[3];  // of the row above
  uint16_t* now[3];
};
enum Join : uint8_t { kNorth = 1, kNorthEast = 2, kWest = 4, kNorthWest = 8 };  // equal neighbours
struct Moments4 {
  double m2, m3, m4, absolute;  // sums of powers and of |x - centre|
};
struct Extremes {
  double sum, squares, lowest, highest;
};

// The loops that are compiled once per instruction set.
struct RadiomicsKernels {
  // Levels of a row and its values as float32, whole or (with a mask) packed; without a mask `values` may be null.
  // Returns whether all were finite.
  bool (*discretise)(const void* pixels, const uint8_t* mask, int64_t width, const RadiomicsSpec& spec,
                     uint16_t* levels, float* values, int64_t* kept);
  // cell = (neighbours inside * 9 + equal neighbours) * (levels + 1) + level; gap = |inside * level - their sum|.
  void (*neighbourhood)(const LevelRows& rows, int64_t stride, uint16_t* cell, uint16_t* gap);
  void (*runs)(const LevelRows& rows, const RunRows& runs);
  void (*joins)(const LevelRows& rows, uint8_t* codes);  // [width] sums of Join
  Extremes (*extremes)(const float* values, int64_t count);
  Moments4 (*moments)(const float* values, int64_t count, double centre);
  double (*absolute)(const float* values, int64_t count, double centre);
  // Count, sum and sum of |x - centre| of the values within [low, high].
  void (*inner)(const float* values, int64_t count, double low, double high, double centre, double* out);
  bool (*whole)(const float* values, int64_t count);  // all integers; magnitudes below 2^31
  void (*bin)(const float* values, int64_t count, double lowest, double scale, uint16_t* bins);
};
namespace scalar {
extern const RadiomicsKernels radiomics_kernels;
}
namespace avx2 {
extern const RadiomicsKernels radiomics_kernels;
}
namespace avx512 {
extern const RadiomicsKernels radiomics_kernels;
}

// csrc/cpu/radiomics_features.cpp: counts in, features out.
void histogram_features(const uint32_t* levels_count, int64_t levels, double* entropy, double* uniformity);
void cooccurrence_features(const Directions& pairs, const uint32_t* levels_count, int64_t levels, bool merged,
                           double* out);
void run_features(const RunLengths& runs, int64_t levels, int64_t pixels, bool merged, double* out);
void zone_features(Zone* zones, int64_t count, int64_t levels, int64_t pixels, double* out);  // sorts the zones
// gaps: [9, levels + 1] sums of gap by neighbours inside and level; counts the pixels likewise.
void tone_difference_features(const uint64_t* gaps, const uint64_t* counts, int64_t levels, double* out);
void dependence_features(const uint64_t* counts, int64_t levels, int64_t pixels, double* out);  // [9, levels + 1]

}  // namespace medtrust
