#define LONG_BF    false
#define BAND_TABLE flash_band_f16
#include "sm90_band_table.cuh"
