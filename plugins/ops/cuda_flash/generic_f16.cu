#define GENERIC_BF    false
#define GENERIC_TABLE flash_generic_f16
#define SECOND_TABLE  flash_second_f16
#include "generic_table.cuh"
