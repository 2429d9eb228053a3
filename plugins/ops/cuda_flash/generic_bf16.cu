#define GENERIC_BF    true
#define GENERIC_TABLE flash_generic_bf16
#define SECOND_TABLE  flash_second_bf16
#include "generic_table.cuh"
