#define MEDTRUST_ISA scalar
#define MEDTRUST_BYTES 16
#include "copies_row.h"
