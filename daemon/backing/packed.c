// SPDX-License-Identifier: GPL-2.0-or-later
#include "backing/packed.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "backing/copies.h"
#include "backing/internal.h"
#include "common/cleanup.h"
#include "common/units.h"

/* Fast, and most of what there is to be had: mappings are much alike. */
#define LEVEL 3
/* What the room is looked after by. */
#define STRIDE ((uint64_t)8 * TM_MIB)

struct tm_packed {
	const struct tm_pool_record *pool; /* of the caller */
	int dir_fd, fd;
	ZSTD_CCtx *context;
	uint64_t checked; /* bytes for which there was room */
	uint64_t written;
	size_t out_size;
	char out[];
};

static void free_input(ZSTD_DCtx **context)
{
	(void)ZSTD_freeDCtx(*context);
}

/* All of it, as long as there is room. *written counts, up to *checked there is. */
static int put(const struct tm_pool_record *pool, int dir_fd, int fd, const char *name,
	       const char *data, size_t len, uint64_t *written, uint64_t *checked,
	       struct tm_error *err)
{
	if (*written + len > *checked) {
		int r = tm_file_check_room(pool, dir_fd, STRIDE, err);

		if (r < 0)
			return r;
		*checked = *written + STRIDE;
	}
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tm_file_fail(err, errno, "write", pool, name);
		data += n;
		len -= (size_t)n;
		*written += (uint64_t)n;
	}
	return 0;
}

struct tm_packed *tm_packed_free(struct tm_packed *p)
{
	if (!p)
		return NULL;
	(void)ZSTD_freeCCtx(p->context);
	if (p->fd >= 0)
		(void)close(p->fd);
	if (p->dir_fd >= 0)
		(void)close(p->dir_fd);
	free(p);
	return NULL;
}

int tm_packed_begin(const struct tm_pool_record *pool, struct tm_packed **ret, struct tm_error *err)
{
	const size_t out_size = ZSTD_CStreamOutSize();
	struct tm_packed *p = calloc(1, sizeof(*p) + out_size);
	int r;

	*ret = NULL;
	if (!p)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	p->pool = pool;
	p->out_size = out_size;
	p->fd = -1;
	p->dir_fd = tm_file_open_directory(pool);
	p->context = ZSTD_createCCtx();
	if (!p->context ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(p->context, ZSTD_c_compressionLevel, LEVEL)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(p->context, ZSTD_c_checksumFlag, 1)))
		r = tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	else if (p->dir_fd < 0)
		r = tm_file_fail(err, -p->dir_fd, "open", pool, NULL);
	else
		r = tm_copies_drop_packed(pool, err);
	if (r >= 0) {
		p->fd = openat(p->dir_fd, TM_PACKED_NAME,
			       O_WRONLY | O_CREAT | O_EXCL | TM_FILE_FLAGS, 0600);
		if (p->fd < 0)
			r = tm_file_fail(err, errno, "make", pool, TM_PACKED_NAME);
	}
	if (r < 0)
		tm_packed_free(p);
	else
		*ret = p;
	return r;
}

static int squeeze(struct tm_packed *p, ZSTD_inBuffer *in, ZSTD_EndDirective how,
		   struct tm_error *err)
{
	size_t left;

	do {
		ZSTD_outBuffer out = { .dst = p->out, .size = p->out_size };
		int r;

		left = ZSTD_compressStream2(p->context, &out, in, how);
		if (ZSTD_isError(left))
			return tm_error_set(err, TM_ERR_INTERNAL, EIO,
					    "The copy of the metadata of pool %s cannot be "
					    "compressed: %s.",
					    p->pool->name, ZSTD_getErrorName(left));
		r = put(p->pool, p->dir_fd, p->fd, TM_PACKED_NAME, p->out, out.pos, &p->written,
			&p->checked, err);
		if (r < 0)
			return r;
	} while (how == ZSTD_e_end ? left > 0 : in->pos < in->size);
	return 0;
}

int tm_packed_write(struct tm_packed *p, const char *data, size_t len, struct tm_error *err)
{
	ZSTD_inBuffer in = { .src = data, .size = len };

	return squeeze(p, &in, ZSTD_e_continue, err);
}

int tm_packed_finish(struct tm_packed *p, struct tm_error *err)
{
	ZSTD_inBuffer in = { 0 };
	int r = squeeze(p, &in, ZSTD_e_end, err);

	if (r >= 0 && (fsync(p->fd) < 0 || fsync(p->dir_fd) < 0))
		r = tm_file_fail(err, errno, "sync", p->pool, TM_PACKED_NAME);
	return r;
}

static int not_whole(const struct tm_pool_record *pool, const char *name, const char *why,
		     struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_DAMAGED, EBADMSG,
			     "The copy %s of the metadata of pool %s cannot be read: %s.", name,
			     pool->name, why);

	tm_error_hint(err, "Nothing was changed. Choose another copy: thinmgr pool copies %s",
		      pool->name);
	return r;
}

/* Everything in @from, a zstd frame, to @fn. */
static int unpack(const struct tm_pool_record *pool, const char *name, int from, tm_packed_fn fn,
		  void *userdata, struct tm_error *err)
{
	const size_t in_size = ZSTD_DStreamInSize(), out_size = ZSTD_DStreamOutSize();
	tm_cleanup(free_input) ZSTD_DCtx *context = ZSTD_createDCtx();
	tm_auto_free char *raw = malloc(in_size), *text = malloc(out_size);
	size_t more = 1; /* not 0: the frame has not ended */

	if (!context || !raw || !text)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	for (;;) {
		ssize_t n = read(from, raw, in_size);
		ZSTD_inBuffer in = { .src = raw, .size = n > 0 ? (size_t)n : 0 };

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tm_file_fail(err, errno, "read", pool, name);
		if (n == 0)
			break;
		/* What it has taken in may be more than there was room for. */
		for (bool full = false; in.pos < in.size || full;) {
			ZSTD_outBuffer out = { .dst = text, .size = out_size };
			int r;

			more = ZSTD_decompressStream(context, &out, &in);
			if (ZSTD_isError(more))
				return not_whole(pool, name, ZSTD_getErrorName(more), err);
			full = more > 0 && out.pos == out.size;
			r = fn(userdata, text, out.pos, err);
			if (r < 0)
				return r;
		}
	}
	return more ? not_whole(pool, name, "its end is missing", err) : 0;
}

int tm_packed_read(const struct tm_pool_record *pool, const char *name, tm_packed_fn fn,
		   void *userdata, struct tm_error *err)
{
	tm_auto_close int from = tm_copies_open(pool, name, err);

	return from < 0 ? from : unpack(pool, name, from, fn, userdata, err);
}

struct target {
	const struct tm_pool_record *pool;
	const char *name;
	int dir_fd, fd;
	uint64_t written, checked;
};

static int to_file(void *userdata, const char *data, size_t len, struct tm_error *err)
{
	struct target *t = userdata;

	return put(t->pool, t->dir_fd, t->fd, t->name, data, len, &t->written, &t->checked, err);
}

int tm_packed_open(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	tm_auto_close int from = tm_copies_open(pool, name, err);
	tm_auto_close int to = -1;
	struct target target = { .pool = pool, .name = name };
	int r;

	if (from < 0)
		return from;
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	to = openat(dir_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (to < 0)
		return tm_file_fail(err, errno, "make a temporary file in", pool, NULL);
	target.dir_fd = dir_fd;
	target.fd = to;
	r = unpack(pool, name, from, to_file, &target, err);
	return r < 0 ? r : TM_TAKE_FD(to);
}
