/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel with one thin pool, for tests of what the core makes of its answers: all of dm/dm.h.
 * Include it in one file of a program: because everything of dm.h is defined here, the linker takes
 * none of the real one.
 */
#ifndef TM_TESTS_FAKE_DM_H
#define TM_TESTS_FAKE_DM_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "dm/dm.h"
#include "logic/thin-status.h"

#define FAKE_BLOCK_SECTORS 128

struct fake_kernel {
	pthread_mutex_t lock;
	char pool[TM_NAME_MAX + 1];
	struct tm_uuid id;
	/* of the live table */
	struct tm_thin_pool_status status;
	uint64_t mark_blocks;
	bool gone;
	unsigned int version; /* of the target: 1.this.0; 0: it is not registered */
	/* a volume, which is only there to be held open */
	const char *volume; /* its name; NULL: there is none */
	struct tm_uuid volume_id;
	int volume_open;
	/* what it does */
	bool refuses;       /* a resume succeeds and nothing grows */
	int load_error;     /* errno of loading a table; 0: none */
	int grow_error;     /* errno of the message; 0: none */
	uint64_t more_meta; /* blocks that lie below and the next resume takes */
	const char
		*events; /* what it answers when asked for them; NULL: it knows no such message */
	void (*before_load)(void *userdata); /* called with the lock held */
	void *userdata;
	/* what was asked of it */
	bool loaded;
	struct tm_thin_pool_table table;
	uint64_t table_blocks;
	unsigned int n_status, n_loads, n_resumes, n_grown, n_asked;
	uint64_t since; /* asked for last */
};

static struct fake_kernel kernel = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* "_pool", "_data", "_meta" for a device of the pool, NULL for others. */
static inline const char *fake_role(const char *name)
{
	const size_t len = strlen(kernel.pool);

	if (kernel.gone || strncmp(name, kernel.pool, len) != 0 || name[len] != ':')
		return NULL;
	name += len + 1;
	return strcmp(name, "_pool") == 0 || strcmp(name, "_data") == 0 ||
			       strcmp(name, "_meta") == 0
		       ? name
		       : NULL;
}

static inline int fake_refuse(const char *what, int errnum, struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_KERNEL, errnum, "%s was refused: %s.", what,
			    strerror(errnum));
}

int tm_dm_info(struct tm_dm *dm, const char *name, struct tm_dm_info *ret, struct tm_error *err)
{
	const char *role, *colon = strchr(name, ':');

	(void)dm, (void)err;
	TM_LOCK_SCOPE(&kernel.lock);
	role = fake_role(name);
	*ret = (struct tm_dm_info){ 0 };
	if (kernel.volume && colon && strcmp(colon + 1, kernel.volume) == 0) {
		ret->exists = ret->live_table = true;
		ret->major = 254;
		ret->minor = 3;
		ret->open_count = kernel.volume_open;
		tm_dm_uuid(ret->uuid, TM_ROLE_VOLUME, &kernel.id, &kernel.volume_id);
		return 0;
	}
	if (!role)
		return 0;
	ret->exists = ret->live_table = true;
	ret->major = 254;
	ret->minor = strcmp(role, "_meta") == 0 ? 0 : strcmp(role, "_data") == 0 ? 1 : 2;
	tm_dm_uuid(ret->uuid,
		   ret->minor == 0   ? TM_ROLE_META
		   : ret->minor == 1 ? TM_ROLE_DATA
				     : TM_ROLE_POOL,
		   &kernel.id, NULL);
	return 0;
}

int tm_dm_line(struct tm_dm *dm, const char *name, bool table, char *type, size_t type_len,
	       uint64_t *ret_length_sectors, char *params, size_t params_len, struct tm_error *err)
{
	const struct tm_thin_pool_status *s = &kernel.status;
	const char *role;

	(void)dm;
	TM_LOCK_SCOPE(&kernel.lock);
	role = fake_role(name);
	if (!role)
		return fake_refuse("status", ENXIO, err);
	if (table || strcmp(role, "_pool") != 0)
		return fake_refuse("table", EINVAL, err);
	kernel.n_status++;
	if (type)
		(void)snprintf(type, type_len, "thin-pool");
	if (ret_length_sectors)
		*ret_length_sectors = s->data_total * FAKE_BLOCK_SECTORS;
	if (s->failed)
		(void)snprintf(params, params_len, "Fail");
	else
		(void)snprintf(params, params_len,
			       "%" PRIu64 " %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64
			       " - %s no_discard_passdown %s_if_no_space %s %" PRIu64,
			       s->transaction_id, s->metadata_used, s->metadata_total, s->data_used,
			       s->data_total,
			       s->mode == TM_MODE_WRITE               ? "rw"
			       : s->mode == TM_MODE_OUT_OF_DATA_SPACE ? "out_of_data_space"
								      : "ro",
			       s->error_if_no_space ? "error" : "queue",
			       s->needs_check ? "needs_check" : "-", s->metadata_low_water);
	return 0;
}

int tm_dm_load(struct tm_dm *dm, const char *name, const struct tm_dm_target *targets, size_t n,
	       bool read_only, struct tm_error *err)
{
	const char *role;

	(void)dm, (void)read_only;
	TM_LOCK_SCOPE(&kernel.lock);
	role = fake_role(name);
	if (!role || strcmp(role, "_pool") != 0 || n != 1)
		return fake_refuse("load", ENXIO, err);
	kernel.n_loads++;
	if (kernel.before_load)
		kernel.before_load(kernel.userdata);
	if (kernel.load_error)
		return fake_refuse("load", kernel.load_error, err);
	if (tm_thin_pool_table_parse(targets[0].params, &kernel.table) < 0)
		return fake_refuse("load", EINVAL, err);
	kernel.table_blocks = targets[0].length_sectors / FAKE_BLOCK_SECTORS;
	kernel.loaded = true;
	return 0;
}

int tm_dm_resume(struct tm_dm *dm, const char *name, unsigned int flags, enum tm_dm_udev udev,
		 struct tm_error *err)
{
	const char *role;

	(void)dm, (void)flags, (void)udev;
	TM_LOCK_SCOPE(&kernel.lock);
	role = fake_role(name);
	if (!role || strcmp(role, "_pool") != 0)
		return fake_refuse("resume", ENXIO, err);
	kernel.n_resumes++;
	if (kernel.loaded && !kernel.refuses) {
		kernel.status.data_total = kernel.table_blocks;
		kernel.status.metadata_total += kernel.more_meta;
		kernel.more_meta = 0;
		kernel.mark_blocks = kernel.table.low_water_blocks;
		if (kernel.status.mode == TM_MODE_OUT_OF_DATA_SPACE)
			kernel.status.mode = TM_MODE_WRITE;
	}
	kernel.loaded = false;
	return 0;
}

/* Of our own target; never before it grew. */
int tm_dm_message(struct tm_dm *dm, const char *name, const char *message, struct tm_error *err)
{
	uint64_t blocks;

	(void)dm;
	TM_LOCK_SCOPE(&kernel.lock);
	if (!fake_role(name))
		return fake_refuse("message", EPERM, err);
	if (!kernel.events)
		return fake_refuse("message", EINVAL, err);
	if (sscanf(message, "grow_data %" SCNu64, &blocks) == 1) {
		if (kernel.grow_error)
			return fake_refuse("message", kernel.grow_error, err);
		kernel.status.data_total = blocks;
		if (kernel.status.mode == TM_MODE_OUT_OF_DATA_SPACE)
			kernel.status.mode = TM_MODE_WRITE;
		kernel.n_grown++;
	} else if (sscanf(message, "set_low_water %" SCNu64, &blocks) == 1) {
		kernel.mark_blocks = blocks;
	} else {
		return fake_refuse("message", EINVAL, err);
	}
	return 0;
}

int tm_dm_ask(struct tm_dm *dm, const char *name, const char *message, char **ret,
	      struct tm_error *err)
{
	(void)dm;
	TM_LOCK_SCOPE(&kernel.lock);
	*ret = NULL;
	if (!fake_role(name) || sscanf(message, "events %" SCNu64, &kernel.since) != 1)
		return fake_refuse("message", EPERM, err);
	kernel.n_asked++;
	if (!kernel.events)
		return fake_refuse("message", EINVAL, err);
	*ret = strdup(kernel.events);
	return *ret ? 0 : fake_refuse("message", ENOMEM, err);
}

/* ---- what nobody should ask for here --------------------------------------------------------- */

int tm_dm_new(struct tm_dm **ret, struct tm_error *err)
{
	*ret = NULL;
	return fake_refuse("device-mapper", ENXIO, err);
}

struct tm_dm *tm_dm_free(struct tm_dm *dm)
{
	(void)dm;
	return NULL;
}

int tm_dm_create(struct tm_dm *dm, const char *name, const char *uuid, enum tm_dm_udev udev,
		 struct tm_error *err)
{
	(void)dm, (void)name, (void)uuid, (void)udev;
	return fake_refuse("create", EPERM, err);
}

int tm_dm_clear(struct tm_dm *dm, const char *name, struct tm_error *err)
{
	(void)dm, (void)name;
	return fake_refuse("clear", EPERM, err);
}

int tm_dm_suspend(struct tm_dm *dm, const char *name, unsigned int flags, struct tm_error *err)
{
	(void)dm, (void)name, (void)flags;
	return fake_refuse("suspend", EPERM, err);
}

int tm_dm_remove(struct tm_dm *dm, const char *name, enum tm_dm_udev udev, unsigned int wait_ms,
		 struct tm_error *err)
{
	(void)dm, (void)name, (void)udev, (void)wait_ms;
	return fake_refuse("remove", EPERM, err);
}

int tm_dm_rename(struct tm_dm *dm, const char *from, const char *to, struct tm_error *err)
{
	(void)dm, (void)from, (void)to;
	return fake_refuse("rename", EPERM, err);
}

int tm_dm_list(struct tm_dm *dm, struct tm_dm_entry **ret, size_t *ret_n, struct tm_error *err)
{
	(void)dm;
	*ret = NULL;
	*ret_n = 0;
	return fake_refuse("list", EPERM, err);
}

int tm_dm_target_version(struct tm_dm *dm, const char *target, unsigned int ret_version[3],
			 struct tm_error *err)
{
	(void)dm;
	TM_LOCK_SCOPE(&kernel.lock);
	if (strcmp(target, "thin-pool") != 0 || !kernel.version)
		return fake_refuse("version", ENOENT, err);
	ret_version[0] = 1;
	ret_version[1] = kernel.version;
	ret_version[2] = 0;
	return 0;
}

int tm_dm_poll_fd(struct tm_dm *dm)
{
	(void)dm;
	return -1;
}

int tm_dm_poll_arm(struct tm_dm *dm, struct tm_error *err)
{
	(void)dm;
	return fake_refuse("poll", EPERM, err);
}

#endif
