/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A look at a pool: read its status, decide, and where it needs space take the armed reserve into
 * use, all in one go on an urgent thread; then tell the main loop what was seen and done.
 * Between the kernel's event and the larger table lie: one list of devices (main loop), one
 * status, one table load and one resume. Nothing on that path waits for the disk, and nothing is
 * executed. It is recorded afterwards: the live table is the truth, and a restart reads it.
 * With our own target the load and the resume are a message, and what that remembers is asked for
 * once the larger space is live.
 */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"
#include "logic/derive.h"
#include "logic/thin-status.h"

/* A mark that should be half as high again as it is gets moved by a reload, at most this often. */
#define REMARK_INTERVAL_USEC (60 * TM_USEC_PER_SEC)
#define SAMPLE_KEEP_USEC     (600 * TM_USEC_PER_SEC)
/* Near the mark metadata is looked at as often as it might reach it, but not more often. */
#define CLOSE_LOOK_USEC     (100 * TM_USEC_PER_MSEC)
#define NEAR_LOOK_USEC      (10 * TM_USEC_PER_SEC)
#define QUEUEING_RETRY_USEC (5 * TM_USEC_PER_SEC)
/* One that takes longer is told of. */
#define LATE_USEC (5 * TM_USEC_PER_SEC)

/* One space as the look sees it: copies in, findings out. */
struct look_space {
	struct tm_rate rate;
	struct tm_latency reaction, arming;
	bool blocked; /* backing off after a failure */
	struct tm_extend_plan plan;
	uint64_t from_bytes, to_bytes; /* equal: not extended */
	uint64_t reaction_usec;
};

struct look {
	struct tm_core *core;
	struct tm_uuid pool_id;
	struct tm_pool_record record;
	uint64_t seen_usec; /* 0: no event */
	bool sample, may_remark;
	bool may_mark;               /* it is known well enough to be changed */
	bool grows;                  /* by messages, without a suspend: our own target does */
	bool let_go, left_suspended; /* to be resumed first; and what became of it */
	/* Monotonic: since when a thread is at it; 0: not yet, or not any more. For the main loop.
	 */
	_Atomic uint64_t at_work_usec;
	struct look_space data, metadata;

	bool first_valid;
	struct tm_thin_pool_status first; /* before anything was done */
	struct tm_thin_pool_status last;
	uint64_t low_water_first; /* bytes, in force at the first look */
	uint64_t backing_free_bytes;
	bool vanished, remarked;
	struct tm_error error;        /* of looking */
	struct tm_error extend_error; /* of extending */
	bool may_become_suspect;      /* a volume may, and is not yet */
	bool loss_unrecorded;         /* so the pool was left as it is */
	struct tm_loss loss;
	bool ask_ring;
	uint64_t ring_since;
	struct tm_ring_answer ring;
	struct {
		struct tm_uuid id;
		char name[TM_NAME_MAX + 1];
		bool valid;
		uint64_t mapped_bytes;
	} * volumes;
	size_t n_volumes;
};

static void look_free(struct look *l)
{
	free(l->volumes);
	free(l);
}

static bool frozen(const struct tm_thin_pool_status *s)
{
	return s->failed || s->needs_check || s->mode == TM_MODE_FAIL;
}

static void decide_data(struct look *l)
{
	const struct tm_pool_record *p = &l->record;
	struct tm_extend_input in = {
		.policy = &p->policy.data,
		.unit_bytes = p->block_bytes,
		.used_blocks = l->last.data_used,
		.total_blocks = l->last.data_total,
		.reserve_blocks = p->data_reserve_bytes / p->block_bytes,
		.kernel_low_water_blocks = p->low_water_bytes / p->block_bytes,
		.backing_free_bytes = l->backing_free_bytes,
		.rate_bytes_per_sec =
			tm_rate_assume(tm_rate_get(&l->data.rate, tm_now_monotonic_usec())),
		.reaction_usec = tm_latency_slowest(&l->data.reaction),
		.arm_usec = tm_latency_slowest(&l->data.arming),
		.frozen = frozen(&l->last) || l->last.mode >= TM_MODE_READ_ONLY,
	};

	tm_extend_decide(&in, &l->data.plan);
}

static void decide_metadata(struct look *l)
{
	const struct tm_pool_record *p = &l->record;
	struct tm_extend_input in = {
		.policy = &p->policy.metadata,
		.unit_bytes = TM_METADATA_BLOCK,
		.used_blocks = l->last.metadata_used,
		.total_blocks = l->last.metadata_total,
		.reserve_blocks = p->metadata_reserve_bytes / TM_METADATA_BLOCK,
		/* Our own target has it from us. */
		.kernel_low_water_blocks = !l->grows && l->last.metadata_low_water_valid
						   ? l->last.metadata_low_water
						   : 0,
		.limit_blocks = TM_METADATA_MAX_BYTES / TM_METADATA_BLOCK,
		.backing_free_bytes = l->backing_free_bytes,
		.rate_bytes_per_sec = tm_rate_get(&l->metadata.rate, tm_now_monotonic_usec()),
		.reaction_usec = tm_latency_slowest(&l->metadata.reaction),
		.arm_usec = tm_latency_slowest(&l->metadata.arming),
		/* Metadata that is full without needs_check is read-only, and growing it is the
		   cure. */
		.frozen = frozen(&l->last),
		.arm_only_near = true,
	};

	tm_extend_decide(&in, &l->metadata.plan);
}

/* Put @bytes under a part at once: nothing, or not enough, was armed. */
static int lay_below(struct look *l, enum tm_part part, uint64_t bytes)
{
	return tm_parts_lay(l->core, &l->record, part, bytes, &l->extend_error);
}

/* What the kernel says now becomes the record: a refused growth shows here. */
static void take_sizes(struct look *l)
{
	struct tm_pool_record *p = &l->record;
	uint64_t under_data = p->data_bytes + p->data_reserve_bytes;
	uint64_t under_meta = p->metadata_bytes + p->metadata_reserve_bytes;

	if (l->last.failed)
		return;
	p->data_bytes = tm_sat_mul(l->last.data_total, p->block_bytes);
	p->data_reserve_bytes = under_data > p->data_bytes ? under_data - p->data_bytes : 0;
	p->metadata_bytes = tm_sat_mul(l->last.metadata_total, TM_METADATA_BLOCK);
	p->metadata_reserve_bytes = under_meta > p->metadata_bytes ? under_meta - p->metadata_bytes
								   : 0;
}

/*
 * Our own target speaks up at the mark it is given; mainline's has a rule of its own. It is given
 * anew when it should be higher, or is much too high: the part of it that follows the rate of
 * writing falls all the time. Where that fails the rule is what remains, as with mainline's.
 */
static void give_metadata_mark(struct look *l)
{
	const struct tm_extend_plan *plan = &l->metadata.plan;
	uint64_t want = l->metadata.to_bytes > l->metadata.from_bytes ? plan->new_mark_blocks
								      : plan->mark_blocks;
	uint64_t now = l->last.metadata_low_water;
	struct tm_error err = { 0 };

	if (!l->grows || !l->last.metadata_low_water_valid || !want || l->last.failed ||
	    !l->may_mark || (now >= want && now <= want + want / 4))
		return;
	if (tm_parts_mark_metadata(l->core, &l->record, want, &err) < 0)
		tm_log(LOG_DEBUG, "The metadata mark of pool %s is the kernel's own: %s",
		       l->record.name, err.detail);
	else
		l->last.metadata_low_water = want;
}

/* Larger sizes, and a mark, go live. Metadata of 0 bytes: it does not grow. */
static int go_live(struct look *l, uint64_t data_bytes, uint64_t metadata_bytes,
		   uint64_t mark_bytes)
{
	const bool thought_ours = l->grows;
	int r;

	if (l->grows) {
		r = tm_parts_grow_pool(l->core, &l->record,
				       data_bytes > l->record.data_bytes ? data_bytes : 0,
				       metadata_bytes, mark_bytes, &l->extend_error);
		if (r >= 0)
			l->record.low_water_bytes = mark_bytes;
		if (r >= 0 || tm_ring_there(l->core, l->record.name))
			return r;
		/* It knows nothing of ours: that module is not the one it was taken for. */
		l->extend_error = (struct tm_error){ 0 };
		l->grows = l->ask_ring = false;
	}
	/* A resume takes all of a larger metadata device. */
	r = tm_parts_load_pool(l->core, &l->record, data_bytes, mark_bytes, &l->extend_error);
	if (r >= 0)
		r = tm_parts_switch_pool(l->core, &l->record, &l->left_suspended, &l->extend_error);
	if (thought_ours)
		tm_system_target_taken(l->core);
	if (r < 0)
		return r;
	l->record.low_water_bytes = mark_bytes;
	return 0;
}

static int extend(struct look *l, uint64_t began_usec)
{
	struct tm_pool_record *p = &l->record;
	bool grow_data = l->data.plan.verdict == TM_EXTEND_NOW && !l->data.blocked;
	bool grow_meta = l->metadata.plan.verdict == TM_EXTEND_NOW && !l->metadata.blocked;
	uint64_t data_bytes = p->data_bytes, meta_bytes = 0, under, live;
	uint64_t mark = p->low_water_bytes;
	int r, failed = 0;

	l->data.from_bytes = l->data.to_bytes = p->data_bytes;
	l->metadata.from_bytes = l->metadata.to_bytes = p->metadata_bytes;
	if (!grow_data && !grow_meta) {
		uint64_t want = l->data.plan.mark_blocks * p->block_bytes;

		if (!l->may_remark || frozen(&l->last) || l->last.mode != TM_MODE_WRITE ||
		    want < p->low_water_bytes + p->low_water_bytes / 2 + p->block_bytes)
			return 0;
		l->remarked = true;
		return go_live(l, p->data_bytes, 0, want);
	}
	if (grow_data) {
		data_bytes = l->data.plan.new_total_blocks * p->block_bytes;
		mark = l->data.plan.new_mark_blocks * p->block_bytes;
		under = p->data_bytes + p->data_reserve_bytes;
		if (data_bytes > under) {
			if (p->data_reserve_bytes) {
				data_bytes = under; /* what is armed now; the rest follows by a
						       further look */
			} else {
				failed = lay_below(l, TM_PART_DATA, data_bytes);
				if (failed >= 0)
					p->data_reserve_bytes = data_bytes - p->data_bytes;
			}
		}
	}
	if (failed < 0) { /* one space that cannot be had keeps none from the other */
		grow_data = false;
		data_bytes = p->data_bytes;
		mark = p->low_water_bytes;
	}
	if (grow_meta) {
		meta_bytes = l->metadata.plan.new_total_blocks * TM_METADATA_BLOCK;
		if (!p->metadata_reserve_bytes) {
			r = lay_below(l, TM_PART_METADATA, meta_bytes);
			if (r < 0) {
				failed = r;
				grow_meta = false;
			} else {
				p->metadata_reserve_bytes = meta_bytes - p->metadata_bytes;
			}
		}
		meta_bytes = grow_meta ? p->metadata_bytes + p->metadata_reserve_bytes : 0;
	}
	if (!grow_data && !grow_meta)
		return failed;
	r = go_live(l, data_bytes, meta_bytes, mark);
	if (r < 0)
		return r;
	live = tm_now_monotonic_usec();
	/* A resume succeeds even where the kernel refused to grow: look again. */
	r = tm_parts_status(l->core, p->name, &l->last, NULL, &l->extend_error);
	if (r < 0)
		return r;
	take_sizes(l);
	l->data.to_bytes = p->data_bytes;
	l->metadata.to_bytes = p->metadata_bytes;
	l->data.reaction_usec = l->metadata.reaction_usec = live - (l->seen_usec ? l->seen_usec
										 : began_usec);
	if ((grow_data && l->data.to_bytes <= l->data.from_bytes) ||
	    (grow_meta && l->metadata.to_bytes <= l->metadata.from_bytes))
		return tm_error_set(&l->extend_error, TM_ERR_KERNEL, EROFS,
				    "The kernel did not take the new space of pool %s into use.",
				    p->name);
	return failed;
}

static void sample_volumes(struct look *l)
{
	for (size_t i = 0; i < l->n_volumes; i++) {
		char name[TM_DM_NAME_SIZE], params[128];
		struct tm_thin_status s;

		tm_dm_name(name, TM_ROLE_VOLUME, l->record.name, l->volumes[i].name);
		if (tm_dm_line(l->core->dm, name, false, NULL, 0, NULL, params, sizeof(params),
			       NULL) < 0 ||
		    tm_thin_status_parse(params, &s) < 0 || s.failed)
			continue;
		l->volumes[i].mapped_bytes = tm_sat_mul(s.mapped_sectors, TM_SECTOR);
		l->volumes[i].valid = true;
	}
}

static void look_done(void *arg);
static void watch_lateness(struct tm_core *core, uint64_t at_usec);

static void work(struct look *l, uint64_t began)
{
	struct tm_pool_record *p = &l->record;
	int r;

	if (l->let_go && tm_parts_let_go(l->core, p, &l->error) < 0) {
		l->left_suspended = true;
		return;
	}
	r = tm_parts_status(l->core, p->name, &l->first, NULL, &l->error);
	/* More space must not hide lost writes: they are recorded first. */
	if (r >= 0 && l->may_become_suspect &&
	    tm_parts_suspect(l->core, p, &l->first, &l->loss, &l->extend_error) < 0)
		l->loss_unrecorded = true;
	if (r < 0) {
		l->vanished = r == -ENXIO || r == -ENODATA;
	} else {
		l->first_valid = true;
		l->last = l->first;
		l->low_water_first = p->low_water_bytes;
		if (!l->first.failed) {
			take_sizes(l);
			tm_rate_observe(&l->data.rate, began,
					tm_sat_mul(l->first.data_used, p->block_bytes));
			tm_rate_observe(&l->metadata.rate, began,
					tm_sat_mul(l->first.metadata_used, TM_METADATA_BLOCK));
			(void)tm_backing_free_bytes(p, &l->backing_free_bytes, NULL);
			decide_data(l);
			decide_metadata(l);
			if (!l->loss_unrecorded && extend(l, began) < 0 && !l->extend_error.code)
				(void)tm_error_set(&l->extend_error, TM_ERR_INTERNAL, EIO,
						   "Extending pool %s failed.", p->name);
			if (!l->loss_unrecorded)
				give_metadata_mark(l);
		}
		if (l->ask_ring)
			tm_ring_ask(l->core, p->name, l->ring_since, &l->ring);
		if (l->sample)
			sample_volumes(l);
	}
}

static void look_job(void *arg)
{
	struct look *l = arg;
	const uint64_t began = tm_now_monotonic_usec();

	atomic_store(&l->at_work_usec, began);
	work(l, began);
	atomic_store(&l->at_work_usec, 0);
	tm_mailbox_post(l->core->mailbox, look_done, l);
}

/* ---- back on the main loop ---- */

static int retry_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_pool *pool = userdata;

	(void)usec;
	(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	tm_pool_look(pool, 0);
	return 0;
}

static void retry_at(struct tm_pool *pool, uint64_t at_usec)
{
	if (pool->retry_timer) {
		(void)sd_event_source_set_time(pool->retry_timer, at_usec);
		(void)sd_event_source_set_enabled(pool->retry_timer, SD_EVENT_ONESHOT);
		return;
	}
	(void)sd_event_add_time(pool->core->event, &pool->retry_timer, CLOCK_MONOTONIC, at_usec,
				20 * TM_USEC_PER_MSEC, retry_look, pool);
}

/* Not later than that. */
static void retry_by(struct tm_pool *pool, uint64_t at_usec)
{
	uint64_t set;
	int on;

	if (pool->retry_timer && sd_event_source_get_enabled(pool->retry_timer, &on) > 0 &&
	    sd_event_source_get_time(pool->retry_timer, &set) >= 0 && set <= at_usec)
		return;
	retry_at(pool, at_usec);
}

/*
 * When to look at metadata before the next sample: 0: no need. The kernel speaks up late: it takes
 * a reserve of its own (a tenth, at most 4 MiB) off what it tells to be free, but not off its mark
 * (a quarter, at most 4 MiB), so of 40 MiB or more its only word is that nothing is left. So a look
 * is due when the mark may be reached at the fastest rate seen; ever later while nothing grows,
 * but near the mark within ten seconds. Our own target has been given the mark, and counts both
 * alike.
 */
static uint64_t watch_metadata(struct tm_pool *pool, const struct look *l)
{
	const uint64_t now = tm_now_monotonic_usec();
	const uint64_t most_usec = pool->record.policy.sample_seconds * TM_USEC_PER_SEC;
	const uint64_t mark = l->metadata.plan.mark_blocks;
	const uint64_t rate = tm_rate_get(&l->metadata.rate, now);
	const bool grew = !pool->status_valid ||
			  pool->status.metadata_used != l->last.metadata_used;
	uint64_t room = l->last.metadata_total - l->last.metadata_used, ahead_usec;

	/* Not where it may have spoken up already, at a mark that is less by now. */
	if (l->grows && l->last.metadata_low_water_valid && l->last.metadata_low_water >= mark &&
	    room > l->last.metadata_low_water &&
	    room - l->last.metadata_low_water > l->last.metadata_low_water / 8 + 1)
		return 0;
	if (l->last.failed || l->metadata.plan.verdict != TM_EXTEND_NOT_NEEDED || !rate ||
	    !pool->record.policy.metadata.enabled ||
	    l->last.metadata_total - l->last.metadata_used < mark)
		return 0;
	room = l->last.metadata_total - l->last.metadata_used - mark;
	ahead_usec = tm_mul_div(tm_sat_mul(room, TM_METADATA_BLOCK), TM_USEC_PER_SEC, rate);
	if (ahead_usec < CLOSE_LOOK_USEC)
		ahead_usec = CLOSE_LOOK_USEC;
	if (!grew && ahead_usec < 2 * pool->close_look_usec)
		ahead_usec = 2 * pool->close_look_usec;
	if (room < l->last.metadata_total / 8 && ahead_usec > NEAR_LOOK_USEC)
		ahead_usec = NEAR_LOOK_USEC;
	pool->close_look_usec = ahead_usec < most_usec ? ahead_usec : most_usec;
	return ahead_usec < most_usec ? now + ahead_usec : 0;
}

static char *packed(json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

static void tell_space(struct tm_pool *pool, enum tm_event_type type, const char *space,
		       uint64_t used, uint64_t total, uint64_t mark)
{
	struct tm_event_spec spec = { .type = type, .pool = pool };
	char a[32], b[32];

	spec.data = packed(json_pack("{s:s, s:I, s:I, s:I}", "space", space, "used",
				     (json_int_t)used, "total", (json_int_t)total, "mark",
				     (json_int_t)mark));
	tm_record_event(pool->core, &spec, "Pool %s is low on %s space: %s of %s are free.",
			pool->record.name, space, tm_size_format(total - used, a, sizeof(a)),
			tm_size_format(total, b, sizeof(b)));
}

static void follow_queueing(struct tm_pool *pool, const struct tm_thin_pool_status *s,
			    unsigned int changes)
{
	const bool queueing = !s->failed && s->mode == TM_MODE_OUT_OF_DATA_SPACE &&
			      !s->error_if_no_space;
	struct tm_event_spec spec = { .pool = pool };
	char until[32];
	int timeout;

	if (queueing && !pool->queueing_since_usec) {
		timeout = tm_system_no_space_timeout();
		pool->core->system.no_space_timeout_seconds = timeout;
		pool->queueing_since_usec = tm_now_realtime_usec();
		pool->queueing_until_usec = timeout > 0
						    ? pool->queueing_since_usec +
							      (uint64_t)timeout * TM_USEC_PER_SEC
						    : 0;
		if (pool->queueing_until_usec)
			(void)tm_time_format(pool->queueing_until_usec, until, sizeof(until));
		spec.type = TM_EVENT_QUEUEING;
		spec.data = packed(
			json_pack("{s:s?}", "until", pool->queueing_until_usec ? until : NULL));
		if (pool->queueing_until_usec)
			tm_record_event(
				pool->core, &spec,
				"Writes to pool %s wait for space and turn into errors at %s.",
				pool->record.name, until);
		else
			tm_record_event(pool->core, &spec, "Writes to pool %s wait for space.",
					pool->record.name);
	} else if (!queueing && pool->queueing_since_usec) {
		pool->queueing_since_usec = pool->queueing_until_usec = 0;
		spec.type = TM_EVENT_QUEUEING_ENDED;
		tm_record_event(
			pool->core, &spec,
			changes & TM_CHANGE_NO_SPACE_TIMEOUT
				? "Writes to pool %s waited too long for space and now fail."
				: "Writes to pool %s no longer wait for space.",
			pool->record.name);
	}
}

static void tell_changes(struct tm_pool *pool, const struct tm_thin_pool_status *before,
			 uint64_t mark_before, const struct tm_thin_pool_status *now,
			 uint64_t mark_now)
{
	const uint64_t bs = pool->record.block_bytes;
	const unsigned int c = tm_derive(before, mark_before / bs, now, mark_now / bs);
	struct tm_event_spec spec = { .pool = pool };
	char until[32];

	if (c & TM_CHANGE_LOW_WATER)
		tell_space(pool, TM_EVENT_LOW_SPACE, "data", now->data_used * bs,
			   now->data_total * bs, mark_now);
	if (c & TM_CHANGE_METADATA_LOW_WATER)
		tell_space(pool, TM_EVENT_METADATA_LOW_SPACE, "metadata",
			   now->metadata_used * TM_METADATA_BLOCK,
			   now->metadata_total * TM_METADATA_BLOCK,
			   now->metadata_low_water * TM_METADATA_BLOCK);
	if (c & TM_CHANGE_MODE) {
		const char *from = !before          ? "write"
				   : before->failed ? "fail"
						    : tm_mode_name(before->mode);
		const char *to = now->failed ? "fail" : tm_mode_name(now->mode);

		spec.type = TM_EVENT_MODE_CHANGED;
		spec.data = packed(json_pack("{s:s, s:s}", "from", from, "to", to));
		tm_record_event(pool->core, &spec, "Pool %s went from mode %s to %s.",
				pool->record.name, from, to);
	}
	if (c & TM_CHANGE_OUT_OF_SPACE) {
		int timeout = tm_system_no_space_timeout();

		if (timeout > 0 && !now->error_if_no_space)
			(void)tm_time_format(tm_now_realtime_usec() +
						     (uint64_t)timeout * TM_USEC_PER_SEC,
					     until, sizeof(until));
		spec.type = TM_EVENT_OUT_OF_SPACE;
		spec.data = packed(json_pack(
			"{s:s?}", "until", timeout > 0 && !now->error_if_no_space ? until : NULL));
		tm_record_event(pool->core, &spec, "Pool %s ran out of data space.",
				pool->record.name);
	}
	if (c & TM_CHANGE_NEEDS_CHECK) {
		spec.type = TM_EVENT_NEEDS_CHECK;
		spec.data = NULL;
		tm_record_event(pool->core, &spec,
				"A metadata operation of pool %s failed: it is read-only until its "
				"metadata is checked.",
				pool->record.name);
	}
	if (c & TM_CHANGE_TRANSACTION && now->transaction_id != pool->record.transaction_id &&
	    !pool->running) {
		spec.type = TM_EVENT_TRANSACTION_MISMATCH;
		spec.data = packed(json_pack("{s:I, s:I}", "kernel",
					     (json_int_t)now->transaction_id, "record",
					     (json_int_t)pool->record.transaction_id));
		tm_record_event(pool->core, &spec,
				"Pool %s is at transaction %" PRIu64 " in the kernel, %" PRIu64
				" in the record.",
				pool->record.name, now->transaction_id,
				pool->record.transaction_id);
	}
	follow_queueing(pool, now, c);
}

void tm_pool_saw(struct tm_pool *pool, const struct tm_thin_pool_status *status,
		 uint64_t backing_free_bytes)
{
	const uint64_t mark = pool->record.low_water_bytes;

	tell_changes(pool, pool->status_valid ? &pool->status : NULL, mark, status, mark);
	pool->status = *status;
	pool->status_valid = true;
	pool->status_usec = tm_now_realtime_usec();
	pool->modes_seen |= 1U << status->mode;
	pool->backing_free_bytes = backing_free_bytes;
	tm_pool_touch(pool);
}

static void tell_extended(struct tm_pool *pool, const struct look_space *s, const char *space,
			  bool by_event, const struct tm_kernel_growth *growth, uint64_t unit)
{
	struct tm_event_spec spec = { .type = TM_EVENT_EXTENDED, .pool = pool };
	char a[32], b[32];
	json_t *data;

	if (s->to_bytes <= s->from_bytes)
		return;
	data = json_pack("{s:s, s:I, s:I, s:I, s:s}", "space", space, "from",
			 (json_int_t)s->from_bytes, "to", (json_int_t)s->to_bytes, "reaction_usec",
			 (json_int_t)s->reaction_usec, "reason",
			 s->plan.verdict == TM_EXTEND_NOW ? (by_event ? "low-water" : "level")
							  : "armed");
	if (data && growth->low_usec && tm_sat_mul(growth->blocks, unit) == s->to_bytes)
		(void)json_object_set_new(data, "kernel_usec",
					  json_integer((json_int_t)growth->low_usec));
	spec.data = packed(data);
	tm_record_event(pool->core, &spec,
			"Pool %s was extended: %s space from %s to %s, live after %" PRIu64
			".%03" PRIu64 " ms.",
			pool->record.name, space, tm_size_format(s->from_bytes, a, sizeof(a)),
			tm_size_format(s->to_bytes, b, sizeof(b)), s->reaction_usec / 1000,
			s->reaction_usec % 1000);
}

static void tell_failed(struct tm_pool *pool, const char *space, const char *reason,
			const char *detail)
{
	struct tm_event_spec spec = { .type = TM_EVENT_EXTEND_FAILED, .pool = pool };

	spec.data = packed(
		json_pack("{s:s, s:s, s:s}", "space", space, "reason", reason, "detail", detail));
	tm_record_event(pool->core, &spec, "Pool %s could not be given more %s space: %s",
			pool->record.name, space, detail);
}

/* When to try again. Where writes wait for it, that must not be left too late. */
static uint64_t retry_after(struct tm_pool *pool, struct tm_space *s)
{
	const uint64_t latest = tm_now_monotonic_usec() + QUEUEING_RETRY_USEC;

	if (pool->queueing_since_usec && s->backoff.not_before_usec > latest)
		s->backoff.not_before_usec = latest;
	return s->backoff.not_before_usec;
}

/* What became of one space: latencies, back-off, events. Returns when to try again, 0: not. */
static uint64_t settle_space(struct tm_pool *pool, struct tm_space *s, const struct look *l,
			     const struct look_space *ls, const char *space, uint64_t unit)
{
	const uint64_t now = tm_now_monotonic_usec();
	const enum tm_extend_verdict before = s->verdict;
	const bool extended = ls->to_bytes > ls->from_bytes;
	struct tm_event_spec spec = { .type = TM_EVENT_EXTEND_RESUMED, .pool = pool };
	bool first;

	s->rate = ls->rate;
	s->verdict = ls->plan.verdict;
	s->want_reserve_bytes = tm_sat_mul(ls->plan.want_reserve_blocks, unit);
	if (extended) {
		s->extensions++;
		if (ls->plan.verdict == TM_EXTEND_NOW)
			tm_latency_add(&s->reaction, ls->reaction_usec);
		s->verdict = TM_EXTEND_NOT_NEEDED;
	}
	switch (ls->plan.verdict) {
	case TM_EXTEND_NOW:
		if (extended) {
			if (tm_backoff_clear(&s->backoff) || before == TM_EXTEND_NO_BACKING)
				tm_record_event(pool->core, &spec, "Pool %s gets %s space again.",
						pool->record.name, space);
			return 0;
		}
		if (ls->blocked)
			return retry_after(pool, s);
		first = tm_backoff_fail(&s->backoff, now);
		if (first)
			tell_failed(pool, space,
				    l->extend_error.code ? tm_error_slug(l->extend_error.code)
							 : "kernel",
				    l->extend_error.code ? l->extend_error.detail
							 : "unknown cause");
		return retry_after(pool, s);
	case TM_EXTEND_NO_BACKING:
		if (ls->blocked)
			return retry_after(pool, s);
		first = tm_backoff_fail(&s->backoff, now);
		if (first)
			tell_failed(pool, space, "no-space",
				    "the file system below has no room left.");
		return retry_after(pool, s);
	case TM_EXTEND_AT_MAXIMUM:
		if (before != TM_EXTEND_AT_MAXIMUM)
			tell_failed(pool, space, "at-maximum", "the policy's maximum is reached.");
		return 0;
	case TM_EXTEND_FROZEN:
		if (before != TM_EXTEND_FROZEN)
			tell_failed(pool, space, "needs-check",
				    "its metadata has to be checked first.");
		return 0;
	case TM_EXTEND_NOT_NEEDED:
	case TM_EXTEND_DISABLED:
		(void)tm_backoff_clear(&s->backoff);
		return 0;
	}
	return 0;
}

static void take_sample(struct tm_pool *pool, const struct look *l)
{
	struct tm_core *core = pool->core;
	const uint64_t now = tm_now_monotonic_usec();
	struct tm_pool_sample *more;
	struct tm_sample s = {
		.time_usec = tm_now_realtime_usec(),
		.data_used_bytes = l->last.data_used * pool->record.block_bytes,
		.data_total_bytes = l->last.data_total * pool->record.block_bytes,
		.metadata_used_bytes = l->last.metadata_used * TM_METADATA_BLOCK,
		.metadata_total_bytes = l->last.metadata_total * TM_METADATA_BLOCK,
		.mode = l->last.failed ? TM_MODE_FAIL : l->last.mode,
		.count = 1,
		.data_used_max_bytes = l->last.data_used * pool->record.block_bytes,
	};

	for (size_t i = 0; i < l->n_volumes; i++) {
		struct tm_volume *v = tm_pool_find_volume(pool, l->volumes[i].id.text);

		if (!v || !l->volumes[i].valid)
			continue;
		if (!v->mapped_valid || v->mapped_bytes != l->volumes[i].mapped_bytes)
			tm_pool_touch(pool);
		v->mapped_valid = true;
		v->mapped_bytes = l->volumes[i].mapped_bytes;
	}
	/* A pool that rests is not written down again and again. */
	if (pool->recorded_usec && now - pool->recorded_usec < SAMPLE_KEEP_USEC &&
	    s.data_used_bytes == pool->last_sample.data_used_bytes &&
	    s.data_total_bytes == pool->last_sample.data_total_bytes &&
	    s.metadata_used_bytes == pool->last_sample.metadata_used_bytes &&
	    s.metadata_total_bytes == pool->last_sample.metadata_total_bytes &&
	    s.mode == pool->last_sample.mode)
		return;
	more = realloc(core->samples, (core->n_samples + 1) * sizeof(*more));
	if (!more)
		return;
	core->samples = more;
	more[core->n_samples++] = (struct tm_pool_sample){ .pool = pool->record.id, .sample = s };
	pool->last_sample = s;
	pool->recorded_usec = now;
}

static void samples_collected(struct tm_core *core)
{
	if (core->sample_looks || !core->n_samples)
		return;
	tm_record_samples(core, TM_TAKE(core->samples), core->n_samples);
	core->n_samples = 0;
}

static void vanished(struct tm_pool *pool)
{
	struct tm_event_spec spec = { .type = TM_EVENT_POOL_VANISHED, .pool = pool };
	const bool uncertain = pool->state == TM_POOL_UNCERTAIN;
	char reason[sizeof(pool->state_reason)];
	bool gone;

	if (uncertain && !pool->status_valid)
		return; /* it was not there before */
	memcpy(reason, pool->state_reason, sizeof(reason));
	tm_pool_observe(pool);
	gone = pool->state != TM_POOL_ACTIVE;
	if (uncertain) { /* no less so without its device */
		pool->state = TM_POOL_UNCERTAIN;
		memcpy(pool->state_reason, reason, sizeof(reason));
	} else if (gone) {
		(void)snprintf(pool->state_reason, sizeof(pool->state_reason),
			       "Its device was removed behind thinmgrd's back.");
	}
	if (!gone)
		return;
	tm_record_event(pool->core, &spec, "The device of pool %s disappeared.", pool->record.name);
}

static void settle(struct tm_pool *pool, struct look *l)
{
	const uint64_t low_water_before = pool->record.low_water_bytes;
	const bool sizes_changed =
		pool->record.data_bytes != l->record.data_bytes ||
		pool->record.data_reserve_bytes != l->record.data_reserve_bytes ||
		pool->record.metadata_bytes != l->record.metadata_bytes ||
		pool->record.metadata_reserve_bytes != l->record.metadata_reserve_bytes ||
		pool->record.low_water_bytes != l->record.low_water_bytes;
	const bool grew = pool->record.data_bytes != l->record.data_bytes ||
			  pool->record.metadata_bytes != l->record.metadata_bytes;
	const uint64_t close_look = watch_metadata(pool, l);
	uint64_t data_retry, meta_retry, retry;
	struct tm_kernel_news news;

	/* What was read between two steps of an operation says nothing; a look follows its end. */
	if (pool->look_crossed)
		l->first.transaction_id = l->last.transaction_id =
			pool->status_valid ? pool->status.transaction_id
					   : pool->record.transaction_id;
	tm_pool_suspect(pool, l->loss.why, l->loss.usec, 0); /* first: with the time recorded */
	tm_ring_settle(pool, &l->ring, pool->modes_seen | 1U << l->first.mode | 1U << l->last.mode,
		       &news);
	pool->modes_seen = 0;
	tell_changes(pool, pool->status_valid ? &pool->status : NULL, low_water_before, &l->first,
		     l->low_water_first);
	pool->record.data_bytes = l->record.data_bytes;
	pool->record.data_reserve_bytes = l->record.data_reserve_bytes;
	pool->record.metadata_bytes = l->record.metadata_bytes;
	pool->record.metadata_reserve_bytes = l->record.metadata_reserve_bytes;
	pool->record.low_water_bytes = l->record.low_water_bytes;
	tell_extended(pool, &l->data, "data", l->seen_usec != 0, &news.data,
		      pool->record.block_bytes);
	tell_extended(pool, &l->metadata, "metadata", l->seen_usec != 0, &news.metadata,
		      TM_METADATA_BLOCK);
	data_retry = settle_space(pool, &pool->data, l, &l->data, "data", pool->record.block_bytes);
	meta_retry = settle_space(pool, &pool->metadata, l, &l->metadata, "metadata",
				  TM_METADATA_BLOCK);
	tell_changes(pool, &l->first, l->low_water_first, &l->last, l->record.low_water_bytes);
	if (!pool->status_valid || !tm_thin_pool_status_equal(&pool->status, &l->last) ||
	    sizes_changed || pool->backing_free_bytes != l->backing_free_bytes || data_retry ||
	    meta_retry)
		tm_pool_touch(pool);
	pool->status = l->last;
	pool->status_valid = true;
	pool->status_usec = tm_now_realtime_usec();
	pool->backing_free_bytes = l->backing_free_bytes;
	if (l->remarked)
		pool->remarked_usec = tm_now_monotonic_usec();
	if (sizes_changed)
		tm_record_sizes(pool->core, pool, grew);
	retry = !data_retry                              ? meta_retry
		: !meta_retry || data_retry < meta_retry ? data_retry
							 : meta_retry;
	if (close_look && (!retry || close_look < retry))
		retry = close_look;
	if (retry)
		retry_at(pool, retry);
}

static void look_done(void *arg)
{
	struct look *l = arg;
	struct tm_core *core = l->core;
	struct tm_pool *pool = tm_core_find_pool(core, l->pool_id.text);
	bool again, extended, failed, loss_unrecorded;
	uint64_t seen_usec;

	if (l->sample)
		core->sample_looks--;
	core->n_looking--;
	if (!core->n_looking && core->late_timer)
		(void)sd_event_source_set_enabled(core->late_timer, SD_EVENT_OFF);
	if (!pool) {
		look_free(l);
		samples_collected(core);
		return;
	}
	pool->looking = pool->look_is_late = false;
	pool->look = NULL;
	if (l->let_go && !l->left_suspended)
		tm_log(LOG_NOTICE, "Pool %s goes on.", pool->record.name);
	pool->left_suspended = l->left_suspended;
	if (l->first_valid) {
		settle(pool, l);
		if (l->sample)
			take_sample(pool, l);
	} else if (l->vanished) {
		vanished(pool);
	} else {
		struct tm_log_fields fields = { .pool = pool->record.name, .error = &l->error };

		tm_log_fields(LOG_WARNING, &fields, "Pool %s could not be looked at: %s",
			      pool->record.name, l->error.detail);
	}
	failed = !l->first_valid && !l->vanished;
	loss_unrecorded = l->loss_unrecorded;
	extended = l->data.to_bytes > l->data.from_bytes;
	tm_pool_mend(pool);
	tm_upkeep_looked(pool);
	/* A step that was cut to what lay armed is followed by the rest. */
	again = pool->look_again ||
		(extended &&
		 l->data.plan.new_total_blocks * pool->record.block_bytes > l->data.to_bytes);
	if (l->data.plan.verdict == TM_EXTEND_NOW && extended)
		pool->data.want_reserve_bytes = tm_sat_mul(l->data.plan.want_reserve_blocks,
							   pool->record.block_bytes);
	look_free(l);
	samples_collected(core);
	if (loss_unrecorded || pool->left_suspended || (failed && pool->queueing_since_usec))
		retry_by(pool, tm_now_monotonic_usec() + QUEUEING_RETRY_USEC);
	if (pool->state == TM_POOL_ACTIVE) {
		tm_pool_arm(pool);
		if (again) {
			/* The rest of a step is no event: what was seen once is long past. */
			seen_usec = pool->look_again ? pool->look_again_seen_usec : 0;
			pool->look_again = false;
			tm_pool_look(pool, seen_usec);
		}
	}
	tm_pool_run_queue(pool);
}

/*
 * A look hangs when the kernel's suspend does: the pool waits for I/O that nobody answers. Its
 * thread is lost to the others for that long, so they get another one. One that waits for its turn,
 * or whose findings wait for the main loop, does not hang.
 */
static int find_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tm_core *core = userdata;
	const uint64_t now = tm_now_monotonic_usec();

	(void)source;
	(void)usec;
	for (size_t i = 0; i < core->n_pools; i++) {
		struct tm_pool *pool = core->pools[i];
		struct tm_log_fields fields = { .pool = pool->record.name };
		const uint64_t began = pool->look ? atomic_load(&pool->look->at_work_usec) : 0;

		if (!began || pool->look_is_late || began + LATE_USEC > now)
			continue;
		pool->look_is_late = true;
		tm_log_fields(LOG_WARNING, &fields,
			      "Looking at pool %s has taken %" PRIu64
			      " s so far: the kernel does not answer, and until it does the pool "
			      "cannot be extended. The kernel log (journalctl -k) may say what it "
			      "waits for.",
			      pool->record.name, (now - began) / TM_USEC_PER_SEC);
		if (tm_crew_grow(core->urgent) < 0)
			tm_log(LOG_ERR, "There is no further thread to look at pools.");
	}
	watch_lateness(core, now + LATE_USEC);
	return 0;
}

static void watch_lateness(struct tm_core *core, uint64_t at_usec)
{
	if (core->late_timer) {
		(void)sd_event_source_set_time(core->late_timer, at_usec);
		(void)sd_event_source_set_enabled(core->late_timer, SD_EVENT_ONESHOT);
		return;
	}
	(void)sd_event_add_time(core->event, &core->late_timer, CLOCK_MONOTONIC, at_usec,
				TM_USEC_PER_SEC, find_late, core);
}

void tm_pool_look(struct tm_pool *pool, uint64_t seen_usec)
{
	struct tm_core *core = pool->core;
	const uint64_t now = tm_now_monotonic_usec();
	struct look *l;
	size_t n = 0;

	if (pool->state != TM_POOL_ACTIVE && pool->state != TM_POOL_UNCERTAIN)
		return;
	if (pool->looking || (pool->arming && !tm_pool_call_off_arm(pool)) ||
	    (pool->running && pool->running->type->stops_extension)) {
		if (!pool->look_again || !pool->look_again_seen_usec)
			pool->look_again_seen_usec = seen_usec;
		pool->look_again = true;
		return;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return;
	l->core = core;
	l->pool_id = pool->record.id;
	l->record = pool->record;
	l->seen_usec = seen_usec;
	l->data.rate = pool->data.rate;
	l->data.reaction = pool->data.reaction;
	l->data.arming = pool->data.arming;
	l->data.blocked = !tm_backoff_allows(&pool->data.backoff, now);
	l->metadata.rate = pool->metadata.rate;
	l->metadata.reaction = pool->metadata.reaction;
	l->metadata.arming = pool->metadata.arming;
	l->metadata.blocked = !tm_backoff_allows(&pool->metadata.backoff, now);
	l->backing_free_bytes = pool->backing_free_bytes;
	l->may_remark = !pool->remarked_usec || now - pool->remarked_usec > REMARK_INTERVAL_USEC;
	l->may_mark = pool->state != TM_POOL_UNCERTAIN;
	if (pool->state == TM_POOL_UNCERTAIN) { /* watched, not changed */
		l->record.policy.data.enabled = l->record.policy.metadata.enabled = false;
		l->may_remark = false;
	}
	if (pool->sample_due) {
		pool->sample_due = false;
		pool->sampled_usec = now;
		l->sample = true;
		core->sample_looks++;
		l->volumes = calloc(pool->n_volumes ? pool->n_volumes : 1, sizeof(*l->volumes));
		for (size_t i = 0; l->volumes && i < pool->n_volumes; i++) {
			if (!pool->volumes[i].active)
				continue;
			l->volumes[n].id = pool->volumes[i].record.id;
			(void)snprintf(l->volumes[n].name, sizeof(l->volumes[n].name), "%s",
				       pool->volumes[i].record.name);
			n++;
		}
		l->n_volumes = n;
	}
	l->may_become_suspect = tm_pool_may_become_suspect(pool);
	l->grows = core->system.target_grows;
	l->ask_ring = l->grows && !pool->ring_off;
	l->ring_since = pool->ring.since;
	l->let_go = pool->left_suspended;
	pool->look_crossed = pool->running != NULL;
	pool->looking = true;
	pool->look = l;
	if (core->n_looking++ == 0)
		watch_lateness(core, now + LATE_USEC);
	/* What the kernel spoke up for goes before what is only looked at. */
	if (seen_usec)
		tm_crew_run_first(core->urgent, look_job, l);
	else
		tm_crew_run(core->urgent, look_job, l);
}
