// SPDX-License-Identifier: GPL-2.0-or-later
/* Errors as problem documents. */

#include <string.h>

#include "api/problem.h"
#include "common/cleanup.h"
#include "common/utf8.h"

json_t *tm_json_text(const char *text)
{
	json_t *ret = json_string(text);
	tm_auto_free char *copy = NULL;

	if (ret)
		return ret;
	copy = strdup(text);
	if (!copy)
		return NULL;
	tm_utf8_clean(copy);
	return json_string(copy);
}

json_t *tm_problem_to_json(const struct tm_error *err, const char *instance)
{
	json_t *ret, *type;

	type = json_sprintf(TM_PROBLEM_TYPE_PREFIX "%s", tm_error_slug(err->code));
	ret = json_pack("{s:o*, s:s, s:i, s:o*, s:o*, s:o*, s:o}", "type", type, "title",
			tm_error_title(err->code), "status", (int)tm_error_http_status(err->code),
			"detail", err->detail[0] ? tm_json_text(err->detail) : NULL, "field",
			err->field[0] ? tm_json_text(err->field) : NULL, "hint",
			err->hint[0] ? tm_json_text(err->hint) : NULL, "instance",
			tm_json_text(instance));
	return ret;
}
