/* weights.h: what a model is made of: the tensors of one folder or checkpoint by name, and their
 * forms on the device.
 *
 * A model is built by straight code: the first failure sticks, later calls do nothing, and
 * weights_done tells what happened.  Whatever a call makes belongs to the weights and dies with
 * them, in reverse order.  The files stay mapped: a CPU uses fp32 tensors in place.
 *
 * Names are diffusers' state-dict names, given as a printf format.
 */
#ifndef ATTNPLUG_MODEL_WEIGHTS_H
#define ATTNPLUG_MODEL_WEIGHTS_H

#include "layer.h"
#include "lora_set.h"
#include "model_source.h"

#define WEIGHTS_NAMED(format_at) __attribute__((format(printf, (format_at), (format_at) + 1)))

struct weights;

/* The tensors of a source (tensor_set.h says which files).  err is written to until weights_done.
 */
attn_status weights_open(struct compute *c, const struct model_source *source, const char *base,
                         struct weights **out, attn_error *err);
void weights_close(struct weights *w); /* NULL does nothing */

/* For a model that is not needed soon: memory that only mirrors its files goes back to the system,
 * and comes back from them, or from the system's cache of them, when the model runs again.  Any
 * thread, also while the model runs. */
void weights_rest(const struct weights *w);

/* From here on linears and convolutions get the low-rank terms that the files of `loras` (NULL:
 * none) have for their names.  loras outlives the weights. */
void weights_adapt(struct weights *w, struct lora_set *loras, enum lora_component component);

/* From here on convolutions are such as run about once a picture. */
void weights_run_seldom(struct weights *w);

/* Says the first failure.  Otherwise tensors that nobody asked for are told to the log, but for
 * those whose name begins with one of `known` (ends with NULL; may be NULL). */
attn_status weights_done(struct weights *w, const char *const *known);
attn_status weights_status(const struct weights *w);
void weights_fail(struct weights *w, attn_status status, const char *format, ...) WEIGHTS_NAMED(3);

/* A failure whose text the callee already wrote to err. */
void weights_fail_as(struct weights *w, attn_status status);

/* Zeroed memory that lives as long as the weights; NULL after a failure. */
void *weights_alloc(struct weights *w, size_t count, size_t size);
/* The formatted name, kept; NULL after a failure. */
const char *weights_name(struct weights *w, const char *format, ...) WEIGHTS_NAMED(2);
int32_t weights_has(const struct weights *w, const char *format, ...) WEIGHTS_NAMED(2);

/* The shape of a tensor as the file has it; 0 where there is none of that name and rank. */
int32_t weights_shape(const struct weights *w, uint32_t rank, int64_t *shape, const char *format,
                      ...) WEIGHTS_NAMED(4);

/* A tensor of exactly this shape on the device, of the file's own element type (fp32, fp16 or
 * bf16): a CPU uses the file's memory.  Absent after a failure. */
attn_tensor weights_table(struct weights *w, uint32_t rank, const int64_t *shape,
                          const char *format, ...) WEIGHTS_NAMED(4);
/* The same in the compute's own element type. */
attn_tensor weights_tensor(struct weights *w, uint32_t rank, const int64_t *shape,
                           const char *format, ...) WEIGHTS_NAMED(4);
/* <name>.weight [out, in] and, with bias, <name>.bias [out], on the device. */
void weights_linear(struct weights *w, attn_linear *linear, int64_t out, int64_t in, int32_t bias,
                    const char *format, ...) WEIGHTS_NAMED(6);
/* A 1x1 convolution that is used as a linear: <name>.weight is [out, in, 1, 1]. */
void weights_pointwise(struct weights *w, attn_linear *linear, int64_t out, int64_t in,
                       const char *format, ...) WEIGHTS_NAMED(5);
/* <name>.weight and <name>.bias [channels], on the device.  kind: ATTN_NORM_LAYER or _GROUP. */
void weights_norm(struct weights *w, attn_norm *norm, uint32_t kind, int64_t channels,
                  int64_t groups, double eps, const char *format, ...) WEIGHTS_NAMED(7);
/* <name>.weight [out, in, kernel, kernel] and <name>.bias [out], packed.  desc has all but the two
 * tensors. NULL after a failure. */
struct conv *weights_conv(struct weights *w, const struct conv_desc *desc, const char *format, ...)
    WEIGHTS_NAMED(3);
/* One of stride 1 that keeps the size. */
struct conv *weights_conv_same(struct weights *w, int64_t in, int64_t out, int64_t kernel,
                               const char *format, ...) WEIGHTS_NAMED(5);
/* Binds an attention layer; it is unbound with the weights.  NULL after a failure. */
struct layer *weights_layer(struct weights *w, const attn_layer *layer,
                            const attn_layer_spec *spec);

#endif
