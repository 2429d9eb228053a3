/* A cuDNN that compiles nothing: it hands out numbers for descriptors and watches what becomes of
 * them. It has no lock of its own, so that whoever calls it without the device's is seen by a
 * thread sanitizer. */
#ifndef FAKE_CUDNN_H
#define FAKE_CUDNN_H

#include "cudnn.h"

enum { FAKE_MOST = 1 << 15, FAKE_WORKSPACE = 4096 };

struct fake_tensor {
    int64_t uid, dims[4], strides[4];
    int type;
    unsigned char by_value;
};

struct fake_cudnn {
    int made, destroyed;          /* descriptors */
    int wrong;                    /* uses of a descriptor that is not there */
    int compiled;                 /* plans finished */
    int calls;                    /* of what can fail */
    int fail_from, fail_to, code; /* those calls answer `code`; from 1 on */
    unsigned char alive[FAKE_MOST];
    int kind[FAKE_MOST];
    struct fake_tensor tensors[FAKE_MOST];
};

extern struct fake_cudnn fake;
extern const struct cudnn_api fake_api;

/* The tensor of that number in the graph that was built last, or NULL. */
const struct fake_tensor *fake_tensor_of(int64_t uid);

#endif
