/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Having a holder let go of a device, and giving it back afterwards. A release is planned before
 * anything is done, written down (as JSON, in an operation's record), and only then carried out: so
 * that whatever was taken off is put back also by the next start of thinmgrd.
 *
 *     plan -> to_json -> do  ...  from_json -> undo
 *
 * Several are done in the order of tm_release_order, and undone in that of the holders. All may
 * block, but none for longer than a few times the host's limit. After all were done who holds the
 * devices is to be found out anew: that alone tells whether they are free.
 */
#ifndef TM_HOST_RELEASE_H
#define TM_HOST_RELEASE_H

#include <jansson.h>

#include "common/error.h"
#include "host/holders.h"
#include "host/unit.h"
#include "host/unmount.h"

struct tm_release {
	enum tm_holder_kind kind; /* MOUNT or SWAP */
	struct tm_mount mount;
	struct tm_swap swap;
	struct tm_unit unit; /* stopped and started instead, when it has a name */
};
void tm_release_done(struct tm_release *r);

/*
 * How to have @h let go. Changes nothing. 0 with *ret for tm_release_done. UNSUPPORTED when it is a
 * process or a device, which nothing can give back, or a mount that could not be made again.
 */
int tm_release_plan(const struct tm_holder *h, struct tm_release *ret, struct tm_error *err);

/*
 * In which order to do them: swap before the mounts its files are in, a mount before what it lies
 * in; and the daemon's own namespace before others, where most of what is mounted goes with it,
 * even what is locked there. @ret_order has room for @n numbers of the list.
 */
void tm_release_order(const struct tm_release *list, size_t n, size_t *ret_order);

/* Have it let go. Errors as of tm_unmount, tm_swap_off and tm_unit_stop. May be done again. */
int tm_release_do(const struct tm_release *r, const struct tm_host *host, struct tm_error *err);

/*
 * Give it back; @device as for tm_mount_again (systemd's units have their own). May be done again,
 * and of one that was never done. Units that were stopped with it are started once it is back; when
 * one of those cannot be, that is an error, but the rest is done.
 */
int tm_release_undo(const struct tm_release *r, const char *device, const struct tm_host *host,
		    struct tm_error *err);

/* New reference, or NULL when out of memory. */
json_t *tm_release_to_json(const struct tm_release *r);
/* The reverse, strict. 0 with *ret for tm_release_done, or a negative errno with @err set. */
int tm_release_from_json(json_t *object, const char *prefix, struct tm_release *ret,
			 struct tm_error *err);

#endif
