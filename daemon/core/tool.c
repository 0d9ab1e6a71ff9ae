/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running programs of the field: an argument vector, a time limit, no shell. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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

/* So often one that somebody watches is looked after. */
#define WATCH_USEC (200 * TM_USEC_PER_MSEC)

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

/* A program while it runs. */
struct running {
	pid_t pid;
	const struct tm_tool_watch *watch; /* NULL: nobody watches */
	uint64_t end_usec;                 /* it is ended then */
	uint64_t seen_usec;                /* it was last looked after */
};

/* How much it has read and written so far, past the page cache. 0: that cannot be said. */
static uint64_t io_so_far(pid_t pid)
{
	tm_auto_free char *text = NULL;
	const char *read_bytes, *write_bytes;
	uint64_t in = 0, out = 0;
	char path[64];
	size_t len;

	(void)snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
	if (tm_read_file(path, 4096, &text, &len) < 0)
		return 0;
	read_bytes = strstr(text, "\nread_bytes: ");
	write_bytes = strstr(text, "\nwrite_bytes: ");
	if (!read_bytes || !write_bytes || sscanf(read_bytes, "\nread_bytes: %" SCNu64, &in) != 1 ||
	    sscanf(write_bytes, "\nwrite_bytes: %" SCNu64, &out) != 1)
		return 0;
	return in + out;
}

/* Say how far it is. True: nobody wants to know its end any more. */
static bool look_after(struct running *run)
{
	const struct tm_tool_watch *w = run->watch;

	run->seen_usec = tm_now_monotonic_usec();
	if (w->io_bytes) {
		const uint64_t percent = tm_mul_div(io_so_far(run->pid), 100, w->io_bytes);
		const int begin = w->progress->part_begin;
		const int part = (w->progress->part_end ? w->progress->part_end : 100) - begin;

		/* An estimate: that it is done only its end says. */
		atomic_store(&w->progress->percent,
			     begin + part * (percent < 99 ? (int)percent : 99) / 100);
	}
	return atomic_load(&w->progress->cancelled);
}

/*
 * Wait until one of them can be read: 1, 0 at the end, -ECANCELED, or another negative errno. An
 * end in the past is looked at once nevertheless.
 */
static int wait_any(struct pollfd *fds, nfds_t n, struct running *run)
{
	for (;;) {
		const uint64_t now = tm_now_monotonic_usec();
		const uint64_t left = run->end_usec > now ? run->end_usec - now : 0;
		uint64_t pause = left;
		int r;

		if (run->watch && now - run->seen_usec >= WATCH_USEC && look_after(run))
			return -ECANCELED;
		if (run->watch && pause > WATCH_USEC)
			pause = WATCH_USEC;
		pause = pause ? pause / TM_USEC_PER_MSEC + 1 : 0;
		r = poll(fds, n, pause < INT_MAX ? (int)pause : INT_MAX);
		if (r > 0)
			return 1;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r == 0 && left == 0)
			return 0;
	}
}

static int wait_readable(int fd, struct running *run)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return wait_any(&pfd, 1, run);
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
 * -1) is @sink's. 1; 0 at its time's end or when the sink takes no more; or as wait_any.
 */
static int read_output(int fd, int data, struct running *run, struct sink *sink,
		       struct tm_tool_result *ret)
{
	struct pollfd from[2] = { { .fd = fd, .events = POLLIN },
				  { .fd = data, .events = POLLIN } };
	size_t have = 0;
	int r = 1;

	while (r > 0 && sink->r >= 0 && (from[0].fd >= 0 || from[1].fd >= 0)) {
		/* The clock is looked at beside: one that never stops printing is always readable.
		 */
		r = wait_any(from, 2, run);
		if (r <= 0)
			break;
		if (tm_now_monotonic_usec() >= run->end_usec) {
			r = 0;
			break;
		}
		if (from[1].revents && read_some(data, sink, ret, &have) == 0)
			from[1].fd = -1;
		if (from[0].revents && read_some(fd, NULL, ret, &have) == 0)
			from[0].fd = -1;
	}
	while (have && ret->output[have - 1] == ' ')
		have--;
	ret->output[have] = '\0';
	return r > 0 && sink->r < 0 ? 0 : r;
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

int tm_tool_read(const char *const argv[], unsigned int limit_seconds,
		 const struct tm_tool_watch *watch, tm_tool_sink_fn fn, void *userdata,
		 struct tm_tool_result *ret, struct tm_error *err)
{
	static char *const environment[] = { (char *)"LC_ALL=C",
					     (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	tm_cleanup(spawn_actions_done) posix_spawn_file_actions_t actions;
	tm_cleanup(spawn_attr_done) posix_spawnattr_t attr;
	tm_auto_close int from = -1, to = -1, data_from = -1, data_to = -1, process = -1;
	struct sink sink = { .fn = fn, .userdata = userdata, .err = err };
	struct running run = { .watch = watch && watch->progress ? watch : NULL };
	int ends[2], status = 0, r;
	sigset_t none;

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
	run.end_usec = tm_now_monotonic_usec() + limit_seconds * TM_USEC_PER_SEC;
	r = posix_spawn(&run.pid, argv[0], &actions, &attr, (char *const *)argv, environment);
	if (r)
		return cannot_run(argv, r, err);
	(void)close(TM_TAKE_FD(to));
	if (fn)
		(void)close(TM_TAKE_FD(data_to));
	process = pidfd_open(run.pid, 0);
	r = read_output(from, data_from, &run, &sink, ret);
	/* Output may end long before the program does, so that is waited for as well. */
	if (r > 0 && process >= 0)
		r = wait_readable(process, &run);
	if (r <= 0)
		(void)kill(run.pid, SIGKILL);
	while (waitpid(run.pid, &status, 0) < 0 && errno == EINTR)
		;
	if (sink.r < 0)
		return sink.r;
	if (r == -ECANCELED)
		return tm_error_set(err, TM_ERR_CANCELLED, ECANCELED,
				    "%s was ended, because the operation was cancelled.", argv[0]);
	if (r <= 0)
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

int tm_tool_run(const char *const argv[], unsigned int limit_seconds,
		const struct tm_tool_watch *watch, struct tm_tool_result *ret, struct tm_error *err)
{
	return tm_tool_read(argv, limit_seconds, watch, NULL, NULL, ret, err);
}
