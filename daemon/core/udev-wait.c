/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting for udev, with a limit. device-mapper's own cookies wait for ever when udev is
 * not there; the link itself says the same and can be watched.
 */

#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"

static bool leads_to(const char *path, unsigned int major, unsigned int minor)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == makedev(major, minor);
}

static bool gone(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 && errno == ENOENT;
}

/* Watch the nearest directories above @path that exist: the link's own may yet have to be made. */
static int watch_above(int fd, const char *path)
{
	char copy[TM_PATH_SIZE];
	char *slash;
	int watched = 0;

	(void)snprintf(copy, sizeof(copy), "%s", path);
	while ((slash = strrchr(copy, '/')) && slash != copy) {
		*slash = '\0';
		if (inotify_add_watch(fd, copy,
				      IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
					      IN_ATTRIB) >= 0) {
			if (++watched == 2)
				break;
		}
	}
	return watched ? 0 : -ENOENT;
}

static int wait_until(const char *path, unsigned int major, unsigned int minor, bool there,
		      unsigned int limit_ms)
{
	const uint64_t end = tm_now_monotonic_usec() + limit_ms * TM_USEC_PER_MSEC;
	char events[4096] __attribute__((aligned(8)));

	for (;;) {
		tm_auto_close int fd = -1;
		struct pollfd pfd;
		uint64_t now;
		int ms;

		if (there ? leads_to(path, major, minor) : gone(path))
			return 0;
		fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (fd < 0)
			return -errno;
		(void)watch_above(fd, path);
		/* Looked again after the watch was set: nothing slips through between. */
		if (there ? leads_to(path, major, minor) : gone(path))
			return 0;
		now = tm_now_monotonic_usec();
		if (now >= end)
			return -ETIMEDOUT;
		/* At most a second at a time: a directory that is made and filled at once may be
		 * missed. */
		ms = (int)((end - now) / TM_USEC_PER_MSEC) + 1;
		pfd = (struct pollfd){ .fd = fd, .events = POLLIN };
		(void)poll(&pfd, 1, ms > 1000 ? 1000 : ms);
		(void)!read(fd, events, sizeof(events));
	}
}

int tm_udev_wait_link(const char *path, unsigned int major, unsigned int minor,
		      unsigned int limit_ms)
{
	return wait_until(path, major, minor, true, limit_ms);
}

int tm_udev_wait_gone(const char *path, unsigned int limit_ms)
{
	return wait_until(path, 0, 0, false, limit_ms);
}
