/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what users ask for, before anything is done about it. */
#ifndef TM_LOGIC_POLICY_H
#define TM_LOGIC_POLICY_H

#include "common/error.h"
#include "logic/model.h"

#define TM_STEP_MIN_LEAST (64 * 1024)
#define TM_STEP_MIN_MOST  ((uint64_t)1 << 50)

#define TM_KEEP_COPIES_MOST 1000
#define TM_KEEP_DAYS_MOST   3650
#define TM_COPY_HOURS_MOST  8760
#define TM_CHECK_DAYS_MOST  365

/*
 * 0, or -EINVAL with the field at fault ("/policy/data/step_percent") and the allowed range in
 * @err.
 */
int tm_policy_check(const struct tm_policy *policy, const char *field_prefix, struct tm_error *err);

/* Block size: 64 KiB..1 GiB, a multiple of 64 KiB. */
int tm_block_size_check(uint64_t bytes, const char *field, struct tm_error *err);

/*
 * An absolute, normalised path without "..", "//" or control characters, shorter than TM_PATH_SIZE.
 */
int tm_path_check(const char *path, const char *field, struct tm_error *err);

/* A name for a new @what ("pool", "volume"): tm_name_valid, or -EINVAL with BAD_NAME. */
int tm_name_check(const char *name, const char *what, const char *field, struct tm_error *err);

#endif
