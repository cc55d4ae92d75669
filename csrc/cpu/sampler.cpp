// Splits the elements of the sampler ops between threads; every element is computed alone, so the split changes no bit.
#include "../sampler.h"

#include <stdexcept>
#include <string>

#include "../isa.h"
#include "../pages.h"

namespace medtrust {
namespace {

constexpr int64_t kShare = 1 << 15;  // elements handed to a thread at a time

const SamplerKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::sampler_kernels;
    case Isa::avx2: return avx2::sampler_kernels;
    default: break;
  }
#endif
  return scalar::sampler_kernels;
}

template <typename Work>
void share(int64_t count, int threads, const Work& work) {
  const int64_t shares = (count + kShare - 1) / kShare;
  if (threads < 1) threads = 1;
  if (threads > shares) threads = int(shares);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < shares; ++i) {
    const int64_t begin = i * kShare, end = begin + kShare;
    work(begin, end < count ? end : count);
  }
}

}  // namespace

void philox_cpu(Noise kind, const NoiseSource& source, int64_t count, void* out, int threads) {
  const SamplerKernels& use = kernels();
  wish_large_pages(out, count * 4);
  share(count, threads, [&](int64_t begin, int64_t end) { use.noise(kind, source, begin, end, out); });
}

void sampler_step_cpu(const SamplerSpec& spec, const SamplerBuffers& buffers, int threads) {
  const int64_t index = *buffers.row;
  if (index < 0 || index >= spec.rows)
    throw std::invalid_argument("row " + std::to_string(index) + " of a schedule with " + std::to_string(spec.rows));
  const float* r = buffers.table + index * kRowSize;
  const SamplerRow row{r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]};
  if (row.cm != 0 && buffers.memory == nullptr)
    throw std::invalid_argument("row " + std::to_string(index) + " needs the memory that the row before returned");
  const SamplerKernels& use = kernels();
  wish_large_pages(buffers.next, spec.count * (spec.quantise ? 1 : 4));
  if (spec.keep != Keep::nothing) wish_large_pages(buffers.kept, spec.count * 4);
  share(spec.count, threads,
        [&](int64_t begin, int64_t end) { use.step(spec, buffers, row, index, begin, end); });
}

void reparameterise_cpu(const float* mean, const float* log_variance, const NoiseSource& source, int64_t count,
                        float* out, int threads) {
  const SamplerKernels& use = kernels();
  wish_large_pages(out, count * 4);
  share(count, threads,
        [&](int64_t begin, int64_t end) { use.reparameterise(mean, log_variance, source, begin, end, out); });
}

}  // namespace medtrust
