/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations: a change as a list of steps.
 *
 * Each step is written to the journal before it is done. One step of an operation is its
 * point of no return (commit): when an operation fails or is cut off before that step was
 * journaled, the steps done so far are undone in reverse, the one that was under way too;
 * when it is cut off later, the rest is done. So a step's run must be fine with being run
 * again, and its undo with a step that was never or only half done. Steps that only record
 * are one transaction with their journal entry: never half done.
 *
 * Steps run on a crew's thread, on the operation's own copy of the pool; one operation per pool
 * at a time. What they changed is taken over by the main loop when the operation has ended.
 */
#ifndef TM_CORE_OPERATION_H
#define TM_CORE_OPERATION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "backing/copies.h"
#include "core/core.h"
#include "core/released.h"

struct tm_op;

struct tm_step {
	const char *name;
	int (*run)(struct tm_op *op, struct tm_error *err);
	int (*undo)(struct tm_op *op, struct tm_error *err); /* NULL: nothing to undo */
	bool commit;
	bool record; /* changes only the database: done in one transaction with its journal entry */
	bool can_wait; /* failing is logged, not the operation's end: the next start does it again
			*/
};

struct tm_op_type {
	enum tm_command_kind kind;
	const struct tm_step *steps;
	size_t n_steps;
	bool stops_extension; /* may not run beside an extension of the same pool */
	bool needs_pool_up;   /* undoing or finishing it after a restart needs the pool's device */
	/* The same if it was up; but where it cannot be brought up nothing is left to be undone. */
	bool wants_pool_up;
};

/* What others see of a step while it runs, and ask of it: from any thread. */
struct tm_progress {
	atomic_bool cancelled; /* what can end early is to, and to be undone */
	atomic_int percent;    /* of the step, an estimate; -1: not known */
	/* Where a step runs several programs: from where to where, in percent of it, the next one
	 * leads; both 0: it is all of the step. For the thread alone that runs them. */
	int part_begin, part_end;
};

/* What was found of lost writes, and recorded; see tm_parts_suspect. */
struct tm_loss {
	enum tm_suspicion why; /* TM_SUSPECT_NOT: nothing */
	uint64_t usec;
};

/* What an operation works on. Everything its steps need after a restart is in the JSON form
 * (tm_op_state_*). */
struct tm_op {
	struct tm_core *core;
	const struct tm_op_type *type;
	struct tm_operation_record record; /* under core->live_lock while it is queued or running */
	struct tm_command *cmd;            /* what was asked for; owned; NULL after a restart */

	struct tm_pool_record pool;       /* own copy; steps change it */
	struct tm_volume_record *volumes; /* the pool's volumes when it began; owned */
	size_t n_volumes;
	struct tm_volume_record
		*items; /* the volumes it makes or changes, as they shall be; owned */
	struct tm_volume_record *before; /* the same as they were (resize, rename, delete); owned */
	size_t n_items;

	uint64_t transaction_before;
	uint64_t data_bytes, metadata_bytes; /* extend: the new totals, 0: unchanged */
	struct tm_policy policy;             /* policy: the new one */
	enum tm_when_full when_full;
	bool activate, with_volumes;
	bool pool_was_active;    /* its device was there: undoing leaves it */
	bool pool_was_uncertain; /* and is not, once this is done */
	bool recovering;         /* after a restart */
	bool direct_io;          /* what attaching found out */
	bool left_suspended;     /* the pool could not be resumed */
	uint64_t cleared_usec;   /* when its volume was no longer suspect */
	struct tm_loss loss;     /* found before the pool was changed */

	struct {
		char copy_name[TM_COPY_NAME_SIZE]; /* under which the old metadata is kept */
		uint64_t metadata_bytes, metadata_reserve_bytes; /* sizes of the old */
		uint64_t *last_mapped; /* bytes, of each of the volumes; UINT64_MAX: not known;
					  owned */
		bool clean;            /* thin_check finds nothing wrong with the old */
		bool superblock_lost;  /* of the old nothing but its trees can be read */
		bool lossless;
		char *report; /* JSON text of what became of which volume; owned */
		struct tm_released_list released; /* what that is; owned */
		json_t *back, *off; /* what of it was given back, and what not; owned */
		bool *lost; /* of each of the volumes: active, and not in the new metadata; owned */
		bool *suspect;                /* of each: other than it was; owned */
		char from[TM_COPY_NAME_SIZE]; /* restore: the copy to go back to; else "" */
		/* repair: who can let go of volumes is made to; restore: losses are meant */
		bool force;
	} repair;

	struct {
		/* as a safety copy, named repair.copy_name; what was found is in repair.report */
		bool keep;
		bool by_itself;     /* nobody asked for it */
		bool held;          /* a metadata snapshot was made, by this very process */
		uint64_t held_root; /* where that is; 0: not known, or there is none */
	} check;

	/* The pool in the kernel when it had ended; only of one that stops extension. */
	bool status_valid;
	struct tm_thin_pool_status status;
	uint64_t backing_free_bytes;

	struct tm_progress progress;
	bool dropped; /* cancelled before its turn came: it has touched nothing */
	struct tm_error error;
	bool committed; /* the point of no return is behind */
	bool undo_failed;
	struct tm_error
		undo_error; /* the first of it; no code where undoing was out of the question */
};

/* By kind; and all of them, for --list-operations and the crash tests. Static. */
const struct tm_op_type *tm_op_type(enum tm_command_kind kind);
const struct tm_op_type *tm_op_type_from_name(const char *name);

struct tm_op *tm_op_free(struct tm_op *op);

/* The JSON text of what the steps need; NULL when out of memory. The caller frees it. */
char *tm_op_state_format(const struct tm_op *op);
/* Fill @op from the text. 0 or -EINVAL with TM_ERR_STORE. */
int tm_op_state_parse(struct tm_op *op, const char *text, struct tm_error *err);

/*
 * Whether it could still be cancelled when its record said that: until its point of no return.
 * Any step before that can be undone, so any may be its last.
 */
bool tm_op_cancellable(const struct tm_op_type *type, const struct tm_operation_record *record);

/*
 * Run or, after a restart, settle an operation whose row is in the journal: blocks until it is
 * done, or failed and undone. The outcome is in op->record.status, op->error, op->undo_failed.
 */
void tm_op_execute(struct tm_op *op);

/* The steps of every operation as JSON text, for --list-operations. The caller frees it. */
char *tm_op_list_json(void);

#endif
