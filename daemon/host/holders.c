// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/holders.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "common/fsutil.h"
#include "common/utf8.h"
#include "host/stack.h"

/* The kernel allows 100000 mounts in a namespace unless told otherwise: they fit. */
#define MOUNTINFO_MAX ((size_t)64 << 20)
#define SMALL_MAX     ((size_t)64 << 10)

/* A mount namespace that was read through a process with this root: "/" saw all of it. */
struct reader {
	uint64_t ns;
	char *root;
};

struct find {
	struct tm_stack stack;
	struct tm_holders *ret;
	DIR *proc;
	char *file_systems; /* text of /proc/filesystems, or NULL */
	uint64_t own_ns;    /* 0: not known */
	pid_t self;
	char boot[37];
	uint64_t now_ticks;
	struct reader *readers;
	size_t n_readers;
};

static int out_of_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

static void holder_done(struct tm_holder *h)
{
	free(h->text);
	free(h->swap.path);
	tm_mount_done(&h->mount);
}

void tm_holders_done(struct tm_holders *h)
{
	for (size_t i = 0; i < h->n; i++)
		holder_done(&h->list[i]);
	free(h->list);
	*h = (struct tm_holders){ 0 };
}

void tm_holders_leave_out(struct tm_holders *h, bool (*which)(const struct tm_holder *holder))
{
	size_t kept = 0;

	for (size_t i = 0; i < h->n; i++) {
		if (which(&h->list[i]))
			holder_done(&h->list[i]);
		else
			h->list[kept++] = h->list[i];
	}
	h->n = kept;
}

/* A new one at the end, or NULL: -ENOMEM in *r, or there are enough. */
static struct tm_holder *add(struct find *f, enum tm_holder_kind kind,
			     const struct tm_stack_node *node, int *r)
{
	struct tm_holders *all = f->ret;
	struct tm_holder *h;

	if (all->n >= TM_HOLDERS_MAX) {
		all->cut = true;
		return NULL;
	}
	if (all->n == all->room) {
		const size_t room = all->room ? all->room * 2 : 16;

		h = reallocarray(all->list, room, sizeof(*h));
		if (!h) {
			*r = -ENOMEM;
			return NULL;
		}
		all->list = h;
		all->room = room;
	}
	h = &all->list[all->n++];
	*h = (struct tm_holder){ .kind = kind, .device = node->device, .held = node->dev };
	(void)snprintf(h->through, sizeof(h->through), "%s", node->name);
	return h;
}

static int say(struct tm_holder *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The text for people, and what it goes through. 0 or -ENOMEM. */
static int say(struct tm_holder *h, const char *fmt, ...)
{
	tm_auto_free char *what = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&what, fmt, ap);
	va_end(ap);
	if (r < 0) {
		what = NULL;
		return -ENOMEM;
	}
	if (!h->through[0])
		h->text = TM_TAKE(what);
	else if (asprintf(&h->text, "%s, on device %s", what, h->through) < 0)
		h->text = NULL;
	if (!h->text)
		return -ENOMEM;
	tm_utf8_clean(h->text);
	return 0;
}

/* ---- mounts --------------------------------------------------------------------------------- */

/* Whether a file system of this type lies on a block device, whatever its mounts show as theirs. */
static bool on_block_device(const struct find *f, const char *type)
{
	const size_t n = strlen(type);

	for (const char *line = f->file_systems; line && *line;) {
		/* "nodev\tproc" or "\text4" */
		if (line[0] == '\t' && !strncmp(line + 1, type, n) &&
		    (line[1 + n] == '\n' || !line[1 + n]))
			return true;
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return false;
}

/*
 * The device at @path as the process with the directory @dir sees it. Where openat2() is refused
 * (RestrictSUIDSGID= does that) it is not known; a Btrfs is then told of as what is on the device.
 */
static bool device_seen_by(int dir, const char *path, dev_t *ret)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	tm_auto_close int root = -1, fd = -1;
	struct stat st;

	if (strncmp(path, "/dev/", 5) != 0)
		return false;
	root = openat(dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return false;
	fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode))
		return false;
	*ret = st.st_rdev;
	return true;
}

/* The file system of a mount on @node. */
static int add_mount_of(struct find *f, const struct tm_mount_line *line, const char *base,
			const struct tm_process *process, uint64_t ns,
			const struct tm_stack_node *node)
{
	struct tm_holder *h;
	int r = 0;

	/* Two processes with different roots may both see it. */
	for (size_t i = 0; i < f->ret->n; i++)
		if (f->ret->list[i].mount.ns == ns && f->ret->list[i].mount.line.id == line->id &&
		    f->ret->list[i].held == node->dev && f->ret->list[i].device == node->device)
			return 0;
	h = add(f, TM_HOLDER_MOUNT, node, &r);
	if (!h)
		return r;
	h->mount.ns = ns;
	h->mount.here = ns == f->own_ns;
	h->mount.pid = process->pid;
	h->mount.seen_ticks = f->now_ticks;
	memcpy(h->mount.boot, f->boot, sizeof(f->boot));
	if (tm_mount_set_line(&h->mount, line, base) < 0)
		return -ENOMEM;
	if (h->mount.here)
		return say(h, "mounted at %s", h->mount.line.point);
	h->process = *process;
	return say(h, "mounted at %s in the mount namespace of process %d (%s)",
		   h->mount.line.point, (int)process->pid, process->comm);
}

static int add_mount_on(struct find *f, const struct tm_mount_line *line, const char *base,
			const struct tm_process *process, uint64_t ns, dev_t dev)
{
	const struct tm_stack_node *node;
	size_t at = 0;
	int r = 0;

	while (r == 0 && (node = tm_stack_next(&f->stack, dev, &at)) != NULL)
		r = add_mount_of(f, line, base, process, ns, node);
	return r;
}

/* One line of a mount table that was read in directory @dir of a process. */
static int look_at_mount(struct find *f, const struct tm_mount_line *line, int dir,
			 const char *base, const struct tm_process *process, uint64_t ns)
{
	const struct tm_stack *s = &f->stack;
	const char *btrfs;
	dev_t dev;
	int r = 0;

	if (line->major)
		return add_mount_on(f, line, base, process, ns, makedev(line->major, line->minor));
	/*
	 * A number that stands for no device, as Btrfs shows. What is mounted is then all there
	 * is to go by; of file systems without a device it is just a word, that anybody may choose.
	 */
	if (!on_block_device(f, line->type) || (tm_stack_path_device(s, line->source, &dev) < 0 &&
						!device_seen_by(dir, line->source, &dev)))
		return 0;
	btrfs = tm_stack_btrfs(s, dev);
	if (!btrfs)
		return add_mount_on(f, line, base, process, ns, dev);
	for (size_t i = 0; r == 0 && i < s->n_members; i++)
		if (!strcmp(s->members[i].fs, btrfs))
			r = add_mount_on(f, line, base, process, ns, s->members[i].dev);
	return r;
}

static int read_mounts(struct find *f, char *text, int dir, const char *base,
		       const struct tm_process *process, uint64_t ns)
{
	int r = 0;

	for (char *line = text, *end; r == 0 && line && *line; line = end) {
		struct tm_mount_line m;

		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (tm_mountinfo_parse(line, &m) == 0)
			r = look_at_mount(f, &m, dir, base, process, ns);
	}
	return r;
}

/* Whether nothing new is to be learned of @ns by reading it through a process with this root. */
static bool was_read(const struct find *f, uint64_t ns, const char *root)
{
	for (size_t i = 0; i < f->n_readers; i++)
		if (f->readers[i].ns == ns &&
		    (!strcmp(f->readers[i].root, "/") || !strcmp(f->readers[i].root, root)))
			return true;
	return false;
}

static int note_reader(struct find *f, uint64_t ns, const char *root)
{
	struct reader *reader;

	if ((f->n_readers & (f->n_readers - 1)) == 0) {
		reader = realloc(f->readers,
				 (f->n_readers ? f->n_readers * 2 : 1) * sizeof(*reader));
		if (!reader)
			return -ENOMEM;
		f->readers = reader;
	}
	reader = &f->readers[f->n_readers];
	*reader = (struct reader){ .ns = ns, .root = strdup(root) };
	if (!reader->root)
		return -ENOMEM;
	f->n_readers++;
	return 0;
}

/* Something could not be read. Of a process that ended that is nothing to tell. */
static void not_seen(struct find *f, int errnum)
{
	if (errnum == EACCES || errnum == EPERM)
		f->ret->unseen++;
}

/*
 * The mounts in the namespace of the process or thread with the directory @dir, unless they are
 * known. A namespace is done only when it was read: where its reader ends just then, the next
 * process that is in it serves.
 */
static int look_at_namespace(struct find *f, int dir, pid_t pid)
{
	const uint64_t ns = tm_mount_namespace(dir, "ns/mnt");
	tm_auto_free char *text = NULL;
	struct tm_process process;
	char root[PATH_MAX];
	size_t len;
	int r;

	(void)tm_read_link(dir, "root", root, sizeof(root));
	if (!ns || !root[0] || was_read(f, ns, root))
		return 0;
	r = tm_read_file_at(dir, "mountinfo", MOUNTINFO_MAX, &text, &len);
	if (r < 0)
		not_seen(f, -r);
	/* It may have ended, or moved on, while it was read. */
	if (r < 0 || tm_mount_namespace(dir, "ns/mnt") != ns)
		return r == -ENOMEM ? r : 0;
	r = note_reader(f, ns, root);
	if (r < 0)
		return r;
	tm_process_describe(dir, pid, &process);
	return read_mounts(f, text, dir, root, &process, ns);
}

/*
 * Call @fn for each thread of the process with the directory @dir but the first, which the process
 * itself shows. 0, or the first negative result. What ended meanwhile is left out.
 */
static int each_thread(struct find *f, int dir, pid_t pid,
		       int (*fn)(struct find *f, int task, int dir, pid_t tid, pid_t pid))
{
	tm_auto_closedir DIR *tasks = tm_open_dir(dir, "task");
	tm_auto_free pid_t *tids = NULL;
	size_t n = 0;
	int r = tasks ? tm_list_pids(tasks, &tids, &n) : 0;

	for (size_t i = 0; r >= 0 && i < n; i++) {
		tm_auto_close int task = -1;
		char name[16];

		if (tids[i] == pid)
			continue;
		(void)snprintf(name, sizeof(name), "%d", (int)tids[i]);
		task = openat(dirfd(tasks), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (task >= 0)
			r = fn(f, task, dir, tids[i], pid);
	}
	return r < 0 ? r : 0;
}

static int look_at_thread(struct find *f, int task, int dir, pid_t tid, pid_t pid)
{
	(void)dir, (void)pid;
	return look_at_namespace(f, task, tid);
}

static int open_process(struct find *f, pid_t pid)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", (int)pid);
	return openat(dirfd(f->proc), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int find_mounts(struct find *f, const pid_t *pids, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		tm_auto_close int dir = open_process(f, pids[i]);

		if (dir < 0)
			continue;
		r = look_at_namespace(f, dir, pids[i]);
		if (r == 0) /* threads may live in a namespace of their own */
			r = each_thread(f, dir, pids[i], look_at_thread);
	}
	return r;
}

/* Where a mount comes in the list. */
struct place {
	size_t ns;     /* how many namespaces come before its own */
	size_t length; /* of its path */
	size_t at;
};

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->ns != y->ns)
		return x->ns < y->ns ? -1 : 1;
	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/*
 * Each namespace's mounts after those they lie in, which the kernel's table does not promise: of
 * these the path is shorter, or the same where one covers the other, as the table has them.
 */
static int sort_mounts(struct find *f)
{
	struct tm_holders *all = f->ret;
	tm_auto_free struct place *places = NULL;
	struct tm_holder *sorted;

	if (!all->n)
		return 0;
	places = calloc(all->n, sizeof(*places));
	/* As large as the list's own memory, which it replaces. */
	sorted = reallocarray(NULL, all->room, sizeof(*sorted));
	if (!places || !sorted) {
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < all->n; i++) {
		struct place *p = &places[i];

		p->at = i;
		p->length = strlen(all->list[i].mount.line.point);
		while (p->ns < f->n_readers && f->readers[p->ns].ns != all->list[i].mount.ns)
			p->ns++;
	}
	qsort(places, all->n, sizeof(*places), compare_places);
	for (size_t i = 0; i < all->n; i++)
		sorted[i] = all->list[places[i].at];
	free(all->list);
	all->list = sorted;
	return 0;
}

/* ---- swap ----------------------------------------------------------------------------------- */

static int add_swap(struct find *f, const struct tm_swap_line *line, dev_t dev)
{
	const struct tm_stack_node *node;
	size_t at = 0;
	int r = 0;

	while (r == 0 && (node = tm_stack_next(&f->stack, dev, &at)) != NULL) {
		struct tm_holder *h = add(f, TM_HOLDER_SWAP, node, &r);

		if (!h)
			break;
		h->swap.is_file = line->is_file;
		h->swap.priority = line->priority;
		h->swap.path = strdup(line->path);
		if (!h->swap.path)
			return -ENOMEM;
		r = line->is_file ? say(h, "holds the swap file %s", line->path)
				  : say(h, "in use as swap");
	}
	return r;
}

static int find_swap(struct find *f)
{
	tm_auto_free char *text = NULL;
	int r = tm_read_file_at(dirfd(f->proc), "swaps", MOUNTINFO_MAX, &text, NULL);

	if (r < 0) /* a kernel without swap has no such file */
		return r == -ENOMEM ? r : 0;
	for (char *line = text, *end; r == 0 && line && *line; line = end) {
		struct tm_swap_line s;
		struct statx st;
		dev_t dev;

		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (tm_swaps_parse(line, &s) < 0)
			continue;
		if (!s.is_file) {
			if (tm_stack_path_device(&f->stack, s.path, &dev) == 0)
				r = add_swap(f, &s, dev);
		} else if (statx(AT_FDCWD, s.path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE,
				 &st) == 0) {
			r = add_swap(f, &s, makedev(st.stx_dev_major, st.stx_dev_minor));
		}
	}
	return r;
}

/* ---- processes ------------------------------------------------------------------------------ */

static int add_process(struct find *f, int dir, pid_t pid, const struct tm_stack_node *node)
{
	struct tm_holder *h;
	int r = 0;

	/* However often it has it open; what was found of it is at the end. */
	for (size_t i = f->ret->n; i && f->ret->list[i - 1].kind == TM_HOLDER_PROCESS; i--) {
		h = &f->ret->list[i - 1];
		if (h->process.pid != pid)
			break;
		if (h->device == node->device && h->held == node->dev)
			return 0;
	}
	h = add(f, TM_HOLDER_PROCESS, node, &r);
	if (!h)
		return r;
	tm_process_describe(dir, pid, &h->process);
	return say(h, "open in process %d (%s)", (int)pid, h->process.comm);
}

/* The descriptors of a process or thread. The number of them, or -ENOMEM. */
static int look_at_descriptors(struct find *f, int dir, int process_dir, pid_t pid)
{
	tm_auto_closedir DIR *fds = tm_open_dir(dir, "fd");
	const char *name;
	int n = 0;

	if (!fds) {
		not_seen(f, errno);
		return 0;
	}
	while ((name = tm_next_entry(fds)) != NULL) {
		const struct tm_stack_node *node;
		struct statx st;
		size_t at = 0;
		int r = 0;

		n++;
		/* Of a file on a server that is gone it must not ask the server. */
		if (statx(dirfd(fds), name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) <
			    0 ||
		    !S_ISBLK(st.stx_mode))
			continue;
		while (r == 0 && (node = tm_stack_next(
					  &f->stack, makedev(st.stx_rdev_major, st.stx_rdev_minor),
					  &at)) != NULL)
			r = add_process(f, process_dir, pid, node);
		if (r < 0)
			return r;
	}
	return n;
}

static int look_at_thread_descriptors(struct find *f, int task, int dir, pid_t tid, pid_t pid)
{
	(void)tid;
	return look_at_descriptors(f, task, dir, pid);
}

static int find_processes(struct find *f, const pid_t *pids, size_t n)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < n; i++) {
		tm_auto_close int dir = -1;

		if (pids[i] == f->self)
			continue;
		dir = open_process(f, pids[i]);
		if (dir < 0)
			continue;
		r = look_at_descriptors(f, dir, dir, pids[i]);
		/* It lives on while any thread does, but shows none once its first ended. */
		if (r == 0)
			r = each_thread(f, dir, pids[i], look_at_thread_descriptors);
	}
	return r < 0 ? r : 0;
}

/* ---- devices -------------------------------------------------------------------------------- */

static bool mount_found(const struct find *f, const struct tm_stack_node *node)
{
	for (size_t i = 0; i < f->ret->n; i++)
		if (f->ret->list[i].kind == TM_HOLDER_MOUNT && f->ret->list[i].held == node->dev)
			return true;
	return false;
}

static int find_devices(struct find *f)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < f->stack.n; i++) {
		const struct tm_stack_node *node = &f->stack.nodes[i];
		const char *btrfs = tm_stack_btrfs(&f->stack, node->dev);
		struct tm_holder *h;

		if (node->stacked) {
			h = add(f, TM_HOLDER_DEVICE, node, &r);
			if (!h)
				break;
			(void)snprintf(h->name, sizeof(h->name), "%s", node->name);
			h->through[0] = '\0';
			r = say(h, "below device %s", node->name);
		}
		/* Mounted, though no mount was found, perhaps by another name. */
		if (r == 0 && btrfs && !mount_found(f, node)) {
			h = add(f, TM_HOLDER_DEVICE, node, &r);
			if (!h)
				break;
			(void)snprintf(h->name, sizeof(h->name), "btrfs %s", btrfs);
			r = say(h, "in use by the btrfs file system %s", btrfs);
		}
	}
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void find_self(struct find *f)
{
	tm_auto_close int dir = openat(dirfd(f->proc), "self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[32];
	int pid;

	if (dir < 0)
		return;
	f->own_ns = tm_mount_namespace(dir, "ns/mnt");
	if (sscanf(tm_read_link(dirfd(f->proc), "self", text, sizeof(text)), "%10d", &pid) == 1)
		f->self = pid;
}

static int find_all(struct find *f)
{
	tm_auto_free pid_t *pids = NULL;
	tm_auto_close int self = -1;
	size_t n = 0;
	int r = tm_list_pids(f->proc, &pids, &n);

	/* Of its own namespace the daemon sees all, and first. */
	if (r == 0 && f->self)
		self = open_process(f, f->self);
	if (self >= 0)
		r = look_at_namespace(f, self, f->self);
	if (r == 0)
		r = find_mounts(f, pids, n);
	if (r == 0)
		r = sort_mounts(f);
	if (r == 0)
		r = find_swap(f);
	if (r == 0)
		r = find_processes(f, pids, n);
	return r == 0 ? find_devices(f) : r;
}

int tm_holders_find(const dev_t *devices, size_t n, const char *proc, const char *sys,
		    struct tm_holders *ret, struct tm_error *err)
{
	struct find f = { .ret = ret, .now_ticks = tm_boot_ticks() };
	int r;

	*ret = (struct tm_holders){ 0 };
	r = tm_stack_build(devices, n, sys, &f.stack);
	if (r == -ENOMEM)
		return out_of_memory(err);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r,
				    "cannot see in \"%s\" what stands on the volumes: %s", sys,
				    strerrordesc_np(-r));
	f.proc = tm_open_dir(AT_FDCWD, proc);
	if (!f.proc) {
		r = tm_error_set(err, TM_ERR_IO, errno,
				 "cannot see in \"%s\" who uses the volumes: %s", proc,
				 strerrordesc_np(errno));
	} else {
		find_self(&f);
		tm_boot_id(dirfd(f.proc), f.boot);
		(void)tm_read_file_at(dirfd(f.proc), "filesystems", SMALL_MAX, &f.file_systems,
				      NULL);
		if (find_all(&f) < 0)
			r = out_of_memory(err);
		(void)closedir(f.proc);
	}
	if (r < 0)
		tm_holders_done(ret);
	for (size_t i = 0; i < f.n_readers; i++)
		free(f.readers[i].root);
	free(f.readers);
	free(f.file_systems);
	tm_stack_done(&f.stack);
	return r;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* New reference: null for "", and what people may read. NULL when out of memory. */
static json_t *clean(const char *text)
{
	tm_auto_free char *copy = NULL;

	if (!text || !text[0])
		return json_null();
	copy = strdup(text);
	if (!copy)
		return NULL;
	tm_utf8_clean(copy);
	return json_string(copy);
}

static json_t *number(uint64_t value)
{
	return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *holder_json(const struct tm_holder *h, const dev_t *devices)
{
	static const char *const kinds[] = {
		[TM_HOLDER_MOUNT] = "mount",
		[TM_HOLDER_SWAP] = "swap",
		[TM_HOLDER_PROCESS] = "process",
		[TM_HOLDER_DEVICE] = "device",
	};
	const bool elsewhere = h->kind == TM_HOLDER_MOUNT && !h->mount.here;
	const dev_t dev = devices[h->device];
	char device[32];

	(void)snprintf(device, sizeof(device), "%u:%u", major(dev), minor(dev));
	return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
			 "kind", kinds[h->kind], "text", clean(h->text), "device", device,
			 "through", clean(h->through), "mount_point", clean(h->mount.line.point),
			 "file_system", clean(h->mount.line.type), "options",
			 clean(h->mount.line.options), "namespace",
			 number(elsewhere ? h->mount.ns : 0), "path", clean(h->swap.path), "name",
			 clean(h->name), "pid", number((uint64_t)h->process.pid), "comm",
			 clean(h->process.comm), "unit", clean(h->process.unit));
}

json_t *tm_holders_json(const struct tm_holders *h, const dev_t *devices)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < h->n; i++) {
		if (json_array_append_new(array, holder_json(&h->list[i], devices)) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}
