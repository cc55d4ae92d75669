// Which instruction set the CPU kernels use: the best one that both the build and the processor have.
#pragma once

namespace medtrust {

enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2 };

// Honours MEDTRUST_CPU=scalar|avx2|avx512; throws std::runtime_error when the forced set cannot run here.
Isa isa();
const char* isa_name(Isa isa);
int max_threads();
int thread_index();  // of the calling thread in its team

}  // namespace medtrust
