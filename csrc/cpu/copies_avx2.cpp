#define MEDTRUST_ISA avx2
#define MEDTRUST_BYTES 32
#include "copies_row.h"
