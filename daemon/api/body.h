/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Request bodies into commands. Everything about form is checked here (types, ranges, names,
 * unknown fields), nothing against the state. Each takes the parsed body, borrowed, and fills *cmd,
 * whose kind it sets and whose pool and volume the caller fills; 0, or -EINVAL (-ENOMEM) with the
 * field at fault.
 */
#ifndef TM_API_BODY_H
#define TM_API_BODY_H

#include <jansson.h>

#include "core/core.h"

#define TM_SNAPSHOTS_MAX 256

int tm_body_pool_create(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_pool_import(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_pool_repair(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_pool_check(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_pool_restore(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_pool_extend(json_t *body, struct tm_command *cmd, struct tm_error *err);
/* @current: what fields keep that the body does not name. */
int tm_body_policy_patch(json_t *body, const struct tm_policy *current, struct tm_command *cmd,
			 struct tm_error *err);
int tm_body_volume_create(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_volume_patch(json_t *body, struct tm_command *cmd, struct tm_error *err);
int tm_body_snapshot_create(json_t *body, struct tm_command *cmd, struct tm_error *err);

#endif
