// Radiomics of image planes on the device.
#pragma once

#include <cstdint>

#include "radiomics.h"

namespace medtrust {

// Inputs and outputs as radiomics_cpu has them, on the device; the stream is a cudaStream_t.
// scratch: [planes, radiomics_cuda_scratch(spec)] bytes on the device, aligned to 8
int64_t radiomics_cuda_scratch(const RadiomicsSpec& spec);
void radiomics_cuda(const void* images, const uint8_t* mask, const RadiomicsSpec& spec, void* scratch, double* values,
                    int64_t* states, void* stream);

}  // namespace medtrust
