#include "../pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace medtrust {

#if defined(__linux__) && defined(MADV_HUGEPAGE)
void wish_large_pages(void* buffer, int64_t bytes) {
  constexpr uintptr_t kLarge = uintptr_t(1) << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(buffer) + kLarge - 1) & ~(kLarge - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(buffer) + uintptr_t(bytes)) & ~(kLarge - 1);
  if (buffer != nullptr && last >= first + 2 * kLarge) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}
#else
void wish_large_pages(void*, int64_t) {}
#endif

}  // namespace medtrust
