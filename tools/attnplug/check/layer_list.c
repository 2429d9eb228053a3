#include "check.h"

const struct test layer_tests[] = {
    {0, 0, 0},
};
