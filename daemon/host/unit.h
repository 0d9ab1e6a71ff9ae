/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounts and swap that systemd has units for: stopped and started there, so that it agrees to what
 * is mounted. Blocks; opens a connection of its own to the system bus for each call.
 */
#ifndef TM_HOST_UNIT_H
#define TM_HOST_UNIT_H

#include <stddef.h>

#include "common/error.h"

#define TM_UNIT_NAME_SIZE 256
#define TM_UNIT_MORE_MAX  64

/* A unit, and the active ones that systemd stops with it, because they require it. */
struct tm_unit {
	char name[TM_UNIT_NAME_SIZE]; /* "": there is none */
	char (*more)[TM_UNIT_NAME_SIZE];
	size_t n_more;
};
void tm_unit_done(struct tm_unit *u);

/*
 * The active unit for a mount point or swap device or file, @suffix ".mount" or ".swap". Only one
 * that has a file (from /etc/fstab, say): systemd knows any other only for as long as it is active.
 * None either where stopping it would stop thinmgrd itself, or more than TM_UNIT_MORE_MAX others,
 * and where systemd does not answer. 1 with *ret, 0 when there is none, -ENOMEM.
 */
int tm_unit_find(const char *path, const char *suffix, struct tm_unit *ret);

/*
 * Stop or start a unit, and wait for it, at most @limit_seconds; then its job is cancelled. Errors:
 * TIMEOUT; BUSY (stopping) or IO (starting) when systemd says that it failed, IO also when systemd
 * cannot be asked.
 */
int tm_unit_stop(const char *name, unsigned int limit_seconds, struct tm_error *err);
int tm_unit_start(const char *name, unsigned int limit_seconds, struct tm_error *err);

#endif
