/* ip_adapter.h: an IP-Adapter's file: the projection that turns what an image encoder sees into
 * tokens, and the keys and values that cross-attention layers make of them (diffusers v0.26.3,
 * loaders/unet.py and models/embeddings.py).
 *
 * Three kinds: plain (ImageProjection of image_embeds: some tokens), full
 * (IPAdapterFullImageProjection of hidden states: a token each) and Plus
 * (IPAdapterPlusImageProjection, a resampler of hidden states: some tokens). */
#ifndef ATTNPLUG_MODEL_IP_ADAPTER_H
#define ATTNPLUG_MODEL_IP_ADAPTER_H

#include "layer.h"

struct ip_adapter;

/* A .safetensors file with the names of the first publication (image_proj.*, ip_adapter.N.*).
 * Pickles are refused as pickle.h says. */
attn_status ip_adapter_open(struct compute *c, const char *path, const char *op,
                            struct ip_adapter **out, attn_error *err);
void ip_adapter_close(struct ip_adapter *a); /* NULL does nothing; after the layers are unbound */

const char *ip_adapter_path(const struct ip_adapter *a);
/* Whether it reads hidden states [tokens, width]; else image_embeds [width]. */
int32_t ip_adapter_wants_states(const struct ip_adapter *a);
int64_t ip_adapter_width(const struct ip_adapter *a); /* of what it reads */
int64_t ip_adapter_cross(const struct ip_adapter *a); /* of the tokens that it gives */
/* Tokens of one picture that was seen as `seen` hidden states (1: image_embeds). */
int64_t ip_adapter_tokens(const struct ip_adapter *a, int64_t seen);

/* The weights for the model's cross-attention layer `index`, in diffusers' order: at the device, as
 * long as the adapter.  ATTN_UNSUPPORTED where it has fewer layers. */
attn_status ip_adapter_layer(const struct ip_adapter *a, uint32_t index, const char *layer,
                             const attn_tensor **to_k, const attn_tensor **to_v, attn_error *err);
/* After the model was built, whose cross-attention layers are `layers`: those of the adapter too.
 */
attn_status ip_adapter_check(const struct ip_adapter *a, uint32_t layers, attn_error *err);
/* The model's prompt embeddings are `cross` wide: ATTN_UNSUPPORTED names the families where the
 * adapter was made for others. */
attn_status ip_adapter_family(const struct ip_adapter *a, int64_t cross, attn_error *err);

/* seen [batch, seen tokens, width] of the host; out [batch, tokens, cross]. One run at a time. */
attn_status ip_adapter_project(struct ip_adapter *a, int64_t batch, int64_t seen, const float *in,
                               float *out, attn_error *err);

#endif
