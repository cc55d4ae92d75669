// Functions that the processor and the device share.
#pragma once

#ifdef __CUDACC__
#define MEDTRUST_BOTH __host__ __device__ inline
#else
#define MEDTRUST_BOTH inline
#endif
