/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets to listen on, and who is at the other end. */
#ifndef TM_API_LISTEN_H
#define TM_API_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/router.h"
#include "common/error.h"

#define TM_GID_NONE ((gid_t)-1)

/* Who may do what. A group that does not exist is TM_GID_NONE. */
struct tm_groups {
	gid_t admin, view;
};

/* Look the groups up by name. A missing one is no error. */
void tm_groups_lookup(const char *admin, const char *view, struct tm_groups *ret);

/*
 * A listening Unix socket at @path: 0660, of the admin group, and by an access-control list open to
 * the view group. (Where the file system has no such lists it is 0666: peers are checked on every
 * connection.) A socket nobody listens on is replaced. The descriptor, or -EADDRINUSE, -EEXIST (not
 * a socket), ...
 */
int tm_listen_unix(const char *path, const struct tm_groups *groups, struct tm_error *err);

/* A listening socket on 127.0.0.1:@port (0: any, *ret_port says which). */
int tm_listen_loopback(uint16_t port, uint16_t *ret_port, struct tm_error *err);

/* What the process at the other end of a Unix socket may do: by its user and all its groups. */
enum tm_permission tm_peer_permission(int fd, const struct tm_groups *groups);

#endif
