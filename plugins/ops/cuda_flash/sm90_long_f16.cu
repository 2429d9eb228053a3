#define LONG_BF    false
#define LONG_TABLE flash_long_f16
#define MASS_TABLE flash_mass_f16
#include "sm90_long_table.cuh"
