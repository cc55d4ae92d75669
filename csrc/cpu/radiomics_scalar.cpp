#define MEDTRUST_ISA scalar
#define MEDTRUST_BYTES 16
#include "radiomics_row.h"
