#define MEDTRUST_ISA avx512
#define MEDTRUST_BYTES 64
#include "ssim_gradient_row.h"
