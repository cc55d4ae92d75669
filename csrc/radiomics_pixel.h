// What is done to each pixel of a region, on the processor and on the device. In an unnamed namespace, as vec.h says.
#pragma once

#include "both.h"
#include "radiomics.h"

namespace medtrust {
namespace {

// Values above 3.4028235e38 in magnitude are infinities in float32; a NaN fails every comparison.
template <typename T>
MEDTRUST_BOTH bool usable(T x) {
  return (x <= T(3.4028234663852886e38)) & (x >= T(-3.4028234663852886e38));
}
MEDTRUST_BOTH bool usable(uint8_t) { return true; }
MEDTRUST_BOTH bool usable(uint16_t) { return true; }
MEDTRUST_BOTH bool usable(int16_t) { return true; }

// Level 1..top + 1 of an intensity.
MEDTRUST_BOTH uint16_t grey_level(double x, double lo, double multiply, double divide, double top) {
  double t = (x - lo) * multiply / divide;
  t = t > 0 ? t : 0;
  t = t < top ? t : top;
  return uint16_t(int32_t(t) + 1);
}

}  // namespace
}  // namespace medtrust
