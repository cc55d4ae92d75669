#define MEDTRUST_ISA scalar
#define MEDTRUST_BYTES 16
#include "mmd_row.h"
