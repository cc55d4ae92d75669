// Large pages for large results.
#pragma once

#include <cstdint>

namespace medtrust {

// Asks the system to back a buffer that is about to be written in full with its largest pages: a fresh 4-KiB page costs
// a fault each, several times what a kernel takes to fill it. A wish, never an error; small buffers are left alone.
void wish_large_pages(void* buffer, int64_t bytes);

}  // namespace medtrust
