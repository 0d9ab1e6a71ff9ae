/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The modes of a pool and every way from one to another, as pure C: no kernel call, no lock, no
 * state of its own. The module and the unit tests compile the same file.
 *
 * A pool degrades from write over out-of-data-space and read-only to fail. Data that runs out
 * aborts nothing and is mended by more space. A metadata operation that fails costs the
 * transaction: the pool goes read-only with needs_check, and until an offline check or repair
 * cleared that flag there is no way back, whatever is asked for and however much space there is.
 */
#ifndef DTM_MODE_H
#define DTM_MODE_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#endif

/* Each worse than the one before. */
enum dtm_mode {
	DTM_WRITE,             /* metadata may change */
	DTM_OUT_OF_DATA_SPACE, /* mapped blocks are served, others wait or fail */
	DTM_READ_ONLY,         /* metadata may not change */
	DTM_FAIL,              /* all I/O fails */
	DTM_N_MODES,
};

enum dtm_event {
	DTM_EV_BIND,               /* resume with a table just loaded: its mode is asked for */
	DTM_EV_RESUME,             /* resume with the table there was */
	DTM_EV_DATA_EXHAUSTED,     /* no data block could be had */
	DTM_EV_DATA_FREED,         /* data blocks were freed or added */
	DTM_EV_NO_SPACE_TIMEOUT,   /* I/O waited for space as long as it may */
	DTM_EV_METADATA_EXHAUSTED, /* only the reserve of metadata is left */
	DTM_EV_METADATA_FAILED,    /* an operation on metadata failed */
	DTM_EV_ABORT_FAILED,       /* and its transaction could not be taken back */
	DTM_N_EVENTS,
};

struct dtm_mode_in {
	enum dtm_mode mode;
	enum dtm_mode requested; /* by the table: DTM_WRITE or DTM_READ_ONLY */
	bool needs_check;        /* set, whether or not it could be written yet */
	bool data_free;          /* there is a free data block */
	bool metadata_free;      /* there is metadata beside the reserve */
	bool error_if_no_space;  /* by the table: I/O without space fails at once */
	enum dtm_event event;
};

/* What has to be done, in this order. */
enum dtm_todo {
	DTM_DO_ABORT = 1 << 0,        /* take back the transaction */
	DTM_DO_NEEDS_CHECK = 1 << 1,  /* set the flag, and write it as soon as that can be done */
	DTM_DO_ERROR_QUEUED = 1 << 2, /* I/O that waits fails, and so does what would wait */
	DTM_DO_RETRY_QUEUED = 1 << 3, /* I/O that waits is tried again */
	DTM_DO_STOP_TIMEOUT = 1 << 4, /* of waiting for space; it begins when I/O has to wait */
	DTM_DO_EVENT = 1 << 5,        /* raise a device-mapper event: the status changed */
};

struct dtm_mode_out {
	enum dtm_mode mode;
	unsigned int todo; /* of enum dtm_todo */
	bool refused;      /* what the table asked for is not possible now; that is not an error */
};

/* Total: every combination has an answer. */
struct dtm_mode_out dtm_mode_next(const struct dtm_mode_in *in);

/* "rw", "out_of_data_space", "ro", "Fail": as the status line says it. */
const char *dtm_mode_text(enum dtm_mode mode);

/* May metadata change at all: mappings made, messages carried out? */
bool dtm_mode_may_change(enum dtm_mode mode);

/* May data or metadata be grown? */
bool dtm_mode_may_grow(enum dtm_mode mode, bool needs_check);

/*
 * May I/O that finds no space wait for some? Only where a retry could help: not with
 * needs_check, whose transaction was aborted, nor where waiting is not wanted or took too long.
 */
bool dtm_mode_may_queue(enum dtm_mode mode, bool needs_check, bool error_if_no_space,
			bool timed_out);

#endif
