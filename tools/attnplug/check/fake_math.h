/* fake_math.h: what the fake compute computes, on tensors that it has checked. */
#ifndef FAKE_MATH_H
#define FAKE_MATH_H

#include "attn_abi.h"

void fake_linear_run(const attn_work *w, float alpha, const attn_tensor *x, const attn_linear *l,
                     float beta, const attn_tensor *c, const attn_tensor *y);
/* x, y [B, N, C] */
void fake_norm_run(const attn_norm *n, const attn_tensor *x, const attn_tensor *y);
/* y [B, C, H, W] = y * conv_y(zq) + conv_b(zq), zq resized to nearest */
void fake_spatial_run(const attn_norm *n, const attn_tensor *zq, const attn_tensor *y);
/* 0 where there is no memory. */
int fake_attend_run(const attn_op_call *c);
/* dst = alpha a + beta b; b NULL: alpha a, broadcast */
void fake_elements_run(float alpha, const attn_tensor *a, float beta, const attn_tensor *b,
                       const attn_tensor *dst);
void fake_fill_run(float value, const attn_tensor *dst);

#endif
