/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looking into the API's documents. A field that is missing or of another kind
 * reads as empty, so that a newer or older daemon costs a "-" and not a crash.
 * Text comes back as it was sent: print it only through output.h.
 */
#ifndef CLI_DOCUMENT_H
#define CLI_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* All borrowed from @object, which may be NULL. */
const char *cli_string(const json_t *object, const char *name); /* "" when there is none */
uint64_t cli_uint(const json_t *object, const char *name);      /* 0; negative numbers, too */
bool cli_bool(const json_t *object, const char *name);          /* false */
json_t *cli_object(const json_t *object, const char *name);     /* NULL, also for null */
json_t *cli_array(const json_t *object, const char *name);      /* NULL */
/* Whether the field is there and not null. */
bool cli_present(const json_t *object, const char *name);

static inline void cli_json_decrefp(json_t **j)
{
	json_decref(*j);
}
#define cli_auto_json __attribute__((cleanup(cli_json_decrefp)))

#endif
