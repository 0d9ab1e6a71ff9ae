/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The documents of api/openapi.yaml, made from views and records. Each returns a new reference, or
 * NULL when there is no memory.
 */
#ifndef TM_API_ENCODE_H
#define TM_API_ENCODE_H

#include <jansson.h>

#include "backing/copies.h"
#include "core/view.h"
#include "store/store.h"

json_t *tm_encode_system(const struct tm_view *view);
json_t *tm_encode_pool(const struct tm_pool_view *pool);
json_t *tm_encode_pool_policy(const struct tm_pool_view *pool);
json_t *tm_encode_volume(const struct tm_pool_view *pool, const struct tm_volume_view *volume);
json_t *tm_encode_operation(const struct tm_operation_record *op);
json_t *tm_encode_event(const struct tm_event *event);
json_t *tm_encode_copy(const struct tm_copy *copy);
json_t *tm_encode_sample(const struct tm_sample *sample);

/* {"items": @items (taken), "next": @next or null} */
json_t *tm_encode_list(json_t *items, const char *next);

/* Bytes and counts: what does not fit in 63 bits becomes the largest that does. */
json_t *tm_encode_uint(uint64_t value);
/* null for 0. */
json_t *tm_encode_time(uint64_t realtime_usec);
/* null for "". */
json_t *tm_encode_text(const char *text);

#endif
