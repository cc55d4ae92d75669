// Types of a pixel; medtrust/ops/_check.py has the same codes.
#pragma once

#include <cstdint>

namespace medtrust {

enum class Pixel : int64_t { u8 = 0, u16 = 1, f32 = 2 };

}  // namespace medtrust
