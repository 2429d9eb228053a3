#define LONG_BF    true
#define BAND_TABLE flash_band_bf16
#include "sm90_band_table.cuh"
