// SPDX-License-Identifier: GPL-2.0-or-later
/* Listening sockets, and the identity of peers. */

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "api/listen.h"
#include "common/cleanup.h"

#define BACKLOG 128

static gid_t group_id(const char *name)
{
	tm_auto_free char *buf = NULL;
	struct group group, *found = NULL;

	/* A group with many members needs room; 1 MiB holds some fifty thousand. */
	for (size_t len = 4096; len <= (1u << 20); len *= 4) {
		char *more = realloc(buf, len);
		int r;

		if (!more)
			return TM_GID_NONE;
		buf = more;
		r = getgrnam_r(name, &group, buf, len, &found);
		if (r == ERANGE)
			continue;
		return r == 0 && found ? group.gr_gid : TM_GID_NONE;
	}
	return TM_GID_NONE;
}

void tm_groups_lookup(const char *admin, const char *view, struct tm_groups *ret)
{
	ret->admin = group_id(admin);
	ret->view = group_id(view);
}

/* Let the view group connect too: connecting needs the right to write. */
static int add_view_group(const char *path, gid_t view)
{
	struct {
		struct posix_acl_xattr_header header;
		struct posix_acl_xattr_entry entries[5];
	} acl = {
		.header.a_version = htole32(POSIX_ACL_XATTR_VERSION),
		.entries = {
			{ htole16(ACL_USER_OBJ), htole16(6), htole32(ACL_UNDEFINED_ID) },
			{ htole16(ACL_GROUP_OBJ), htole16(6), htole32(ACL_UNDEFINED_ID) },
			{ htole16(ACL_GROUP), htole16(6), htole32(view) },
			{ htole16(ACL_MASK), htole16(6), htole32(ACL_UNDEFINED_ID) },
			{ htole16(ACL_OTHER), htole16(0), htole32(ACL_UNDEFINED_ID) },
		},
	};

	if (setxattr(path, "system.posix_acl_access", &acl, sizeof(acl), 0) < 0)
		return -errno;
	return 0;
}

/* 0 when the path is free now; a socket file that nobody answers on is left from a crash. */
static int clear_path(const struct sockaddr_un *address, struct tm_error *err)
{
	tm_auto_close int fd = -1;
	struct stat st;

	if (lstat(address->sun_path, &st) < 0) {
		if (errno == ENOENT)
			return 0;
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot look at %s: %s.",
				    address->sun_path, strerror(errno));
	}
	if (!S_ISSOCK(st.st_mode))
		return tm_error_set(err, TM_ERR_IO, EEXIST, "%s is there and is not a socket.",
				    address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot make a socket: %s.",
				    strerror(errno));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return tm_error_set(err, TM_ERR_IO, EADDRINUSE, "Another process listens on %s.",
				    address->sun_path);
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot remove the old socket %s: %s.",
				    address->sun_path, strerror(errno));
	return 0;
}

int tm_listen_unix(const char *path, const struct tm_groups *groups, struct tm_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	tm_auto_close int fd = -1;
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return tm_error_set(err, TM_ERR_BAD_PATH, ENAMETOOLONG,
				    "The socket's path %s is too long.", path);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	r = clear_path(&address, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot make a socket: %s.",
				    strerror(errno));
	/* The file gets the mode of the descriptor: nobody gets in before owner and mode are right.
	 */
	r = 0;
	if (fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "Cannot listen on %s: %s.", path,
				    strerror(-r));

	if (groups->admin != TM_GID_NONE && chown(path, (uid_t)-1, groups->admin) < 0) {
		r = -errno;
		goto fail;
	}
	if (chmod(path, 0660) < 0) {
		r = -errno;
		goto fail;
	}
	if (groups->view != TM_GID_NONE && add_view_group(path, groups->view) < 0 &&
	    chmod(path, 0666) < 0) {
		r = -errno;
		goto fail;
	}
	if (listen(fd, BACKLOG) < 0) {
		r = -errno;
		goto fail;
	}
	return TM_TAKE_FD(fd);

fail:
	(void)unlink(path);
	return tm_error_set(err, TM_ERR_IO, -r, "Cannot set up the socket %s: %s.", path,
			    strerror(-r));
}

int tm_listen_loopback(uint16_t port, uint16_t *ret_port, struct tm_error *err)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(address);
	tm_auto_close int fd = -1;
	int on = 1;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot listen on 127.0.0.1:%u: %s.",
				    port, strerror(errno));
	*ret_port = ntohs(address.sin_port);
	return TM_TAKE_FD(fd);
}

/* All the groups of the peer; the length of the list is only known by asking. */
static gid_t *peer_groups(int fd, size_t *ret_n)
{
	socklen_t len = 64 * sizeof(gid_t);
	gid_t *groups = NULL;

	*ret_n = 0;
	for (int attempt = 0; attempt < 4; attempt++) {
		gid_t *more = realloc(groups, len);

		if (!more)
			break;
		groups = more;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0) {
			*ret_n = len / sizeof(gid_t);
			return groups;
		}
		if (errno != ERANGE)
			break;
	}
	free(groups);
	return NULL;
}

enum tm_permission tm_peer_permission(int fd, const struct tm_groups *groups)
{
	enum tm_permission permission = TM_PERMIT_NONE;
	tm_auto_free gid_t *list = NULL;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	size_t n;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return TM_PERMIT_NONE;
	if (cred.uid == 0)
		return TM_PERMIT_ADMIN;
	list = peer_groups(fd, &n);
	for (size_t i = 0; i <= n; i++) {
		gid_t gid = i < n ? list[i] : cred.gid;

		if (gid == TM_GID_NONE)
			continue;
		if (gid == groups->admin)
			return TM_PERMIT_ADMIN;
		if (gid == groups->view)
			permission = TM_PERMIT_VIEW;
	}
	return permission;
}
