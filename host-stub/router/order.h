/* order.h: the measured order that `attnplug bench --tune` writes. */
#ifndef ATTNPLUG_ROUTER_ORDER_H
#define ATTNPLUG_ROUTER_ORDER_H

#include "attn_router.h"

#include <stddef.h>

typedef struct {
    attn_order_row *rows;
    uint32_t n;
} measured_order;

/* Reads the user's file; none, or one that cannot be believed, is an empty order and a log line. */
void order_read(measured_order *order, attn_registry *registry);
void order_free(measured_order *order);

/* The measured time of an op at the measured shape nearest to the call's; 0: nothing near enough
 * was measured.  *row tells which. */
double order_lookup(const measured_order *order, const char *runtime, const char *dtype,
                    const int64_t shape[5], const char *op, const attn_order_row **row);

#endif
