/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mount, as it was found: all that is needed to unmount it, and to mount it again even after
 * thinmgrd was started anew in between (as JSON, it goes into an operation's record).
 */
#ifndef TM_HOST_MOUNT_H
#define TM_HOST_MOUNT_H

#include <jansson.h>
#include <sys/types.h>

#include "common/error.h"
#include "logic/mountinfo.h"

struct tm_mount {
	struct tm_mount_line line; /* the point is as seen from the root of its namespace */
	char *buffer;              /* that line's text */
	uint64_t ns;               /* inode number of its mount namespace */
	bool here;                 /* which is the daemon's own */
	pid_t pid;                 /* a process or thread in the namespace */
	uint64_t seen_ticks;       /* when it was found: clock ticks since the boot */
	char boot[37];             /* which boot; "" when the kernel does not tell */
};

/*
 * Set @m's line to a copy of @line, its point below @base ("/" for none). The rest of @m is left as
 * it is. 0 or -ENOMEM.
 */
int tm_mount_set_line(struct tm_mount *m, const struct tm_mount_line *line, const char *base);
/* 0 or -ENOMEM with *ret untouched. */
int tm_mount_copy(const struct tm_mount *m, struct tm_mount *ret);
/* Frees what it owns; all zero is fine. */
void tm_mount_done(struct tm_mount *m);

/* New reference, or NULL when out of memory. Paths are escaped as in mountinfo. */
json_t *tm_mount_to_json(const struct tm_mount *m);
/* The reverse, strict. @prefix as for tm_json_reader_init. 0 or a negative errno with @err set. */
int tm_mount_from_json(json_t *object, const char *prefix, struct tm_mount *ret,
		       struct tm_error *err);

#endif
