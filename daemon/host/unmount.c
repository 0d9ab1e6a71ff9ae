// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "common/utf8.h"
#include "host/child.h"
#include "host/proc.h"

#define MOUNTINFO_MAX ((size_t)64 << 20)

static const char *errno_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	return text ? text : "Unknown error";
}

static int out_of_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

static int too_long(struct tm_error *err, const struct tm_host *host, const char *what,
		    const char *path)
{
	return tm_error_set(err, TM_ERR_TIMEOUT, ETIMEDOUT,
			    "cannot %s \"%.300s\" within %u s: it waits in the kernel", what, path,
			    host->limit_seconds);
}

static int run(tm_child_fn fn, void *job, const int *fds, size_t n_fds, const struct tm_host *host,
	       struct tm_child_answer *ret)
{
	*ret = (struct tm_child_answer){ 0 };
	return tm_child_run(fn, job, fds, n_fds, host->limit_seconds * TM_USEC_PER_SEC, ret);
}

/* ---- the namespace -------------------------------------------------------------------------- */

/* A mount namespace, seen through a process that is in it. */
struct space {
	int process; /* its directory */
	int ns;      /* for setns(); -1: the daemon's own */
	size_t base; /* how much of the paths in it comes before what it sees of them */
};

static void space_done(struct space *s)
{
	tm_closep(&s->process);
	tm_closep(&s->ns);
}
#define tm_auto_space tm_cleanup(space_done)

/*
 * Is the process with this directory in the namespace of @m? The number of one that ended is used
 * again: a process that came later is no witness.
 */
static bool is_in(const struct tm_mount *m, int dir)
{
	return tm_mount_namespace(dir, "ns/mnt") == m->ns &&
	       (m->here || tm_process_began(dir) <= m->seen_ticks);
}

static int open_in(int at, pid_t pid)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", (int)pid);
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* A thread of @process that is in it, or -1. */
static int find_thread(const struct tm_mount *m, int process)
{
	tm_auto_closedir DIR *tasks = tm_open_dir(process, "task");
	tm_auto_free pid_t *tids = NULL;
	size_t n = 0;

	if (!tasks || tm_list_pids(tasks, &tids, &n) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		tm_auto_close int dir = open_in(dirfd(tasks), tids[i]);

		if (dir >= 0 && is_in(m, dir))
			return TM_TAKE_FD(dir);
	}
	return -1;
}

/* A process or thread that is in it: the one noted, or any other. Its directory, or -1. */
static int find_witness(const struct tm_mount *m, DIR *proc)
{
	tm_auto_free pid_t *pids = NULL;
	tm_auto_close int noted = open_in(dirfd(proc), m->pid);
	size_t n = 0;

	if (noted >= 0 && is_in(m, noted))
		return TM_TAKE_FD(noted);
	if (tm_list_pids(proc, &pids, &n) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		tm_auto_close int dir = open_in(dirfd(proc), pids[i]);
		int thread;

		if (dir >= 0 && is_in(m, dir))
			return TM_TAKE_FD(dir);
		thread = dir >= 0 ? find_thread(m, dir) : -1;
		if (thread >= 0)
			return thread;
	}
	return -1;
}

/* 1, 0 when the namespace has ended, or a negative errno with @err set. */
static int open_space(const struct tm_mount *m, const struct tm_host *host, struct space *ret,
		      struct tm_error *err)
{
	tm_auto_closedir DIR *proc = tm_open_dir(AT_FDCWD, host->proc);
	tm_auto_space struct space s = { .process = -1, .ns = -1 };
	struct stat st;
	char boot[37], root[PATH_MAX];

	if (!proc)
		return tm_error_set(err, TM_ERR_IO, errno, "cannot open \"%s\": %s", host->proc,
				    errno_text(errno));
	tm_boot_id(dirfd(proc), boot);
	if (strcmp(boot, m->boot) != 0)
		return 0;
	if (m->here) {
		s.process = openat(dirfd(proc), "self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (s.process < 0)
			return tm_error_set(err, TM_ERR_IO, errno, "cannot open \"%s/self\": %s",
					    host->proc, errno_text(errno));
	} else {
		s.process = find_witness(m, proc);
		if (s.process < 0)
			return 0;
		s.ns = openat(s.process, "ns/mnt", O_RDONLY | O_CLOEXEC);
		/* Unless it went to another meanwhile. */
		if (s.ns < 0 || fstat(s.ns, &st) < 0 || st.st_ino != m->ns)
			return 0;
	}
	(void)tm_read_link(s.process, "root", root, sizeof(root));
	ret->base = root[0] && root[1] ? strlen(root) : 0;
	if (strncmp(root, m->line.point, ret->base) != 0)
		ret->base = 0;
	ret->process = TM_TAKE_FD(s.process);
	ret->ns = TM_TAKE_FD(s.ns);
	return 1;
}

/* Called for each mount; the walk ends at the first result other than 0. */
typedef int (*mount_fn)(const struct tm_mount_line *line, void *userdata);

static int each_mount(const struct space *s, mount_fn fn, void *userdata)
{
	tm_auto_free char *text = NULL;
	int r = tm_read_file_at(s->process, "mountinfo", MOUNTINFO_MAX, &text, NULL);

	for (char *line = text, *end; r == 0 && line && *line; line = end) {
		struct tm_mount_line m;

		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (tm_mountinfo_parse(line, &m) == 0)
			r = fn(&m, userdata);
	}
	return r;
}

static int has_id(const struct tm_mount_line *line, void *userdata)
{
	const struct tm_mount *m = userdata;

	return line->id == m->line.id && line->major == m->line.major &&
	       line->minor == m->line.minor;
}

/* ---- who is in the way ---------------------------------------------------------------------- */

struct blockers {
	const struct tm_mount *m;
	size_t n;
	char text[320]; /* "process 4711 (dd), process 12 (bash)": as many as fit */
	size_t len;
	bool cut;
};

static void blocker(struct blockers *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void blocker(struct blockers *b, const char *fmt, ...)
{
	char text[128];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	b->n++;
	if (b->len + strlen(text) + 3 >= sizeof(b->text))
		b->cut = true;
	else
		b->len += (size_t)snprintf(b->text + b->len, sizeof(b->text) - b->len, "%s%s",
					   b->len ? ", " : "", text);
}

static int mounted_below(const struct tm_mount_line *line, void *userdata)
{
	struct blockers *b = userdata;

	if (line->parent == b->m->line.id && line->id != b->m->line.id)
		blocker(b, "the mount at %s", line->point);
	return 0;
}

/* Does this link of procfs lead to a file in the mount? */
static bool in_mount(int dir, const char *link, uint64_t id)
{
	struct statx st;

	return statx(dir, link, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_MNT_ID, &st) == 0 &&
	       (st.stx_mask & STATX_MNT_ID) && st.stx_mnt_id == id;
}

static bool any_in_mount(int process, const char *directory, uint64_t id)
{
	tm_auto_closedir DIR *dir = tm_open_dir(process, directory);
	const char *name;

	while (dir && (name = tm_next_entry(dir)) != NULL)
		if (in_mount(dirfd(dir), name, id))
			return true;
	return false;
}

static void find_blockers(struct blockers *b, const struct space *s, const struct tm_host *host)
{
	tm_auto_closedir DIR *proc = tm_open_dir(AT_FDCWD, host->proc);
	tm_auto_free pid_t *pids = NULL;
	const uint64_t id = b->m->line.id;
	size_t n = 0;

	(void)each_mount(s, mounted_below, b);
	if (!proc || tm_list_pids(proc, &pids, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		tm_auto_close int dir = open_in(dirfd(proc), pids[i]);
		struct tm_process process;

		if (dir < 0 || (!in_mount(dir, "cwd", id) && !in_mount(dir, "root", id) &&
				!in_mount(dir, "exe", id) && !any_in_mount(dir, "fd", id) &&
				!any_in_mount(dir, "map_files", id)))
			continue;
		tm_process_describe(dir, pids[i], &process);
		blocker(b, "process %d (%s)", (int)pids[i], process.comm);
	}
}

/* What the kernel has on a file there: loop devices and swap. */
static void find_kernel_users(struct blockers *b, const struct tm_host *host)
{
	tm_auto_closedir DIR *sys = tm_open_dir(AT_FDCWD, host->sys);
	tm_auto_closedir DIR *block = sys ? tm_open_dir(dirfd(sys), "block") : NULL;
	const size_t len = strlen(b->m->line.point);
	const char *name;

	while (b->m->here && block && (name = tm_next_entry(block)) != NULL) {
		tm_auto_free char *file = NULL;
		char path[NAME_MAX + 32];

		(void)snprintf(path, sizeof(path), "%s/loop/backing_file", name);
		if (tm_read_file_at(dirfd(block), path, PATH_MAX, &file, NULL) == 0 &&
		    !strncmp(file, b->m->line.point, len) && file[len] == '/')
			blocker(b, "loop device %s", name);
	}
}

static int busy(const struct tm_mount *m, const struct space *s, const struct tm_host *host,
		struct tm_error *err)
{
	struct blockers b = { .m = m };
	int r;

	find_blockers(&b, s, host);
	find_kernel_users(&b, host);
	if (!b.n) {
		r = tm_error_set(
			err, TM_ERR_BUSY, EBUSY,
			"cannot unmount \"%.300s\": it is in use, but nobody is seen to use it",
			m->line.point);
		tm_error_hint(
			err,
			"It may be exported by NFS, a layer of an overlay, or hold a swap file.");
		return r;
	}
	r = tm_error_set(err, TM_ERR_BUSY, EBUSY, "cannot unmount \"%.100s\": in use by %s%s",
			 m->line.point, b.text, b.cut ? ", and others" : "");
	tm_error_hint(err, "End what uses it, then try again.");
	return r;
}

/* ---- unmounting ----------------------------------------------------------------------------- */

/* Steps of what is done to a mount that was found. */
enum { FOUND_ENTER = 1, FOUND_OPEN, FOUND_OTHER, FOUND_CHANGE };

struct unmount_job {
	int ns; /* -1: that of the daemon */
	const char *point;
	uint64_t id;
};

static void fail(struct tm_child_answer *answer, int step)
{
	answer->step = step;
	answer->errnum = errno;
}

/* What a path leads to need not be what was found there: the mount itself, or -1. */
static int open_found(const struct unmount_job *job, struct tm_child_answer *answer)
{
	struct statx st;
	int fd;

	if (job->ns >= 0 && setns(job->ns, CLONE_NEWNS) < 0) {
		fail(answer, FOUND_ENTER);
		return -1;
	}
	fd = open(job->point, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0) {
		fail(answer, FOUND_OPEN);
		return -1;
	}
	if (!(st.stx_mask & STATX_MNT_ID) || st.stx_mnt_id != job->id) {
		answer->step = FOUND_OTHER;
		return -1;
	}
	return fd;
}

static void unmount_in_child(void *userdata, struct tm_child_answer *answer)
{
	const struct unmount_job *job = userdata;
	int fd = open_found(job, answer);

	if (fd < 0)
		return;
	(void)close(fd); /* it would keep it busy */
	if (umount2(job->point, UMOUNT_NOFOLLOW) < 0)
		fail(answer, FOUND_CHANGE);
}

static int unmount_refused(const struct tm_mount *m, const struct space *s,
			   const struct tm_child_answer *answer, const struct tm_host *host,
			   struct tm_error *err)
{
	int r;

	if (answer->step == FOUND_OTHER) {
		r = tm_error_set(err, TM_ERR_BUSY, EBUSY,
				 "cannot unmount \"%.300s\": another mount covers it",
				 m->line.point);
		tm_error_hint(err, "Unmount what was mounted over it, then try again.");
		return r;
	}
	if (answer->step == FOUND_CHANGE && answer->errnum == EBUSY)
		return busy(m, s, host, err);
	if (answer->step == FOUND_CHANGE && answer->errnum == EINVAL && !m->here) {
		r = tm_error_set(err, TM_ERR_UNSUPPORTED, EINVAL,
				 "cannot unmount \"%.200s\" in the mount namespace of process %d: "
				 "it is locked there",
				 m->line.point, (int)m->pid);
		tm_error_hint(err, "Stop the container, or what made that namespace.");
		return r;
	}
	return tm_error_set(err, TM_ERR_IO, answer->errnum, "cannot %s \"%.300s\": %s",
			    answer->step == FOUND_ENTER  ? "enter the mount namespace of"
			    : answer->step == FOUND_OPEN ? "look at"
							 : "unmount",
			    m->line.point, errno_text(answer->errnum));
}

int tm_unmount(const struct tm_mount *m, const struct tm_host *host, struct tm_error *err)
{
	tm_auto_space struct space s = { .process = -1, .ns = -1 };
	struct unmount_job job = { .point = m->line.point, .id = m->line.id };
	struct tm_child_answer answer;
	int r = open_space(m, host, &s, err);

	if (r <= 0)
		return r;
	if (each_mount(&s, has_id, (void *)m) == 0)
		return 0;
	job.ns = s.ns;
	r = run(unmount_in_child, &job, &s.ns, 1, host, &answer);
	if (r == -ETIMEDOUT)
		return too_long(err, host, "unmount", m->line.point);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "cannot unmount \"%.300s\": %s",
				    m->line.point, errno_text(-r));
	if (!answer.step || each_mount(&s, has_id, (void *)m) == 0)
		return 0;
	return unmount_refused(m, &s, &answer, host, err);
}

/* ---- mounting ------------------------------------------------------------------------------- */

struct option {
	const char *key, *value; /* value NULL: a flag */
};

struct mount_job {
	const char *type, *source, *point;
	const char *below; /* directory of the file system that is mounted: "", or "a/b" */
	struct option *options;
	size_t n_options;
	char *text; /* that the options point into */
	uint64_t attributes, propagation;
	int ns; /* to mount in */
};

static void mount_job_done(struct mount_job *job)
{
	free(job->options);
	free(job->text);
}

static int unsupported(const struct tm_mount *m, struct tm_error *err, const char *why)
{
	int r = tm_error_set(err, TM_ERR_UNSUPPORTED, EOPNOTSUPP,
			     "\"%.300s\" could not be mounted again: %s", m->line.point, why);

	tm_error_hint(err, "Unmount it by hand.");
	return r;
}

/* The options of the mount itself. False for one that cannot be set again. */
static bool attribute(const char *name, uint64_t *attributes, bool *atime)
{
	static const struct {
		const char *name;
		uint64_t attribute;
		bool atime;
	} known[] = {
		{ "rw", 0, false },
		{ "ro", MOUNT_ATTR_RDONLY, false },
		{ "nosuid", MOUNT_ATTR_NOSUID, false },
		{ "nodev", MOUNT_ATTR_NODEV, false },
		{ "noexec", MOUNT_ATTR_NOEXEC, false },
		{ "nodiratime", MOUNT_ATTR_NODIRATIME, false },
		{ "nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, false },
		{ "noatime", MOUNT_ATTR_NOATIME, true },
		{ "relatime", MOUNT_ATTR_RELATIME, true },
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(known); i++) {
		if (strcmp(known[i].name, name) != 0)
			continue;
		*attributes |= known[i].attribute;
		*atime |= known[i].atime;
		return true;
	}
	return false;
}

static int prepare_attributes(const struct tm_mount *m, struct mount_job *job, struct tm_error *err)
{
	tm_auto_free char *text = strdup(m->line.options);
	char *at = text, *value, *name;
	bool atime = false;

	if (!text)
		return out_of_memory(err);
	while ((name = tm_mount_next_option(&at, &value)) != NULL) {
		char why[128];

		if (!value && attribute(name, &job->attributes, &atime))
			continue;
		(void)snprintf(why, sizeof(why), "it has the option \"%s\"", name);
		return unsupported(m, err, why);
	}
	/* The kernel shows nothing for the strictest. */
	if (!atime)
		job->attributes |= MOUNT_ATTR_STRICTATIME;
	return 0;
}

/* Shown among the options, but never given. */
static bool is_state(const char *name)
{
	return !strcmp(name, "seclabel") || !strcmp(name, "emergency_ro") ||
	       !strcmp(name, "shutdown");
}

/*
 * Of the file system. What the kernel shows of a file system's options it takes as well. One that
 * is read-only while its mount is not has made itself that, for errors that are to be gone by then.
 */
static int prepare_options(const struct tm_mount *m, struct mount_job *job, struct tm_error *err)
{
	const bool read_only = job->attributes & MOUNT_ATTR_RDONLY;
	size_t n = 1;
	char *at, *value, *name;

	job->text = strdup(m->line.super_options);
	for (at = job->text; at && *at; at++)
		n += *at == ',';
	job->options = calloc(n, sizeof(*job->options));
	if (!job->text || !job->options)
		return out_of_memory(err);
	at = job->text;
	while ((name = tm_mount_next_option(&at, &value)) != NULL) {
		if (strlen(name) > 255 || (value && strlen(value) > 255))
			return unsupported(m, err, "it has an option that is too long");
		if (!is_state(name) && (strcmp(name, "ro") != 0 || read_only))
			job->options[job->n_options++] = (struct option){ name, value };
	}
	return 0;
}

/* The directory that is mounted, below what mounting the file system gives. */
static int prepare_root(const struct tm_mount *m, struct mount_job *job, struct tm_error *err)
{
	const char *root = m->line.root;

	/* Btrfs shows paths from the top, but mounts the subvolume it is told. */
	for (size_t i = 0; i < job->n_options; i++) {
		const char *value = job->options[i].value;
		const size_t len = value ? strlen(value) : 0;

		if (strcmp(m->line.type, "btrfs") != 0 ||
		    strcmp(job->options[i].key, "subvol") != 0 || len < 2)
			continue;
		if (strncmp(root, value, len) != 0 || (root[len] && root[len] != '/'))
			return unsupported(m, err, "its subvolume is not clear");
		root += len;
	}
	root += strspn(root, "/");
	job->below = root;
	return 0;
}

static int prepare(const struct tm_mount *m, const char *device, struct mount_job *job,
		   struct tm_error *err)
{
	const char *deleted = "//deleted";
	const size_t n = strlen(deleted);
	const size_t root = strlen(m->line.root), point = strlen(m->line.point);
	int r;

	*job = (struct mount_job){ .type = m->line.type,
				   .source = device ? device : m->line.source,
				   .point = m->line.point,
				   .propagation = m->line.shared       ? MS_SHARED
						  : m->line.unbindable ? MS_UNBINDABLE
								       : MS_PRIVATE };
	if (!strncmp(job->type, "fuse", 4))
		return unsupported(m, err, "a program runs its file system");
	if ((root >= n && !strcmp(m->line.root + root - n, deleted)) ||
	    (point >= n && !strcmp(m->line.point + point - n, deleted)))
		return unsupported(m, err, "its directory was deleted");
	if (m->line.root[0] != '/')
		return unsupported(m, err, "it is no directory of a file system");
	r = prepare_attributes(m, job, err);
	if (r == 0)
		r = prepare_options(m, job, err);
	return r == 0 ? prepare_root(m, job, err) : r;
}

int tm_unmount_check(const struct tm_mount *m, struct tm_error *err)
{
	tm_cleanup(mount_job_done) struct mount_job job;

	return prepare(m, NULL, &job, err);
}

enum {
	MOUNT_OPTION = 1,
	MOUNT_MAKE,
	MOUNT_BELOW,
	MOUNT_ENTER,
	MOUNT_POINT,
	MOUNT_MOVE,
	MOUNT_KIND
};

/* What the file system says of its failure, if it does: "e ext4: bad option". */
static void take_message(int fs, struct tm_child_answer *answer)
{
	ssize_t n = read(fs, answer->text, sizeof(answer->text) - 1);

	answer->text[n > 0 ? n : 0] = '\0';
}

/*
 * Open @path below @dir, of which no part may be a link or lead upwards; -1 with errno. By hand, as
 * openat2() is refused to the service (by RestrictSUIDSGID=).
 */
static int open_beneath(int dir, const char *path)
{
	int at = openat(dir, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	for (path += strspn(path, "/"); at >= 0 && *path; path += strspn(path, "/")) {
		const size_t len = strcspn(path, "/");
		char name[NAME_MAX + 1];
		int next = -1;

		errno = len > NAME_MAX ? ENAMETOOLONG : ELOOP;
		if (len <= NAME_MAX && !(len == 2 && path[0] == '.' && path[1] == '.')) {
			memcpy(name, path, len);
			name[len] = '\0';
			next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		}
		(void)close(at);
		at = next;
		path += len;
		if (at >= 0 && (fstat(at, &st) < 0 || S_ISLNK(st.st_mode))) {
			(void)close(at);
			errno = ELOOP;
			return -1;
		}
	}
	return at;
}

/*
 * The part of the file system on @mount that is to be mounted, as a mount of its own. It has to be
 * attached somewhere for that: in a namespace that nobody else sees and that ends with this
 * process.
 */
static int cut_out(int mount_fd, const char *below)
{
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    move_mount(mount_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -1;
	/* A link in it may lead anywhere. */
	fd = open_beneath(mount_fd, below);
	return fd < 0 ? -1 : open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
}

static void mount_in_child(void *userdata, struct tm_child_answer *answer)
{
	const struct mount_job *job = userdata;
	struct mount_attr kind = { .propagation = job->propagation };
	int fs, tree, point;

	/* The device is looked up here, and only then the namespace is entered. */
	fs = fsopen(job->type, FSOPEN_CLOEXEC);
	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "source", job->source, 0) < 0)
		return fail(answer, MOUNT_MAKE);
	for (size_t i = 0; i < job->n_options; i++) {
		const struct option *o = &job->options[i];

		if (fsconfig(fs, o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->key,
			     o->value, 0) < 0) {
			fail(answer, MOUNT_OPTION);
			return take_message(fs, answer);
		}
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		fail(answer, MOUNT_MAKE);
		return take_message(fs, answer);
	}
	tree = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned int)job->attributes);
	if (tree < 0)
		return fail(answer, MOUNT_MAKE);
	if (job->below[0])
		tree = cut_out(tree, job->below);
	if (tree < 0)
		return fail(answer, MOUNT_BELOW);
	if (setns(job->ns, CLONE_NEWNS) < 0)
		return fail(answer, MOUNT_ENTER);
	/* Mount points have no links in their path, unless somebody put one there since. */
	point = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (point >= 0)
		point = open_beneath(point, job->point);
	if (point < 0)
		return fail(answer, MOUNT_POINT);
	if (move_mount(tree, "", point, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return fail(answer, MOUNT_MOVE);
	if (mount_setattr(tree, "", AT_EMPTY_PATH, &kind, sizeof(kind)) < 0)
		fail(answer, MOUNT_KIND);
}

static int mount_refused(const struct tm_mount *m, const struct mount_job *job,
			 const struct tm_child_answer *answer, struct tm_error *err)
{
	static const char *const steps[] = {
		[MOUNT_OPTION] = "its options are refused",
		[MOUNT_MAKE] = "its file system cannot be mounted",
		[MOUNT_BELOW] = "the directory in it cannot be opened",
		[MOUNT_ENTER] = "its mount namespace cannot be entered",
		[MOUNT_POINT] = "the mount point cannot be opened",
		[MOUNT_MOVE] = "nothing can be mounted there",
		[MOUNT_KIND] = "it is mounted, but propagates otherwise than before",
	};
	const char *step = answer->step > 0 && answer->step < (int)TM_ARRAY_SIZE(steps)
				   ? steps[answer->step]
				   : "it failed";
	char said[160] = "";

	if (answer->text[0])
		(void)snprintf(said, sizeof(said), " (%.*s)", (int)strcspn(answer->text, "\n"),
			       answer->text);
	return tm_error_set(err, TM_ERR_IO, answer->errnum,
			    "cannot mount \"%.100s\" again at \"%.150s\": %s: %s%s", job->source,
			    m->line.point, step, errno_text(answer->errnum), said);
}

struct wanted {
	const struct tm_mount *m;
	const struct mount_job *job;
	const char *point; /* as the witness sees it */
	dev_t device;      /* 0: not known */
	bool there;        /* and if so: */
	bool as_it_was;
	uint64_t id;
};

/* The last at that place is the one that is seen. */
static int is_there(const struct tm_mount_line *line, void *userdata)
{
	struct wanted *w = userdata;
	const struct tm_mount_line *old = &w->m->line;

	if (strcmp(line->point, w->point[0] ? w->point : "/") != 0)
		return 0;
	w->there = !strcmp(line->root, old->root) && !strcmp(line->type, old->type) &&
		   (line->major ? w->device == makedev(line->major, line->minor)
				: !strcmp(line->source, w->job->source) ||
					  !strcmp(line->source, old->source));
	w->as_it_was = !strcmp(line->options, old->options);
	w->id = line->id;
	return 0;
}

struct change_job {
	struct unmount_job where;
	uint64_t attributes;
};

static void change_in_child(void *userdata, struct tm_child_answer *answer)
{
	const struct change_job *job = userdata;
	struct mount_attr attr = { .attr_set = job->attributes,
				   .attr_clr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
					       MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
					       MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW |
					       MOUNT_ATTR__ATIME };
	int fd = open_found(&job->where, answer);

	if (fd >= 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		fail(answer, FOUND_CHANGE);
}

/*
 * It is there, most likely by propagation from another namespace, with the options it has there: a
 * container that could only read it must not find it writable.
 */
static int change_options(const struct wanted *w, const struct space *s, const struct tm_host *host,
			  struct tm_error *err)
{
	struct change_job job = { { s->ns, w->m->line.point, w->id }, w->job->attributes };
	struct tm_child_answer answer;
	int r = run(change_in_child, &job, &s->ns, 1, host, &answer);

	if (r == -ETIMEDOUT)
		return too_long(err, host, "set the options of", w->m->line.point);
	if (r == 0 && answer.step)
		r = answer.errnum ? -answer.errnum : -EBUSY;
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r,
				    "cannot set the options of \"%.200s\" to \"%.100s\": %s",
				    w->m->line.point, w->m->line.options, errno_text(-r));
	return 0;
}

int tm_mount_again(const struct tm_mount *m, const char *device, const struct tm_host *host,
		   struct tm_error *err)
{
	tm_cleanup(mount_job_done) struct mount_job job = { 0 };
	tm_auto_space struct space s = { .process = -1, .ns = -1 };
	tm_auto_close int ns = -1;
	struct wanted w = { .m = m, .job = &job };
	struct tm_child_answer answer;
	struct stat st;
	int r = prepare(m, device, &job, err);

	if (r == 0)
		r = open_space(m, host, &s, err);
	if (r <= 0)
		return r;
	if (stat(job.source, &st) == 0 && S_ISBLK(st.st_mode))
		w.device = st.st_rdev;
	w.point = m->line.point + s.base;
	r = each_mount(&s, is_there, &w);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "cannot see what is mounted: %s",
				    errno_text(-r));
	if (w.there)
		return w.as_it_was ? 0 : change_options(&w, &s, host, err);
	/* The daemon's own as well, which the child may have left. */
	ns = openat(s.process, "ns/mnt", O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return tm_error_set(err, TM_ERR_IO, errno, "cannot mount \"%.300s\" again: %s",
				    m->line.point, errno_text(errno));
	job.ns = s.ns >= 0 ? s.ns : ns;
	r = run(mount_in_child, &job, &job.ns, 1, host, &answer);
	if (r == -ETIMEDOUT)
		return too_long(err, host, "mount", m->line.point);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "cannot mount \"%.300s\" again: %s",
				    m->line.point, errno_text(-r));
	return answer.step ? mount_refused(m, &job, &answer, err) : 0;
}

/* ---- swap ----------------------------------------------------------------------------------- */

struct swap_job {
	const char *path;
	int flags;
};

static void swap_off_in_child(void *userdata, struct tm_child_answer *answer)
{
	const struct swap_job *job = userdata;

	if (swapoff(job->path) < 0)
		fail(answer, 1);
}

static void swap_on_in_child(void *userdata, struct tm_child_answer *answer)
{
	const struct swap_job *job = userdata;

	if (swapon(job->path, job->flags) < 0)
		fail(answer, 1);
}

static int swap(tm_child_fn fn, struct swap_job *job, int done, const char *what,
		const struct tm_host *host, struct tm_error *err)
{
	struct tm_child_answer answer;
	int r = run(fn, job, NULL, 0, host, &answer);

	if (r == -ETIMEDOUT)
		return too_long(err, host, what, job->path);
	if (r == 0 && answer.step && answer.errnum != done)
		r = -answer.errnum;
	if (r < 0)
		return tm_error_set(err, r == -ENOMEM ? TM_ERR_NO_MEMORY : TM_ERR_IO, -r,
				    "cannot %s \"%.300s\": %s", what, job->path, errno_text(-r));
	return 0;
}

int tm_swap_off(const struct tm_swap *s, const struct tm_host *host, struct tm_error *err)
{
	struct swap_job job = { .path = s->path };

	return swap(swap_off_in_child, &job, EINVAL, "stop swapping to", host, err);
}

int tm_swap_on(const struct tm_swap *s, const char *device, const struct tm_host *host,
	       struct tm_error *err)
{
	struct swap_job job = { .path = device && !s->is_file ? device : s->path };

	if (s->priority >= 0)
		job.flags = SWAP_FLAG_PREFER |
			    ((s->priority << SWAP_FLAG_PRIO_SHIFT) & SWAP_FLAG_PRIO_MASK);
	return swap(swap_on_in_child, &job, EBUSY, "swap again to", host, err);
}
