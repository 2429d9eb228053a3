/* witness.c: one pointer to each type of the contract, so that a dump of this file's debug
 * information holds them all. */
#include "attn_abi.h"

struct attn_witness {
    attn_error *error;
    attn_ext *ext;
    attn_device *device;
    attn_tensor *tensor;
    attn_param *param;
    attn_head *head;
    attn_host *host;
    attn_op_call *op_call;
    attn_op_api *op_api;
    attn_memory *memory;
    attn_param_info *param_info;
    attn_param_list *param_list;
    attn_attend *attend;
    attn_term *term;
    attn_linear *linear;
    attn_norm *norm;
    attn_layer *layer;
    attn_work *work;
    attn_layer_call *layer_call;
    attn_processor_api *processor_api;
    attn_compute *compute;
};

__attribute__((visibility("default"))) struct attn_witness attn_witness;
