#define SHORT_BF    true
#define SHORT_TABLE flash_short_bf16
#include "sm90_short_table.cuh"
