// SPDX-License-Identifier: GPL-2.0-or-later
#include "dm/dm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/units.h"
#include "dm/wire.h"

#define CONTROL_PATH "/dev/" DM_DIR "/" DM_CONTROL_NODE

/* A status or table line of one of our targets is far below this; longer ones are read again. */
#define LINE_BUFFER  2048
#define LIST_BUFFER  8192
#define BUFFER_LIMIT ((size_t)64 << 20)
/* The answer to a message of ours is far below the first; a newer target may have more to say. */
#define MESSAGE_BUFFER ((size_t)8192)
#define MESSAGE_LIMIT  ((size_t)1 << 20)

_Static_assert((int)TM_DM_WIRE_UDEV_NO_SUBSYSTEM == DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG &&
		       (int)TM_DM_WIRE_UDEV_NO_DISK == DM_UDEV_DISABLE_DISK_RULES_FLAG &&
		       (int)TM_DM_WIRE_UDEV_NO_OTHER == DM_UDEV_DISABLE_OTHER_RULES_FLAG &&
		       (int)TM_DM_WIRE_UDEV_RELY == DM_UDEV_DISABLE_LIBRARY_FALLBACK &&
		       (int)TM_DM_WIRE_UDEV_PRIMARY == DM_UDEV_PRIMARY_SOURCE_FLAG &&
		       (int)TM_DM_WIRE_UDEV_SHIFT == DM_UDEV_FLAGS_SHIFT,
	       "wire.h has the library's flags");

struct tm_dm {
	int control_fd;              /* requests of our own, and the event poll */
	pthread_mutex_t library;     /* held around everything of libdevmapper */
	_Atomic(size_t) list_buffer; /* size that held the last list */
};

/* ---- errors ------------------------------------------------------------------------------- */

static const char *errno_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	return text ? text : "Unknown error";
}

static enum tm_error_code code_of(int errnum)
{
	switch (errnum) {
	case EBUSY:
		return TM_ERR_BUSY;
	case EEXIST:
		return TM_ERR_EXISTS;
	case ENOMEM:
		return TM_ERR_NO_MEMORY;
	case EPERM:
	case EACCES:
		return TM_ERR_FORBIDDEN;
	default:
		return TM_ERR_KERNEL;
	}
}

/* @request reads on as "cannot <request> device-mapper device "x": why". */
static int fail(struct tm_error *err, int errnum, const char *request, const char *name)
{
	int r = tm_error_set(err, code_of(errnum), errnum,
			     "cannot %s device-mapper device \"%s\": %s", request, name,
			     errnum == ENXIO ? "there is no such device" : errno_text(errnum));

	if (errnum == EPERM || errnum == EACCES)
		tm_error_hint(err, "run the daemon as root with CAP_SYS_ADMIN");
	return r;
}

/* ---- requests of our own ------------------------------------------------------------------ */

static int control(struct tm_dm *dm, unsigned long request, struct dm_ioctl *io)
{
	return ioctl(dm->control_fd, request, io) < 0 ? -errno : 0;
}

/* A request that has no more than the header. */
static int simple(struct tm_dm *dm, unsigned long request, struct dm_ioctl *io, const char *name,
		  uint32_t flags)
{
	int r = tm_dm_wire_header(io, sizeof(*io), name, flags);

	return r < 0 ? r : control(dm, request, io);
}

/* ---- libdevmapper ------------------------------------------------------------------------- */

__attribute__((format(printf, 5, 6))) static void library_log(int level, const char *file, int line,
							      int dm_errno_or_class,
							      const char *fmt, ...)
{
	char text[512];
	va_list ap;

	/* Its messages say less than the errno, which goes into the error of the call. */
	(void)level, (void)dm_errno_or_class;
	if (tm_log_level() < LOG_DEBUG)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tm_log(LOG_DEBUG, "libdevmapper %s:%d: %s", file, line, text);
}

static void task_free(struct dm_task **task)
{
	if (*task)
		dm_task_destroy(*task);
}
#define auto_task tm_cleanup(task_free)

/*
 * Run @task under the library's mutex, which the caller holds. Releasing afterwards empties the
 * list of node operations (all left to udev) and closes the library's control
 * file, which is not close-on-exec and must not reach the programs we start.
 */
static int library_run(struct dm_task *task)
{
	int r = 0;

	if (!dm_task_run(task)) {
		r = -dm_task_get_errno(task);
		if (r == 0)
			r = -EIO;
	}
	dm_lib_release();
	return r;
}

/* A task whose uevent carries the flags of @udev. NULL when out of memory. */
static struct dm_task *library_task(int type, const char *name, enum tm_dm_udev udev)
{
	uint32_t cookie = 0; /* no semaphore: synchronisation is off */
	auto_task struct dm_task *task = dm_task_create(type);

	if (!task || !dm_task_set_name(task, name) ||
	    !dm_task_set_cookie(task, &cookie, tm_dm_wire_udev_flags(udev)))
		return NULL;
	return TM_TAKE(task);
}

/* Names the kernel would cut or the library would take for a path. */
static int check_name(const char *name, const char *request, struct tm_error *err)
{
	size_t len = strlen(name);

	if (len == 0 || len >= TM_DM_NAME_SIZE || strchr(name, '/'))
		return tm_error_set(err, TM_ERR_BAD_NAME, EINVAL,
				    "cannot %s device-mapper device \"%.140s\": not a valid name",
				    request, name);
	return 0;
}

/* ---- life --------------------------------------------------------------------------------- */

int tm_dm_new(struct tm_dm **ret, struct tm_error *err)
{
	struct dm_ioctl io;
	int r;

	*ret = NULL;
	tm_auto_close int fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		int errnum = errno;

		if (errnum == EPERM || errnum == EACCES) {
			r = tm_error_set(err, TM_ERR_FORBIDDEN, errnum, "cannot open %s: %s",
					 CONTROL_PATH, errno_text(errnum));
			tm_error_hint(err, "run the daemon as root with CAP_SYS_ADMIN");
			return r;
		}
		r = tm_error_set(err, TM_ERR_TARGET_MISSING, errnum,
				 "the kernel has no device-mapper: cannot open %s: %s",
				 CONTROL_PATH, errno_text(errnum));
		tm_error_hint(err, "load it with \"modprobe dm-mod\" or boot a kernel that has it");
		return r;
	}

	tm_auto_free struct tm_dm *dm = calloc(1, sizeof(*dm));
	if (!dm)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	dm->control_fd = fd;
	atomic_init(&dm->list_buffer, LIST_BUFFER);

	r = simple(dm, DM_VERSION, &io, NULL, 0);
	if (r < 0)
		return tm_error_set(err, code_of(-r), -r, "cannot read device-mapper's version: %s",
				    errno_text(-r));
	r = pthread_mutex_init(&dm->library, NULL);
	if (r != 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, r, "cannot make a mutex: %s",
				    errno_text(r));

	/* Process-wide settings of the library: one struct tm_dm in a process. */
	dm_log_with_errno_init(library_log);
	dm_udev_set_sync_support(0);
	(void)dm_set_name_mangling_mode(DM_STRING_MANGLING_NONE);

	(void)TM_TAKE_FD(fd);
	*ret = TM_TAKE(dm);
	return 0;
}

struct tm_dm *tm_dm_free(struct tm_dm *dm)
{
	if (!dm)
		return NULL;
	(void)pthread_mutex_destroy(&dm->library);
	(void)close(dm->control_fd);
	free(dm);
	return NULL;
}

/* ---- devices and tables ------------------------------------------------------------------- */

int tm_dm_create(struct tm_dm *dm, const char *name, const char *uuid, enum tm_dm_udev udev,
		 struct tm_error *err)
{
	int r = check_name(name, "create", err);

	if (r < 0)
		return r;
	if (strlen(uuid) >= TM_DM_UUID_SIZE)
		return tm_error_set(
			err, TM_ERR_BAD_NAME, ENAMETOOLONG,
			"cannot create device-mapper device \"%s\": its uuid is too long", name);

	TM_LOCK_SCOPE(&dm->library);
	auto_task struct dm_task *task = library_task(DM_DEVICE_CREATE, name, udev);
	if (!task || !dm_task_set_uuid(task, uuid))
		return fail(err, ENOMEM, "create", name);
	r = library_run(task);
	if (r == -EBUSY || r == -EEXIST)
		return tm_error_set(err, TM_ERR_EXISTS, -r,
				    "cannot create device-mapper device \"%s\": a device of that "
				    "name or uuid exists",
				    name);
	return r < 0 ? fail(err, -r, "create", name) : 0;
}

int tm_dm_load(struct tm_dm *dm, const char *name, const struct tm_dm_target *targets, size_t n,
	       bool read_only, struct tm_error *err)
{
	tm_auto_free struct dm_ioctl *io = NULL;
	int r = tm_dm_wire_load(name, targets, n, read_only, &io);

	if (r < 0)
		return fail(err, -r, "build a table for", name);
	r = control(dm, DM_TABLE_LOAD, io);
	if (r == 0)
		return 0;
	r = tm_error_set(err, code_of(-r), -r,
			 "the kernel refused the %s table \"%.160s\" for device-mapper device "
			 "\"%s\": %s",
			 targets[0].type, targets[0].params, name,
			 r == -ENXIO ? "there is no such device" : errno_text(-r));
	tm_error_hint(err, "the kernel log says more: journalctl -k");
	return r;
}

int tm_dm_clear(struct tm_dm *dm, const char *name, struct tm_error *err)
{
	struct dm_ioctl io;
	int r = simple(dm, DM_TABLE_CLEAR, &io, name, 0);

	return r < 0 ? fail(err, -r, "clear the inactive table of", name) : 0;
}

int tm_dm_suspend(struct tm_dm *dm, const char *name, unsigned int flags, struct tm_error *err)
{
	struct dm_ioctl io;
	int r = simple(dm, DM_DEV_SUSPEND, &io, name,
		       DM_SUSPEND_FLAG | tm_dm_wire_suspend_flags(flags));

	return r < 0 ? fail(err, -r, "suspend", name) : 0;
}

int tm_dm_resume(struct tm_dm *dm, const char *name, unsigned int flags, enum tm_dm_udev udev,
		 struct tm_error *err)
{
	struct dm_ioctl io;
	int r = tm_dm_wire_header(&io, sizeof(io), name, tm_dm_wire_suspend_flags(flags));

	if (r == 0) {
		io.event_nr = tm_dm_wire_cookie(udev);
		r = control(dm, DM_DEV_SUSPEND, &io);
	}
	return r < 0 ? fail(err, -r, "resume", name) : 0;
}

static int remove_once(struct tm_dm *dm, const char *name, enum tm_dm_udev udev)
{
	TM_LOCK_SCOPE(&dm->library);
	auto_task struct dm_task *task = library_task(DM_DEVICE_REMOVE, name, udev);

	return task ? library_run(task) : -ENOMEM;
}

int tm_dm_remove(struct tm_dm *dm, const char *name, enum tm_dm_udev udev, unsigned int wait_ms,
		 struct tm_error *err)
{
	const uint64_t until = tm_now_monotonic_usec() + wait_ms * TM_USEC_PER_MSEC;
	long pause_ms = 5;
	int r = check_name(name, "remove", err);

	if (r < 0)
		return r;
	for (;;) {
		r = remove_once(dm, name, udev);
		if (r != -EBUSY || tm_now_monotonic_usec() >= until)
			break;
		struct timespec pause = { .tv_nsec = pause_ms * 1000000 };

		(void)nanosleep(&pause, NULL);
		if (pause_ms < 80)
			pause_ms *= 2;
	}
	if (r == -EBUSY) {
		r = tm_error_set(err, TM_ERR_BUSY, EBUSY,
				 "cannot remove device-mapper device \"%s\": it is in use", name);
		tm_error_hint(err, "unmount it, or close the programs that have it open "
				   "(fuser -vm, dmsetup ls --tree)");
		return r;
	}
	return r < 0 ? fail(err, -r, "remove", name) : 0;
}

int tm_dm_rename(struct tm_dm *dm, const char *from, const char *to, struct tm_error *err)
{
	int r = check_name(from, "rename", err);

	if (r == 0)
		r = check_name(to, "rename to", err);
	if (r < 0)
		return r;

	TM_LOCK_SCOPE(&dm->library);
	auto_task struct dm_task *task = library_task(DM_DEVICE_RENAME, from, TM_DM_UDEV_FULL);
	if (!task || !dm_task_set_newname(task, to))
		return fail(err, ENOMEM, "rename", from);
	r = library_run(task);
	if (r == -EBUSY || r == -EEXIST)
		return tm_error_set(err, TM_ERR_EXISTS, -r,
				    "cannot rename device-mapper device \"%s\": a device \"%s\" "
				    "exists",
				    from, to);
	return r < 0 ? fail(err, -r, "rename", from) : 0;
}

/* Send @message with room for an answer. *ret is the caller's to free. */
static int send_message(struct tm_dm *dm, const char *name, const char *message, size_t room,
			struct dm_ioctl **ret)
{
	int r = tm_dm_wire_message(name, message, room, ret);

	return r < 0 ? r : control(dm, DM_TARGET_MSG, *ret);
}

static int message_refused(struct tm_error *err, int errnum, const char *message, const char *name)
{
	return tm_error_set(err, code_of(errnum), errnum,
			    "device-mapper device \"%s\" refused the message \"%.100s\": %s", name,
			    message,
			    errnum == ENXIO ? "there is no such device" : errno_text(errnum));
}

int tm_dm_message(struct tm_dm *dm, const char *name, const char *message, struct tm_error *err)
{
	tm_auto_free struct dm_ioctl *io = NULL;
	int r = send_message(dm, name, message, 0, &io);

	return r < 0 ? message_refused(err, -r, message, name) : 0;
}

int tm_dm_ask(struct tm_dm *dm, const char *name, const char *message, char **ret,
	      struct tm_error *err)
{
	int r;

	*ret = NULL;
	for (size_t room = MESSAGE_BUFFER;; room *= 2) {
		tm_auto_free struct dm_ioctl *io = NULL;

		r = send_message(dm, name, message, room, &io);
		if (r < 0)
			return message_refused(err, -r, message, name);
		if (!(io->flags & DM_BUFFER_FULL_FLAG)) {
			r = tm_dm_wire_parse_message(io, sizeof(*io) + room, ret);
			break;
		}
		r = -E2BIG;
		if (room >= MESSAGE_LIMIT)
			break;
	}
	return r == 0 ? 0
		      : tm_error_set(err, code_of(-r), -r,
				     "device-mapper device \"%s\" did not answer the message "
				     "\"%.100s\" as expected: %s",
				     name, message, errno_text(-r));
}

/* ---- looking ------------------------------------------------------------------------------ */

int tm_dm_info(struct tm_dm *dm, const char *name, struct tm_dm_info *ret, struct tm_error *err)
{
	struct dm_ioctl io;
	int r = simple(dm, DM_DEV_STATUS, &io, name, 0);

	memset(ret, 0, sizeof(*ret));
	if (r == -ENXIO)
		return 0;
	if (r < 0)
		return fail(err, -r, "look at", name);
	ret->exists = true;
	ret->major = major(io.dev);
	ret->minor = minor(io.dev);
	ret->open_count = io.open_count;
	ret->suspended = io.flags & DM_SUSPEND_FLAG;
	ret->live_table = io.flags & DM_ACTIVE_PRESENT_FLAG;
	ret->inactive_table = io.flags & DM_INACTIVE_PRESENT_FLAG;
	ret->read_only = io.flags & DM_READONLY_FLAG;
	ret->event_nr = io.event_nr;
	(void)snprintf(ret->uuid, sizeof(ret->uuid), "%.*s", (int)sizeof(io.uuid) - 1, io.uuid);
	return 0;
}

/* A request whose answer may be longer than the buffer. */
struct answer {
	struct dm_ioctl *io;
	size_t size;
	void *heap; /* NULL while the caller's own buffer is enough */
};

/* Ask until the answer fits. -E2BIG when it never does. The caller frees answer->heap. */
static int ask(struct tm_dm *dm, unsigned long request, const char *name, uint32_t flags,
	       struct answer *answer)
{
	for (;;) {
		int r = tm_dm_wire_header(answer->io, (uint32_t)answer->size, name, flags);

		if (r == 0)
			r = control(dm, request, answer->io);
		if (r < 0 || !(answer->io->flags & DM_BUFFER_FULL_FLAG))
			return r;

		size_t size = answer->size * 2;
		if (size > BUFFER_LIMIT)
			return -E2BIG;
		free(answer->heap);
		/* Cleared, for the kernel copies it in whole. */
		answer->heap = calloc(1, size);
		if (!answer->heap)
			return -ENOMEM;
		answer->io = answer->heap;
		answer->size = size;
	}
}

int tm_dm_line(struct tm_dm *dm, const char *name, bool table, char *type, size_t type_len,
	       uint64_t *ret_length_sectors, char *params, size_t params_len, struct tm_error *err)
{
	union {
		struct dm_ioctl io;
		char room[LINE_BUFFER];
	} buffer = { .room = { 0 } };
	struct answer answer = { .io = &buffer.io, .size = sizeof(buffer) };
	int r = ask(dm, DM_TABLE_STATUS, name, table ? DM_STATUS_TABLE_FLAG : DM_NOFLUSH_FLAG,
		    &answer);

	if (r == 0)
		r = tm_dm_wire_parse_line(answer.io, answer.size, type, type_len,
					  ret_length_sectors, params, params_len);
	free(answer.heap);
	if (r == -ENODATA)
		return tm_error_set(err, TM_ERR_KERNEL, ENODATA,
				    "device-mapper device \"%s\" has no live table", name);
	return r < 0 ? fail(err, -r, table ? "read the table of" : "read the status of", name) : 0;
}

int tm_dm_list(struct tm_dm *dm, struct tm_dm_entry **ret, size_t *ret_n, struct tm_error *err)
{
	const size_t hint = atomic_load_explicit(&dm->list_buffer, memory_order_relaxed);
	void *first = calloc(1, hint);
	struct answer answer = { .io = first, .size = hint, .heap = first };
	int r;

	*ret = NULL;
	*ret_n = 0;
	if (!first)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	r = ask(dm, DM_LIST_DEVICES, NULL, 0, &answer);
	if (r == 0) {
		if (answer.size != hint)
			atomic_store_explicit(&dm->list_buffer, answer.size, memory_order_relaxed);
		r = tm_dm_wire_parse_list(answer.io, answer.size, ret, ret_n);
	}
	free(answer.heap);
	if (r < 0)
		return tm_error_set(err, code_of(-r), -r, "cannot list device-mapper devices: %s",
				    errno_text(-r));
	return 0;
}

int tm_dm_target_version(struct tm_dm *dm, const char *target, unsigned int ret_version[3],
			 struct tm_error *err)
{
	TM_LOCK_SCOPE(&dm->library);
	/* The whole list: asking for one target by name would make the kernel load its module. */
	auto_task struct dm_task *task = dm_task_create(DM_DEVICE_LIST_VERSIONS);
	int r = task ? library_run(task) : -ENOMEM;

	if (r < 0)
		return tm_error_set(err, code_of(-r), -r, "cannot list device-mapper's targets: %s",
				    errno_text(-r));
	for (const struct dm_versions *v = dm_task_get_versions(task); v && v->name[0];) {
		if (strcmp(v->name, target) == 0) {
			for (size_t i = 0; i < 3; i++)
				ret_version[i] = v->version[i];
			return 0;
		}
		if (v->next == 0)
			break;
		v = (const void *)((const char *)v + v->next);
	}
	return tm_error_set(err, TM_ERR_TARGET_MISSING, ENOENT,
			    "the kernel has no device-mapper target \"%s\" registered", target);
}

/* ---- events ------------------------------------------------------------------------------- */

int tm_dm_poll_fd(struct tm_dm *dm)
{
	return dm->control_fd;
}

int tm_dm_poll_arm(struct tm_dm *dm, struct tm_error *err)
{
	struct dm_ioctl io;
	int r = simple(dm, DM_DEV_ARM_POLL, &io, NULL, 0);

	if (r == 0)
		return 0;
	r = tm_error_set(err, code_of(-r), -r, "cannot arm device-mapper's event poll: %s",
			 errno_text(-r));
	tm_error_hint(err, "kernel 4.13 or newer is needed");
	return r;
}
