/* elements.c: elements of every type as doubles. */
#include "half.h"
#include "opapi.h"

#include <string.h>

double element_get(const char *at, int32_t type)
{
    float f;
    uint16_t h;
    switch (type) {
    case ACL_FLOAT:
        memcpy(&f, at, sizeof f);
        return (double)f;
    case ACL_FLOAT16:
        memcpy(&h, at, sizeof h);
        return (double)fp16_to_float(h);
    case ACL_BF16:
        memcpy(&h, at, sizeof h);
        return (double)bf16_to_float(h);
    default:
        return (double)*(const unsigned char *)at;
    }
}

void element_set(char *at, int32_t type, double value)
{
    float f = (float)value;
    uint16_t h;
    switch (type) {
    case ACL_FLOAT:
        memcpy(at, &f, sizeof f);
        return;
    case ACL_FLOAT16:
        h = fp16_from_float(f);
        memcpy(at, &h, sizeof h);
        return;
    case ACL_BF16:
        h = bf16_from_float(f);
        memcpy(at, &h, sizeof h);
        return;
    default:
        *(unsigned char *)at = value != 0.0;
    }
}
