#define LONG_BF    true
#define LONG_TABLE flash_long_bf16
#define MASS_TABLE flash_mass_bf16
#include "sm90_long_table.cuh"
