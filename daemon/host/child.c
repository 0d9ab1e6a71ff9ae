// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/child.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"

/* The descriptors of the daemon would keep devices, and its socket, if the child hung. */
static bool close_others(const int *fds, size_t n_fds, int socket)
{
	int keep[TM_CHILD_FDS + 1] = { 0 };
	unsigned int from = 3;
	size_t n = 0;

	for (size_t i = 0; i <= n_fds; i++) {
		const int fd = i < n_fds ? fds[i] : socket;
		size_t at = n;

		if (fd < 0)
			continue;
		for (; at && keep[at - 1] > fd; at--)
			keep[at] = keep[at - 1];
		keep[at] = fd;
		n++;
	}
	for (size_t i = 0; i < n; i++) {
		const unsigned int fd = (unsigned int)keep[i];

		if (fd > from && close_range(from, fd - 1, 0) < 0)
			return false;
		if (fd >= from)
			from = fd + 1;
	}
	return close_range(from, UINT_MAX, 0) == 0;
}

static void child_main(tm_child_fn fn, void *userdata, const int *fds, size_t n_fds, int socket)
	__attribute__((noreturn));

static void child_main(tm_child_fn fn, void *userdata, const int *fds, size_t n_fds, int socket)
{
	struct tm_child_answer answer = { 0 };
	const pid_t pid = getpid();
	char go;

	/* Nothing begins before the other side can end it. */
	if (!close_others(fds, n_fds, socket) ||
	    send(socket, &pid, sizeof(pid), MSG_NOSIGNAL) != (ssize_t)sizeof(pid) ||
	    recv(socket, &go, 1, 0) != 1)
		_exit(1);
	fn(userdata, &answer);
	(void)send(socket, &answer, sizeof(answer), MSG_NOSIGNAL);
	_exit(0);
}

/* One message of exactly @len bytes: 0, -ETIMEDOUT at @end_usec, -EPIPE for anything else. */
static int receive(int socket, void *buf, size_t len, uint64_t end_usec)
{
	for (;;) {
		struct pollfd pfd = { .fd = socket, .events = POLLIN };
		const uint64_t now = tm_now_monotonic_usec();
		const uint64_t left = end_usec > now ? (end_usec - now) / TM_USEC_PER_MSEC + 1 : 0;
		int r = poll(&pfd, 1, left < INT_MAX ? (int)left : INT_MAX);

		if (r > 0)
			break;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0 && left == 0)
			return -ETIMEDOUT;
	}
	return recv(socket, buf, len, 0) == (ssize_t)len ? 0 : -EPIPE;
}

int tm_child_run(tm_child_fn fn, void *userdata, const int *fds, size_t n_fds, uint64_t limit_usec,
		 struct tm_child_answer *ret)
{
	const uint64_t end = tm_sat_add(tm_now_monotonic_usec(), limit_usec);
	tm_auto_close int mine = -1, theirs = -1, process = -1;
	int sockets[2], r;
	pid_t between, pid = 0;

	if (n_fds > TM_CHILD_FDS)
		return -EINVAL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	mine = sockets[0];
	theirs = sockets[1];
	/*
	 * The child's child: when it hangs in the kernel nobody here has to wait for it, now or
	 * ever; the first process of the system does. Neither may use what other threads had
	 * locked, so nothing is prepared for that.
	 */
	between = _Fork();
	if (between < 0)
		return -errno;
	if (between == 0) {
		const pid_t child = _Fork();

		if (child == 0)
			child_main(fn, userdata, fds, n_fds, theirs);
		_exit(child < 0 ? 1 : 0);
	}
	(void)close(TM_TAKE_FD(theirs));
	while (waitpid(between, NULL, 0) < 0 && errno == EINTR)
		;
	r = receive(mine, &pid, sizeof(pid), end);
	if (r < 0)
		return r;
	process = pidfd_open(pid, 0);
	if (process < 0)
		return -errno;
	if (send(mine, "", 1, MSG_NOSIGNAL) != 1)
		return -EPIPE;
	r = receive(mine, ret, sizeof(*ret), end);
	if (r < 0)
		(void)pidfd_send_signal(process, SIGKILL, NULL, 0);
	else
		ret->text[sizeof(ret->text) - 1] = '\0';
	return r;
}
