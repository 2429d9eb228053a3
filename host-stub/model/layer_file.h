/* layer_file.h: one attention layer with its inputs, stored as a .safetensors file.
 *
 *   attn.<name>              weights, by diffusers' state-dict names
 *   attn.processor.<name>    a processor's own: its parameters
 *   hidden_states            [B, N, C] or [B, C, height, width]
 *   encoder_hidden_states    [B, M, C'], optional
 *   ip_hidden_states.<i>     [B, tokens, C'] or [B, images, tokens, C'], from 0 without gaps
 *   attention_mask, temb     as Attention.forward takes them, optional
 *   metadata "config"        JSON object: the arguments of Attention's constructor
 */
#ifndef ATTNPLUG_MODEL_LAYER_FILE_H
#define ATTNPLUG_MODEL_LAYER_FILE_H

#include "error.h"

enum { LAYER_FILE_IMAGES = 16 };

/* All memory belongs to the file; tensors are contiguous fp32 on the host, widened where the file
 * has fp16 or bf16. */
struct layer_file {
    attn_layer layer;
    attn_param *params; /* n_params: of attn.processor., without that prefix; a single number is a
                           FLOAT, all else a TENSOR */
    uint32_t n_params;
    uint32_t n_images;
    attn_tensor hidden, encoder, mask, temb; /* absent: rank 0 */
    attn_tensor images[LAYER_FILE_IMAGES];   /* [B, images, tokens, C'] */
    attn_tensor expected;                    /* "out", where a file has it */
    struct layer_memory *memory;
};

/* INVALID names the file and the tensor; a tensor that nothing of the above takes is one too. */
attn_status layer_file_open(const char *path, struct layer_file **out, attn_error *err);
void layer_file_close(struct layer_file *file); /* NULL does nothing */

/* How many keys the layer's own attention has: what a bias is made for. processor: its short name
 * ("added_kv" puts the encoder's tokens before the hidden states', "ip_adapter" without images
 * takes `image_tokens` of the encoder's last). */
int64_t layer_file_keys(const struct layer_file *file, const char *processor, int64_t image_tokens);

#endif
