#define MEDTRUST_ISA avx512
#define MEDTRUST_BYTES 64
#include "copies_row.h"
