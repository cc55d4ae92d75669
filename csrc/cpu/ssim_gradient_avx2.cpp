#define MEDTRUST_ISA avx2
#define MEDTRUST_BYTES 32
#include "ssim_gradient_row.h"
