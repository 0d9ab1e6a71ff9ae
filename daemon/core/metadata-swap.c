/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See metadata-swap.h. */

#include "core/metadata-swap.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backing/copies.h"
#include "backing/packed.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "core/op-types.h"
#include "logic/dump-scan.h"
#include "logic/rotation.h"
#include "logic/suspect.h"

/* ---- looking at metadata ---- */

struct file_source {
	int fd;
};

static int read_block(void *userdata, uint64_t block, void *buf)
{
	const struct file_source *f = userdata;
	size_t done = 0;

	while (done < TM_SURVEY_BLOCK) {
		ssize_t n = pread(f->fd, (char *)buf + done, TM_SURVEY_BLOCK - done,
				  (off_t)(block * TM_SURVEY_BLOCK + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

/* A file that is not there maps nothing. */
static int survey(const char *path, struct tm_survey *ret, struct tm_error *err)
{
	tm_auto_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct file_source file = { .fd = fd };
	struct tm_survey_source source = { .read = read_block, .userdata = &file };
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;

	if (fd < 0 && errno != ENOENT)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot read %s: %s.", path,
				    strerror(errno));
	if (end < 0)
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot read %s: %s.", path,
				    strerror(errno));
	source.blocks = (uint64_t)end / TM_SURVEY_BLOCK;
	if (tm_survey_run(&source, ret) < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	return 0;
}

/* ---- down ---- */

int tm_swap_check_tools(struct tm_op *op, struct tm_error *err)
{
	return tm_metadata_tools_ready(op->core, op->pool.name, err);
}

int tm_swap_stop_undo(struct tm_op *op, struct tm_error *err)
{
	struct tm_log_fields fields = { .pool = op->pool.name, .operation = op->record.id.text };
	struct tm_error local = { 0 };
	struct tm_dm_info info;

	if (!op->pool_was_active)
		return 0;
	if (tm_parts_attach(op->core, &op->pool, NULL, &local) >= 0 &&
	    tm_parts_start_pool(op->core, &op->pool, &local) >= 0)
		return 0;
	fields.error = &local;
	tm_log_fields(LOG_ERR, &fields, "Pool %s does not come up with the metadata it had: %s",
		      op->pool.name, local.detail);
	/* A device without a table would only be in the way. */
	if (tm_parts_ours(op->core, &op->pool, TM_ROLE_POOL, NULL, &info, NULL) > 0 &&
	    !info.live_table)
		return tm_parts_remove_pool(op->core, &op->pool, err);
	return 0;
}

int tm_swap_deactivate_undo(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	uint64_t free_bytes;

	/* They are there again. */
	for (size_t i = 0; op->repair.lost && i < op->n_volumes; i++)
		op->volumes[i].active = op->volumes[i].active || op->repair.lost[i];
	/* On one that failed nothing can be put. */
	if (!op->pool_was_active || !tm_parts_saw(op->core, &op->pool, &status, &free_bytes) ||
	    status.failed)
		return 0;
	return tm_step_deactivate_volumes_undo(op, err);
}

/* ---- the new metadata ---- */

int tm_swap_drop_new(struct tm_op *op, struct tm_error *err)
{
	return tm_copies_drop_new(&op->pool, err);
}

/* ---- what became of it ---- */

/* What is known of a volume from before, as the verdict wants it. */
static struct tm_verdict_volume *known_volumes(const struct tm_op *op)
{
	struct tm_verdict_volume *v = calloc(op->n_volumes ? op->n_volumes : 1, sizeof(*v));

	for (size_t i = 0; v && i < op->n_volumes; i++) {
		v[i] = (struct tm_verdict_volume){
			.dev_id = op->volumes[i].dev_id,
			.name = op->volumes[i].name,
			.size_bytes = op->volumes[i].size_bytes,
		};
		if (op->repair.last_mapped && op->repair.last_mapped[i] != UINT64_MAX) {
			v[i].last_known = true;
			v[i].last_mapped_bytes = op->repair.last_mapped[i];
		}
	}
	return v;
}

/* Can nothing of the volume be read in the damaged metadata, and did no sample tell of it? */
static bool unknown(const struct tm_verdict_volume *v, const struct tm_survey *before)
{
	const struct tm_survey_device *d = tm_survey_find(before, v->dev_id);

	return !v->last_known && !d;
}

static int scan(void *userdata, const char *data, size_t len, struct tm_error *err)
{
	return tm_dump_scan_feed(userdata, data, len) < 0
		       ? tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.")
		       : 0;
}

/*
 * What the newest safety copy says of volumes of which nothing else tells, as after a restart. One
 * that cannot be read is no reason to fail: it is as if there were none.
 */
static void learn_from_copy(const struct tm_op *op, const struct tm_survey *before,
			    struct tm_verdict_volume *volumes)
{
	tm_cleanup(tm_dump_scan_done) struct tm_dump_scan found = { 0 };
	tm_auto_free struct tm_copy *copies = NULL;
	const struct tm_copy *newest = NULL;
	bool wanted = false;
	size_t n = 0;

	for (size_t i = 0; i < op->n_volumes; i++)
		wanted = wanted || unknown(&volumes[i], before);
	if (!wanted || tm_copies_list(&op->pool, &copies, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (tm_copy_is_dump(&copies[i]))
			newest = &copies[i];
	if (!newest || tm_packed_read(&op->pool, newest->name, scan, &found, NULL) < 0 ||
	    !tm_dump_scan_whole(&found))
		return;
	for (size_t i = 0; i < op->n_volumes; i++) {
		if (!unknown(&volumes[i], before))
			continue;
		for (size_t k = 0; k < found.n_devices; k++) {
			if (found.devices[k].dev_id != volumes[i].dev_id)
				continue;
			volumes[i].copied = true;
			volumes[i].copied_bytes = tm_sat_mul(found.devices[k].mapped_blocks,
							     op->pool.block_bytes);
		}
	}
}

int tm_swap_compare(const struct tm_op *op, bool restore, struct tm_repair_verdict *ret,
		    struct tm_error *err)
{
	tm_cleanup(tm_survey_done) struct tm_survey before = { 0 }, after = { 0 };
	tm_auto_free struct tm_verdict_volume *volumes = known_volumes(op);
	char path[TM_PATH_SIZE + 16];
	int r;

	if (!volumes)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	tm_backing_part_path(&op->pool, TM_PART_METADATA, path);
	r = survey(path, &before, err);
	if (r < 0)
		return r;
	/* Going back, it may be the very copy that is judged. */
	if (!restore)
		learn_from_copy(op, &before, volumes);
	tm_copies_new_path(&op->pool, path);
	r = survey(path, &after, err);
	if (r < 0)
		return r;
	/* Names in it are those of op->volumes. */
	if (tm_repair_judge(
		    &(struct tm_verdict_input){
			    .before = &before,
			    .after = &after,
			    .block_bytes = op->pool.block_bytes,
			    .volumes = volumes,
			    .n_volumes = op->n_volumes,
			    .restore = restore,
		    },
		    ret) < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	return 0;
}

static json_t *report_of(const struct tm_op *op, const struct tm_repair_verdict *v)
{
	json_t *volumes = json_array();
	json_t *report;

	for (size_t i = 0; volumes && i < v->n_lines; i++) {
		const struct tm_verdict_line *l = &v->lines[i];

		(void)json_array_append_new(
			volumes,
			json_pack("{s:s?, s:I, s:s, s:I, s:I, s:I, s:s}", "volume", l->name,
				  "dev_id", (json_int_t)l->dev_id, "fate", tm_fate_name(l->fate),
				  "before",
				  (json_int_t)tm_sat_mul(l->before_blocks, op->pool.block_bytes),
				  "after",
				  (json_int_t)tm_sat_mul(l->after_blocks, op->pool.block_bytes),
				  "lost",
				  (json_int_t)tm_sat_mul(l->lost_blocks, op->pool.block_bytes),
				  "text", l->text));
	}
	report = json_pack("{s:s, s:s, s:s, s:o}", "verdict", tm_verdict_name(v->verdict), "text",
			   v->text, "kept", op->repair.copy_name, "volumes", volumes);
	if (report && op->repair.from[0])
		(void)json_object_set_new(report, "copy", json_string(op->repair.from));
	return report;
}

int tm_swap_report(struct tm_op *op, const struct tm_repair_verdict *v, struct tm_error *err)
{
	json_t *report = report_of(op, v);

	free(op->repair.lost);
	op->repair.lost = calloc(op->n_volumes ? op->n_volumes : 1, sizeof(*op->repair.lost));
	for (size_t i = 0; op->repair.lost && i < op->n_volumes && i < v->n_lines; i++)
		op->repair.lost[i] = op->volumes[i].active && v->lines[i].fate == TM_FATE_LOST;
	free(op->repair.suspect);
	op->repair.suspect = calloc(op->n_volumes ? op->n_volumes : 1, sizeof(*op->repair.suspect));
	for (size_t i = 0; op->repair.suspect && i < op->n_volumes && i < v->n_lines; i++)
		op->repair.suspect[i] = tm_suspect_by_fate(v->lines[i].fate);
	free(op->repair.report);
	op->repair.report = report ? json_dumps(report, JSON_COMPACT) : NULL;
	json_decref(report);
	if (!op->repair.report || !op->repair.lost || !op->repair.suspect)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	return 0;
}

/* ---- its place ---- */

int tm_swap_swap(struct tm_op *op, struct tm_error *err)
{
	return tm_copies_swap(&op->pool, op->repair.copy_name, err);
}

int tm_swap_swap_undo(struct tm_op *op, struct tm_error *err)
{
	return tm_copies_swap_back(&op->pool, op->repair.copy_name, err);
}

int tm_swap_learn(struct tm_op *op, struct tm_error *err)
{
	struct tm_superblock sb;
	uint64_t bytes;
	int r;

	r = tm_backing_part_size(&op->pool, TM_PART_METADATA, &bytes, err);
	if (r >= 0)
		r = tm_parts_read_superblock(&op->pool, &sb, err);
	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_INTERNAL, EIO,
				    "The new metadata of pool %s is empty.", op->pool.name);
	op->pool.transaction_id = sb.transaction_id;
	op->pool.metadata_bytes = tm_sat_mul(sb.metadata_blocks, TM_METADATA_BLOCK);
	op->pool.metadata_reserve_bytes = bytes > op->pool.metadata_bytes
						  ? bytes - op->pool.metadata_bytes
						  : 0;
	return 0;
}

int tm_swap_learn_undo(struct tm_op *op, struct tm_error *err)
{
	(void)err;
	if (op->recovering) /* it is as it was recorded */
		return 0;
	op->pool.transaction_id = op->transaction_before;
	op->pool.metadata_bytes = op->repair.metadata_bytes;
	op->pool.metadata_reserve_bytes = op->repair.metadata_reserve_bytes;
	return 0;
}

int tm_swap_attach_undo(struct tm_op *op, struct tm_error *err)
{
	return tm_parts_detach(op->core, &op->pool, err);
}

int tm_swap_start(struct tm_op *op, struct tm_error *err)
{
	struct tm_thin_pool_status status;
	int r = tm_step_start_pool(op, err);

	if (r < 0 || !op->activate)
		return r;
	r = tm_parts_status(op->core, op->pool.name, &status, NULL, err);
	if (r < 0)
		return r;
	if (status.failed || status.needs_check || status.mode >= TM_MODE_READ_ONLY)
		return tm_error_set(err, TM_ERR_DAMAGED, EROFS,
				    "Pool %s came up in mode %s%s with its new metadata.",
				    op->pool.name,
				    status.failed ? "fail" : tm_mode_name(status.mode),
				    status.needs_check ? ", with needs_check set" : "");
	return 0;
}

int tm_swap_start_undo(struct tm_op *op, struct tm_error *err)
{
	return tm_parts_remove_pool(op->core, &op->pool, err);
}

int tm_swap_record(struct tm_op *op, struct tm_error *err)
{
	const enum tm_suspicion why = op->type->kind == TM_CMD_POOL_REPAIR ? TM_SUSPECT_REPAIRED
									   : TM_SUSPECT_RESTORED;
	int r;

	op->pool.active = op->activate;
	r = tm_step_record_pool(op, err);
	for (size_t i = 0; r >= 0 && i < op->n_volumes; i++) {
		if (op->repair.lost && op->repair.lost[i])
			op->volumes[i].active = false;
		r = tm_store_put_volume(op->core->store, &op->pool.id, &op->volumes[i], err);
		if (r >= 0 && op->repair.suspect && op->repair.suspect[i] &&
		    !op->volumes[i].suspect)
			r = tm_store_set_suspect(op->core->store, &op->volumes[i].id, why,
						 tm_now_realtime_usec(), err);
	}
	return r;
}

/* ---- what is kept ---- */

int tm_metadata_rotate(const struct tm_pool_record *pool, const char *spare, struct tm_error *err)
{
	tm_auto_free struct tm_copy *copies = NULL;
	tm_auto_free struct tm_rotation_copy *kept = NULL;
	tm_auto_free bool *gone = NULL;
	size_t n = 0;
	int r = tm_copies_list(pool, &copies, &n, err);

	if (r < 0 || !n)
		return r;
	kept = calloc(n, sizeof(*kept));
	gone = calloc(n, sizeof(*gone));
	if (!kept || !gone)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	for (size_t i = 0; i < n; i++)
		kept[i] = (struct tm_rotation_copy){
			.kept_usec = copies[i].kept_usec,
			.safety = tm_copy_is_dump(&copies[i]),
		};
	tm_rotation_decide(kept, n, tm_now_realtime_usec(), &pool->policy, gone);
	for (size_t i = 0; i < n; i++) {
		const struct tm_log_fields fields = { .pool = pool->name };

		/* By a clock that was set back the newest looks old. */
		if (!gone[i] || (spare && strcmp(copies[i].name, spare) == 0))
			continue;
		r = tm_copies_remove(pool, copies[i].name, err);
		if (r < 0)
			return r;
		tm_log_fields(LOG_INFO, &fields,
			      "The copy %s of the metadata of pool %s is old enough: removed.",
			      copies[i].name, pool->name);
	}
	return 0;
}

int tm_swap_rotate(struct tm_op *op, struct tm_error *err)
{
	return tm_metadata_rotate(&op->pool, op->repair.copy_name, err);
}
