/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz the recorded state of operations: the first byte says of which, the rest is the text. What
 * is taken has to hold what steps rely on, and to be written as it would be read.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "core/operation.h"
#include "logic/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tm_op *read_state(const struct tm_op_type *type, const char *text)
{
	struct tm_op *op = calloc(1, sizeof(*op));
	struct tm_error err = { 0 };

	assert(op);
	op->type = type;
	if (tm_op_state_parse(op, text, &err) == 0)
		return op;
	assert(err.code == TM_ERR_STORE);
	return tm_op_free(op);
}

static void check_volumes(const struct tm_volume_record *v, size_t n)
{
	struct tm_uuid id;

	for (size_t i = 0; v && i < n; i++) {
		assert(tm_name_valid(v[i].name) && v[i].dev_id <= TM_DEV_ID_NONE);
		assert(tm_uuid_parse(v[i].id.text, &id) == 0);
		assert(!v[i].origin.text[0] || tm_uuid_parse(v[i].origin.text, &id) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	tm_auto_free char *text = NULL, *first = NULL, *second = NULL;
	const struct tm_op_type *type;
	struct tm_op *op;

	if (!size)
		return 0;
	type = tm_op_type(data[0] % TM_CMD_COUNT);
	text = strndup((const char *)data + 1, size - 1);
	assert(type && text);
	op = read_state(type, text);
	if (!op)
		return 0;
	assert(!op->pool.name[0] || tm_name_valid(op->pool.name));
	assert(tm_path_check(op->pool.directory, "", NULL) == 0);
	assert(tm_policy_check(&op->policy, "", NULL) == 0);
	check_volumes(op->items, op->n_items);
	check_volumes(op->before, op->n_items);
	check_volumes(op->volumes, op->n_volumes);
	first = tm_op_state_format(op);
	assert(first);
	(void)tm_op_free(op);

	op = read_state(type, first);
	assert(op);
	second = tm_op_state_format(op);
	assert(second && strcmp(first, second) == 0);
	(void)tm_op_free(op);
	return 0;
}
