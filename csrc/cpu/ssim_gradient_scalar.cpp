#define MEDTRUST_ISA scalar
#define MEDTRUST_BYTES 16
#include "ssim_gradient_row.h"
