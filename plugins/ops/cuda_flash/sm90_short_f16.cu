#define SHORT_BF    false
#define SHORT_TABLE flash_short_f16
#include "sm90_short_table.cuh"
