/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "document.h"

const char *cli_string(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

uint64_t cli_uint(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value > 0 ? (uint64_t)value : 0;
}

bool cli_bool(const json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}

json_t *cli_object(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	return json_is_object(value) ? value : NULL;
}

json_t *cli_array(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	return json_is_array(value) ? value : NULL;
}

bool cli_present(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return value && !json_is_null(value);
}
