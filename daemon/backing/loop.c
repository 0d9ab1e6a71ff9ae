// SPDX-License-Identifier: GPL-2.0-or-later
#include "backing/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/units.h"

/*
 * A limit of size that limits nothing, "thinmgr" in ASCII: packaging/56-thinmgr.rules knows our
 * loop devices by it, which are not to be scanned. They are larger than their files, and the end of
 * such a device, where scanners look, cannot be read.
 */
#define LOOP_MARK 0x7468696e6d677200ULL

#define LOOP_CONTROL "/dev/loop-control"

/* Others may take the free device we were told of; each try finds another. */
#define ATTACH_TRIES 64

#define MINOR_MAX ((1u << 20) - 1)

/* The largest logical block size a loop device takes. */
#define BLOCK_SIZE_MAX 4096

static const char *errno_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	return text ? text : "Unknown error";
}

static int fail(struct tm_error *err, int errnum, const char *what, const char *path)
{
	enum tm_error_code code = errnum == ENOMEM ? TM_ERR_NO_MEMORY : TM_ERR_IO;

	return tm_error_set(err, code, errnum, "cannot %s \"%.300s\": %s", what, path,
			    errno_text(errnum));
}

/* ---- finding ------------------------------------------------------------------------------ */

/* Called for a loop device on the file; the walk ends at the first result other than 0. */
typedef int (*loop_fn)(int loop_fd, unsigned int number, const struct loop_info64 *info,
		       void *userdata);

static void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* Call @fn when loop device @number is on the file. Devices that vanish meanwhile are not ours. */
static int visit(unsigned int number, const struct stat *file, loop_fn fn, void *userdata)
{
	char path[32];
	struct loop_info64 info;

	(void)snprintf(path, sizeof(path), "/dev/loop%u", number);
	/* For reading: closing a device opened for writing makes udev probe it. */
	tm_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO || errno == ENODEV ? 0 : -errno;
	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return errno == ENXIO ? 0 : -errno;
	if (info.lo_device != file->st_dev || info.lo_inode != file->st_ino ||
	    info.lo_offset != 0 || (info.lo_sizelimit != 0 && info.lo_sizelimit != LOOP_MARK))
		return 0;
	return fn(fd, number, &info, userdata);
}

/* 0 when all were visited, -errno, or what @fn returned. */
static int each_loop(int file_fd, loop_fn fn, void *userdata)
{
	struct stat file;
	tm_cleanup(closedirp) DIR *dir = opendir("/sys/block");

	if (!dir)
		return -errno;
	if (fstat(file_fd, &file) < 0)
		return -errno;
	for (;;) {
		const struct dirent *entry;
		unsigned long number;
		char *end;
		int r;

		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return -errno;
		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		number = strtoul(entry->d_name + 4, &end, 10);
		if (end == entry->d_name + 4 || *end || number > MINOR_MAX)
			continue;
		/* Unbound ones need not be opened. */
		char bound[64];
		(void)snprintf(bound, sizeof(bound), "loop%lu/loop", number);
		if (faccessat(dirfd(dir), bound, F_OK, 0) < 0)
			continue;
		r = visit((unsigned int)number, &file, fn, userdata);
		if (r != 0)
			return r;
	}
}

/* ---- attaching ---------------------------------------------------------------------------- */

/* Alignment direct I/O on the file wants: 0 when it cannot be had, -1 when the kernel does not
 * tell. */
static int direct_io_alignment(int file_fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(file_fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN))
		return stx.stx_dio_offset_align <= BLOCK_SIZE_MAX ? (int)stx.stx_dio_offset_align
								  : 0;
#else
	(void)file_fd;
#endif
	return -1;
}

/* An ioctl that may find the device's cache busy for a moment. */
static int patient_ioctl(int fd, unsigned long request, unsigned long arg)
{
	for (int i = 0;; i++) {
		if (ioctl(fd, request, arg) == 0)
			return 0;
		if (errno != EAGAIN || i == 10)
			return -errno;
		(void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

static bool has_direct_io(int loop_fd)
{
	struct loop_info64 info;

	return ioctl(loop_fd, LOOP_GET_STATUS64, &info) == 0 &&
	       (info.lo_flags & LO_FLAGS_DIRECT_IO);
}

/* The kernel quietly falls back to buffered I/O when the blocks are too small. */
static bool try_larger_blocks(int loop_fd)
{
	if (patient_ioctl(loop_fd, LOOP_SET_BLOCK_SIZE, BLOCK_SIZE_MAX) < 0)
		return false;
	if (patient_ioctl(loop_fd, LOOP_SET_DIRECT_IO, 1) == 0)
		return true;
	(void)patient_ioctl(loop_fd, LOOP_SET_BLOCK_SIZE, 512);
	return false;
}

/* One try to make a loop device larger than its file. -EFBIG: no file can be that large. */
static int stretch(int loop_fd, int file_fd, uint64_t file_bytes, uint64_t bytes)
{
	const bool longer = bytes > file_bytes;
	int r = 0;

	if (longer && ftruncate(file_fd, (off_t)bytes) < 0)
		return -errno;
	if (ioctl(loop_fd, LOOP_SET_CAPACITY, 0) < 0)
		r = -errno;
	if (longer && ftruncate(file_fd, (off_t)file_bytes) < 0 && r == 0)
		r = -errno;
	return r;
}

/* Make it as large as the file, better @wish. */
static int enlarge(int loop_fd, int file_fd, uint64_t wish)
{
	uint64_t has, least;
	struct stat st;
	int r;

	if (fstat(file_fd, &st) < 0 || ioctl(loop_fd, BLKGETSIZE64, &has) < 0)
		return -errno;
	least = (uint64_t)st.st_size;
	wish = tm_round_down(wish < INT64_MAX ? wish : INT64_MAX, BLOCK_SIZE_MAX);
	if (wish < least)
		wish = least;
	if (has >= wish)
		return 0;
	while ((r = stretch(loop_fd, file_fd, least, wish)) == -EFBIG && wish > least)
		wish = wish - least < TM_MIB
			       ? least
			       : tm_round_down(least + (wish - least) / 2, BLOCK_SIZE_MAX);
	return r;
}

static int fill(int loop_fd, bool direct_io, struct tm_loop *ret)
{
	struct stat st;

	if (fstat(loop_fd, &st) < 0 || ioctl(loop_fd, BLKGETSIZE64, &ret->bytes) < 0)
		return -errno;
	ret->major = major(st.st_rdev);
	ret->minor = minor(st.st_rdev);
	ret->direct_io = direct_io;
	return 0;
}

/* The same while nobody uses the device: nothing was written, and the time of the file says so. */
static int enlarge_unused(int loop_fd, int file_fd, uint64_t wish)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;
	int r;

	if (fstat(file_fd, &st) < 0)
		return -errno;
	times[1] = st.st_mtim;
	r = enlarge(loop_fd, file_fd, wish);
	return r == 0 && futimens(file_fd, times) < 0 ? -errno : r;
}

/* One try with the loop device the kernel calls free. -EBUSY: somebody else was faster. */
static int configure_free(int control_fd, int file_fd, const char *path, uint64_t wish,
			  struct tm_loop *ret)
{
	int alignment = direct_io_alignment(file_fd);
	struct loop_config config = {
		.fd = (uint32_t)file_fd,
		.block_size = alignment > 512 ? (uint32_t)alignment : 512,
		.info.lo_sizelimit = LOOP_MARK,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | (alignment != 0 ? LO_FLAGS_DIRECT_IO : 0),
	};
	char device[32];
	bool direct_io;
	int number = ioctl(control_fd, LOOP_CTL_GET_FREE);

	if (number < 0)
		return -errno;
	(void)snprintf(device, sizeof(device), "/dev/loop%d", number);
	tm_auto_close int fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO ? -EBUSY : -errno;
	(void)snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%s",
		       path);
	if (ioctl(fd, LOOP_CONFIGURE, &config) < 0)
		return -errno;

	direct_io = has_direct_io(fd);
	if (!direct_io && alignment < 0)
		direct_io = try_larger_blocks(fd);
	int r = enlarge_unused(fd, file_fd, wish);
	if (r == 0)
		r = fill(fd, direct_io, ret);
	if (r == 0)
		ret->fd = TM_TAKE_FD(fd);
	return r;
}

struct taking {
	int file_fd;
	uint64_t wish;
	struct tm_loop *ret;
};

static int take_existing(int loop_fd, unsigned int number, const struct loop_info64 *info,
			 void *userdata)
{
	const struct taking *t = userdata;
	int r;

	(void)number;
	if (info->lo_flags & LO_FLAGS_READ_ONLY)
		return -EROFS;
	r = enlarge(loop_fd, t->file_fd, t->wish);
	if (r == 0)
		r = fill(loop_fd, info->lo_flags & LO_FLAGS_DIRECT_IO, t->ret);
	if (r < 0)
		return r == -ENXIO ? 0 : r; /* it was cleared meanwhile */
	t->ret->fd = fcntl(loop_fd, F_DUPFD_CLOEXEC, 0);
	return t->ret->fd < 0 ? -errno : 1;
}

int tm_loop_attach(int file_fd, const char *path, uint64_t wish, struct tm_loop *ret,
		   struct tm_error *err)
{
	struct taking taking = { .file_fd = file_fd, .wish = wish, .ret = ret };
	int r;

	*ret = (struct tm_loop){ .fd = -1 };
	r = each_loop(file_fd, take_existing, &taking);
	if (r > 0)
		return 0;
	if (r == -EROFS) {
		r = tm_error_set(err, TM_ERR_BUSY, EROFS,
				 "\"%.300s\" is behind a read-only loop device already", path);
		tm_error_hint(err, "detach it with losetup -d");
		return r;
	}
	if (r < 0)
		return fail(err, -r, "look for a loop device on", path);

	/* Opening it loads the module. */
	tm_auto_close int control_fd = open(LOOP_CONTROL, O_RDWR | O_CLOEXEC);
	if (control_fd < 0) {
		r = tm_error_set(err, TM_ERR_UNSUPPORTED, errno,
				 "the kernel has no loop devices: cannot open " LOOP_CONTROL ": %s",
				 errno_text(errno));
		tm_error_hint(err, "load them with \"modprobe loop\"");
		return r;
	}
	for (int i = 0; i < ATTACH_TRIES; i++) {
		r = configure_free(control_fd, file_fd, path, wish, ret);
		if (r != -EBUSY)
			break;
	}
	return r < 0 ? fail(err, -r, "attach a loop device to", path) : 0;
}

int tm_loop_known(int file_fd, unsigned int major, unsigned int minor, uint64_t wish,
		  struct tm_loop *ret)
{
	struct taking taking = { .file_fd = file_fd, .wish = wish, .ret = ret };
	char path[64], target[256];
	struct stat file;
	unsigned int number;
	const char *name;
	ssize_t len;

	*ret = (struct tm_loop){ .fd = -1 };
	if (fstat(file_fd, &file) < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major, minor);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return errno == ENOENT ? 0 : -errno;
	target[len] = '\0';
	name = strrchr(target, '/');
	if (!name || sscanf(name, "/loop%u", &number) != 1 || number > MINOR_MAX)
		return 0;
	return visit(number, &file, take_existing, &taking);
}

/* ---- the rest ----------------------------------------------------------------------------- */

static int resize_one(int loop_fd, unsigned int number, const struct loop_info64 *info,
		      void *userdata)
{
	const int *file_fd = userdata;
	int r = enlarge(loop_fd, *file_fd, 0);

	(void)number, (void)info;
	return r == -ENXIO ? 0 : r;
}

int tm_loop_resize(int file_fd, const char *path, struct tm_error *err)
{
	int r = each_loop(file_fd, resize_one, &file_fd);

	return r < 0 ? fail(err, -r, "resize the loop device on", path) : 0;
}

static int has_holder(int loop_fd, unsigned int number, const struct loop_info64 *info,
		      void *userdata)
{
	char path[64];
	const struct dirent *entry;

	(void)loop_fd, (void)info, (void)userdata;
	(void)snprintf(path, sizeof(path), "/sys/block/loop%u/holders", number);
	tm_cleanup(closedirp) DIR *dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	do {
		errno = 0;
		entry = readdir(dir);
	} while (entry && entry->d_name[0] == '.');
	return entry ? 1 : -errno;
}

int tm_loop_in_use(int file_fd, const char *path, struct tm_error *err)
{
	int r = each_loop(file_fd, has_holder, NULL);

	return r < 0 ? fail(err, -r, "see who uses the loop device on", path) : r;
}

static int clear_one(int loop_fd, unsigned int number, const struct loop_info64 *info,
		     void *userdata)
{
	(void)number, (void)info, (void)userdata;
	return ioctl(loop_fd, LOOP_CLR_FD, 0) < 0 && errno != ENXIO ? -errno : 0;
}

int tm_loop_detach(int file_fd, const char *path, struct tm_error *err)
{
	int r = each_loop(file_fd, clear_one, NULL);

	return r < 0 ? fail(err, -r, "detach the loop device from", path) : 0;
}
