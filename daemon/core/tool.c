/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running programs of the field: an argument vector, a time limit, no shell. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"

const char *tm_tool_path(const char *name, char *buf, size_t len)
{
	static const char *const places[] = { "/usr/sbin", "/usr/bin", "/sbin", "/bin" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(places); i++) {
		int n = snprintf(buf, len, "%s/%s", places[i], name);

		if (n > 0 && (size_t)n < len && access(buf, X_OK) == 0)
			return buf;
	}
	if (len)
		buf[0] = '\0';
	return NULL;
}

static void spawn_actions_done(posix_spawn_file_actions_t *a)
{
	(void)posix_spawn_file_actions_destroy(a);
}

static void spawn_attr_done(posix_spawnattr_t *a)
{
	(void)posix_spawnattr_destroy(a);
}

/*
 * Wait until one of them can be read: 1, 0 at @end_usec, or a negative errno. An end in the past is
 * looked at once nevertheless.
 */
static int wait_any(struct pollfd *fds, nfds_t n, uint64_t end_usec)
{
	for (;;) {
		const uint64_t now = tm_now_monotonic_usec();
		const uint64_t left = end_usec > now ? (end_usec - now) / TM_USEC_PER_MSEC + 1 : 0;
		int r = poll(fds, n, left < INT_MAX ? (int)left : INT_MAX);

		if (r > 0)
			return 1;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0 && left == 0)
			return 0;
	}
}

static int wait_readable(int fd, uint64_t end_usec)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return wait_any(&pfd, 1, end_usec);
}

/* One that takes what a program prints, all of it; NULL: only what the result has room for. */
struct sink {
	tm_tool_sink_fn fn;
	void *userdata;
	struct tm_error *err;
	int r; /* what it came to */
};

/* 1: there may be more, 0: that was all. */
static int read_some(int fd, struct sink *sink, struct tm_tool_result *ret, size_t *have)
{
	char chunk[16384];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n < 0 && errno == EINTR)
		return 1;
	if (n <= 0)
		return 0;
	if (sink && sink->fn) {
		sink->r = sink->fn(sink->userdata, chunk, (size_t)n, sink->err);
		return sink->r >= 0;
	}
	for (ssize_t i = 0; i < n && *have + 1 < sizeof(ret->output); i++)
		ret->output[(*have)++] = chunk[i] == '\n' ? ' ' : chunk[i];
	return 1;
}

/*
 * Take what the program prints, its beginning into @ret, until it ends; what comes from @data (or
 * -1) is @sink's. 1, or 0 at @end_usec or when the sink takes no more.
 */
static int read_output(int fd, int data, uint64_t end_usec, struct sink *sink,
		       struct tm_tool_result *ret)
{
	struct pollfd from[2] = { { .fd = fd, .events = POLLIN },
				  { .fd = data, .events = POLLIN } };
	size_t have = 0;
	int r = 1;

	while (r > 0 && sink->r >= 0 && (from[0].fd >= 0 || from[1].fd >= 0)) {
		/* The clock is looked at beside: one that never stops printing is always readable.
		 */
		r = wait_any(from, 2, end_usec);
		if (r <= 0 || tm_now_monotonic_usec() >= end_usec)
			break;
		if (from[1].revents && read_some(data, sink, ret, &have) == 0)
			from[1].fd = -1;
		if (from[0].revents && read_some(fd, NULL, ret, &have) == 0)
			from[0].fd = -1;
	}
	while (have && ret->output[have - 1] == ' ')
		have--;
	ret->output[have] = '\0';
	return r > 0 && sink->r >= 0 && tm_now_monotonic_usec() < end_usec;
}

static bool is_own_fault(int signal)
{
	return signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
	       signal == SIGILL;
}

static int cannot_run(const char *const argv[], int errnum, struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_TOOL_FAILED, errnum, "Cannot run %s: %s.", argv[0],
			    strerror(errnum));
}

int tm_tool_read(const char *const argv[], unsigned int limit_seconds, tm_tool_sink_fn fn,
		 void *userdata, struct tm_tool_result *ret, struct tm_error *err)
{
	static char *const environment[] = { (char *)"LC_ALL=C",
					     (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	const uint64_t end = tm_now_monotonic_usec() + limit_seconds * TM_USEC_PER_SEC;
	tm_cleanup(spawn_actions_done) posix_spawn_file_actions_t actions;
	tm_cleanup(spawn_attr_done) posix_spawnattr_t attr;
	tm_auto_close int from = -1, to = -1, data_from = -1, data_to = -1, process = -1;
	struct sink sink = { .fn = fn, .userdata = userdata, .err = err };
	int ends[2], status = 0, r;
	bool ended;
	sigset_t none;
	pid_t pid;

	*ret = (struct tm_tool_result){ 0 };
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return cannot_run(argv, errno, err);
	from = ends[0];
	to = ends[1];
	if (fn && pipe2(ends, O_CLOEXEC) < 0)
		return cannot_run(argv, errno, err);
	if (fn) {
		data_from = ends[0];
		data_to = ends[1];
	}
	(void)sigemptyset(&none); /* the daemon blocks signals for its signalfd: the child must not
				     inherit that */
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, fn ? data_to : to, 1) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, to, 2) != 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	r = posix_spawn(&pid, argv[0], &actions, &attr, (char *const *)argv, environment);
	if (r)
		return cannot_run(argv, r, err);
	(void)close(TM_TAKE_FD(to));
	if (fn)
		(void)close(TM_TAKE_FD(data_to));
	process = pidfd_open(pid, 0);
	/* Output may end long before the program does, so that is waited for as well. */
	ended = read_output(from, data_from, end, &sink, ret) > 0 &&
		(process < 0 || wait_readable(process, end) > 0);
	if (!ended)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (sink.r < 0)
		return sink.r;
	if (!ended)
		return tm_error_set(err, TM_ERR_TIMEOUT, ETIMEDOUT,
				    "%s did not end within %u s and was killed.", argv[0],
				    limit_seconds);
	/* What it is given to read may bring it down; but who was ended by others has said nothing.
	 */
	if (WIFSIGNALED(status) && !is_own_fault(WTERMSIG(status)))
		return tm_error_set(err, TM_ERR_TOOL_FAILED, EINTR,
				    "%s was ended by signal %d (%s).", argv[0], WTERMSIG(status),
				    sigdescr_np(WTERMSIG(status)));
	ret->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}

int tm_tool_run(const char *const argv[], unsigned int limit_seconds, struct tm_tool_result *ret,
		struct tm_error *err)
{
	return tm_tool_read(argv, limit_seconds, NULL, NULL, ret, err);
}
