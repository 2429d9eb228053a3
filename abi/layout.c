/* layout.c: every offset and size of attn_abi.h, asserted for 64-bit targets.
 *
 * A build that compiles this file has the layout that plugins of this draft were built with.  A
 * change here is a change of the contract: raise the draft in ATTN_ABI and say why in ABI.md.
 */
#include "attn_abi.h"

#include <stddef.h>

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)
#define AT(type, field, position)                                                                  \
    _Static_assert(offsetof(type, field) == (position), #type "." #field)

SIZE(attn_error, 24);
AT(attn_error, size, 0);
AT(attn_error, capacity, 4);
AT(attn_error, text, 8);
AT(attn_error, vendor_code, 16);

SIZE(attn_ext, 24);
AT(attn_ext, next, 0);
AT(attn_ext, id, 8);
AT(attn_ext, size, 16);
AT(attn_ext, flags, 20);

SIZE(attn_device, 32);
AT(attn_device, type, 0);
AT(attn_device, id, 4);
AT(attn_device, runtime, 8);

SIZE(attn_tensor, 96);
AT(attn_tensor, data, 0);
AT(attn_tensor, shape, 8);
AT(attn_tensor, stride, 40);
AT(attn_tensor, device_type, 72);
AT(attn_tensor, device_id, 76);
AT(attn_tensor, code, 80);
AT(attn_tensor, bits, 81);
AT(attn_tensor, lanes, 82);
AT(attn_tensor, rank, 84);
AT(attn_tensor, align, 88);
AT(attn_tensor, reserved, 92);

SIZE(attn_param, 48);
AT(attn_param, name, 0);
AT(attn_param, kind, 8);
AT(attn_param, reserved, 12);
AT(attn_param, i, 16);
AT(attn_param, f, 24);
AT(attn_param, text, 32);
AT(attn_param, tensor, 40);

SIZE(attn_head, 240);
AT(attn_head, magic, 0);
AT(attn_head, abi, 4);
AT(attn_head, size, 8);
AT(attn_head, flags, 12);
AT(attn_head, devices, 16);
AT(attn_head, dtypes, 24);
AT(attn_head, id, 32);
AT(attn_head, version, 96);
AT(attn_head, vendor, 112);
AT(attn_head, summary, 144);

SIZE(attn_host, 40);
AT(attn_host, size, 0);
AT(attn_host, max_threads, 4);
AT(attn_host, ctx, 8);
AT(attn_host, log, 16);
AT(attn_host, parallel_for, 24);
AT(attn_host, query, 32);

SIZE(attn_op_call, 928);
AT(attn_op_call, size, 0);
AT(attn_op_call, flags, 4);
AT(attn_op_call, q, 8);
AT(attn_op_call, k, 104);
AT(attn_op_call, v, 200);
AT(attn_op_call, out, 296);
AT(attn_op_call, bias, 392);
AT(attn_op_call, mask, 488);
AT(attn_op_call, lse, 584);
AT(attn_op_call, key_mass, 680);
AT(attn_op_call, probs, 776);
AT(attn_op_call, band_lo, 872);
AT(attn_op_call, band_hi, 880);
AT(attn_op_call, scale, 888);
AT(attn_op_call, reserved, 892);
AT(attn_op_call, stream, 896);
AT(attn_op_call, scratch, 904);
AT(attn_op_call, scratch_bytes, 912);
AT(attn_op_call, ext, 920);

SIZE(attn_op_api, 296);
AT(attn_op_api, head, 0);
AT(attn_op_api, create, 240);
AT(attn_op_api, destroy, 248);
AT(attn_op_api, supports, 256);
AT(attn_op_api, prepare, 264);
AT(attn_op_api, run, 272);
AT(attn_op_api, release, 280);
AT(attn_op_api, query, 288);

SIZE(attn_memory, 48);
AT(attn_memory, size, 0);
AT(attn_memory, reserved, 4);
AT(attn_memory, alloc, 8);
AT(attn_memory, free, 16);
AT(attn_memory, copy_in, 24);
AT(attn_memory, copy_out, 32);
AT(attn_memory, synchronize, 40);

SIZE(attn_param_info, 24);
AT(attn_param_info, name, 0);
AT(attn_param_info, kind, 8);
AT(attn_param_info, flags, 12);
AT(attn_param_info, help, 16);

SIZE(attn_param_list, 16);
AT(attn_param_list, size, 0);
AT(attn_param_list, count, 4);
AT(attn_param_list, params, 8);

SIZE(attn_attend, 48);
AT(attn_attend, size, 0);
AT(attn_attend, reserved, 4);
AT(attn_attend, ctx, 8);
AT(attn_attend, prepare, 16);
AT(attn_attend, run, 24);
AT(attn_attend, release, 32);
AT(attn_attend, sum, 40);

SIZE(attn_term, 208);
AT(attn_term, kind, 0);
AT(attn_term, slot, 4);
AT(attn_term, factor, 8);
AT(attn_term, reserved, 12);
AT(attn_term, down, 16);
AT(attn_term, up, 112);

SIZE(attn_linear, 208);
AT(attn_linear, weight, 0);
AT(attn_linear, bias, 96);
AT(attn_linear, terms, 192);
AT(attn_linear, n_terms, 200);
AT(attn_linear, reserved, 204);

SIZE(attn_norm, 624);
AT(attn_norm, kind, 0);
AT(attn_norm, groups, 4);
AT(attn_norm, eps, 8);
AT(attn_norm, reserved, 12);
AT(attn_norm, weight, 16);
AT(attn_norm, bias, 112);
AT(attn_norm, conv_y, 208);
AT(attn_norm, conv_b, 416);

SIZE(attn_layer, 3184);
AT(attn_layer, size, 0);
AT(attn_layer, flags, 4);
AT(attn_layer, name, 8);
AT(attn_layer, heads, 16);
AT(attn_layer, dim_head, 24);
AT(attn_layer, query_dim, 32);
AT(attn_layer, cross_dim, 40);
AT(attn_layer, scale, 48);
AT(attn_layer, rescale, 52);
AT(attn_layer, to_q, 56);
AT(attn_layer, to_k, 264);
AT(attn_layer, to_v, 472);
AT(attn_layer, to_out, 680);
AT(attn_layer, add_k, 888);
AT(attn_layer, add_v, 1096);
AT(attn_layer, group_norm, 1304);
AT(attn_layer, norm_cross, 1928);
AT(attn_layer, spatial_norm, 2552);
AT(attn_layer, ext, 3176);

SIZE(attn_work, 96);
AT(attn_work, size, 0);
AT(attn_work, flags, 4);
AT(attn_work, status, 8);
AT(attn_work, reserved, 12);
AT(attn_work, host, 16);
AT(attn_work, stream, 24);
AT(attn_work, base, 32);
AT(attn_work, capacity, 40);
AT(attn_work, used, 48);
AT(attn_work, peak, 56);
AT(attn_work, err, 64);
AT(attn_work, scales, 72);
AT(attn_work, n_scales, 80);
AT(attn_work, reserved2, 84);
AT(attn_work, name, 88);

SIZE(attn_layer_call, 912);
AT(attn_layer_call, size, 0);
AT(attn_layer_call, flags, 4);
AT(attn_layer_call, hidden, 8);
AT(attn_layer_call, encoder, 104);
AT(attn_layer_call, out, 200);
AT(attn_layer_call, bias, 296);
AT(attn_layer_call, mask, 392);
AT(attn_layer_call, temb, 488);
AT(attn_layer_call, lse, 584);
AT(attn_layer_call, key_mass, 680);
AT(attn_layer_call, probs, 776);
AT(attn_layer_call, images, 872);
AT(attn_layer_call, n_images, 880);
AT(attn_layer_call, n_params, 884);
AT(attn_layer_call, params, 888);
AT(attn_layer_call, work, 896);
AT(attn_layer_call, ext, 904);

SIZE(attn_processor_api, 304);
AT(attn_processor_api, head, 0);
AT(attn_processor_api, create, 240);
AT(attn_processor_api, destroy, 248);
AT(attn_processor_api, bind, 256);
AT(attn_processor_api, unbind, 264);
AT(attn_processor_api, prepare, 272);
AT(attn_processor_api, run, 280);
AT(attn_processor_api, release, 288);
AT(attn_processor_api, query, 296);

SIZE(attn_compute, 80);
AT(attn_compute, size, 0);
AT(attn_compute, reserved, 4);
AT(attn_compute, ctx, 8);
AT(attn_compute, alloc, 16);
AT(attn_compute, free, 24);
AT(attn_compute, linear, 32);
AT(attn_compute, norm, 40);
AT(attn_compute, attend, 48);
AT(attn_compute, combine, 56);
AT(attn_compute, copy, 64);
AT(attn_compute, fill, 72);
