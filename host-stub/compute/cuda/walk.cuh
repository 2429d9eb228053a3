/* walk.cuh: several tensors walked together, element by element: shapes broadcast, dimensions in
 * the order of the output's memory, neighbours merged where all tensors allow it. */
#ifndef ATTNPLUG_CUDA_WALK_CUH
#define ATTNPLUG_CUDA_WALK_CUH

#include "device.cuh"

#define WALK_TENSORS 5 /* inputs first, the output last */

struct walk {
    void *data[WALK_TENSORS]; /* NULL: an input that is absent */
    int64_t stride[WALK_TENSORS][4];
    int64_t shape[4];
    int32_t type[WALK_TENSORS];
    int32_t n; /* inputs; the output is data[n] */
    int32_t act;
    float alpha, beta;
    const float *scale;
    int64_t packs; /* of a row */
    int64_t total; /* packs in all rows */
};

/* Sets shapes, strides and data of n inputs and the output.  A NULL input is absent. */
void walk_open(struct walk *w, int n, const attn_tensor *const *inputs, const attn_tensor *out);
/* Can rows be moved in packs of PACK?  Then packs and total count those, else elements. */
bool walk_in_packs(struct walk *w);
/* y = x over a walk of one input (elementwise.cu). */
int walk_copy(struct walk *w, void *stream);

#endif
