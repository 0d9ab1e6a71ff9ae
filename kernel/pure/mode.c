// SPDX-License-Identifier: GPL-2.0-only
/* See mode.h. */

#include "mode.h"

static struct dtm_mode_out stay(const struct dtm_mode_in *in)
{
	return (struct dtm_mode_out){ .mode = in->mode };
}

/* Leaving out-of-data-space ends the waiting, one way or the other. */
static unsigned int leave(const struct dtm_mode_in *in, unsigned int how)
{
	return in->mode == DTM_OUT_OF_DATA_SPACE ? DTM_DO_STOP_TIMEOUT | how : 0;
}

static struct dtm_mode_out writable(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out = { .mode = DTM_WRITE };

	if (in->mode != DTM_WRITE)
		out.todo = DTM_DO_EVENT | DTM_DO_RETRY_QUEUED | leave(in, 0);
	return out;
}

static struct dtm_mode_out out_of_data(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out = { .mode = DTM_OUT_OF_DATA_SPACE };

	if (in->mode != DTM_OUT_OF_DATA_SPACE)
		out.todo = DTM_DO_EVENT;
	if (in->error_if_no_space)
		out.todo |= DTM_DO_ERROR_QUEUED | leave(in, 0);
	return out;
}

static struct dtm_mode_out read_only(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out = { .mode = DTM_READ_ONLY };

	if (in->mode != DTM_READ_ONLY)
		out.todo = DTM_DO_EVENT | DTM_DO_ERROR_QUEUED | leave(in, 0);
	return out;
}

static struct dtm_mode_out failed(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out = { .mode = DTM_FAIL };

	if (in->mode != DTM_FAIL)
		out.todo = DTM_DO_EVENT | DTM_DO_ERROR_QUEUED | leave(in, 0);
	return out;
}

/* The transaction is lost. Waiting I/O belonged to it, so none of it may be tried again. */
static struct dtm_mode_out metadata_failed(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out;

	if (in->mode == DTM_FAIL)
		return stay(in);
	out = read_only(in);
	out.todo |= DTM_DO_ERROR_QUEUED;
	/* Nothing of a transaction is there in read-only mode, so nothing to take back. */
	if (in->mode != DTM_READ_ONLY)
		out.todo |= DTM_DO_ABORT;
	if (!in->needs_check)
		out.todo |= DTM_DO_NEEDS_CHECK | DTM_DO_EVENT;
	return out;
}

/* A table asks for a mode; it gets what is possible. */
static struct dtm_mode_out bind(const struct dtm_mode_in *in)
{
	struct dtm_mode_out out;

	/* What failed once is not known any more; only new devices end that. */
	if (in->mode == DTM_FAIL) {
		out = stay(in);
		out.refused = true;
		return out;
	}
	if (in->requested == DTM_READ_ONLY)
		return read_only(in);
	if (in->needs_check) {
		out = read_only(in);
		out.refused = true;
		return out;
	}
	/* Another table may want waiting I/O to wait no longer. */
	return in->data_free ? writable(in) : out_of_data(in);
}

struct dtm_mode_out dtm_mode_next(const struct dtm_mode_in *in)
{
	switch (in->event) {
	case DTM_EV_BIND:
		return bind(in);
	case DTM_EV_DATA_EXHAUSTED:
		/* Where metadata may not change nobody asks for space. */
		if (in->mode == DTM_WRITE && !in->data_free)
			return out_of_data(in);
		return stay(in);
	case DTM_EV_DATA_FREED:
		if (in->mode == DTM_OUT_OF_DATA_SPACE && in->data_free && !in->needs_check)
			return writable(in);
		return stay(in);
	case DTM_EV_NO_SPACE_TIMEOUT:
		if (in->mode == DTM_OUT_OF_DATA_SPACE)
			return (struct dtm_mode_out){ .mode = in->mode,
						      .todo = DTM_DO_ERROR_QUEUED | DTM_DO_EVENT };
		return stay(in);
	case DTM_EV_METADATA_EXHAUSTED:
		if (in->metadata_free || !dtm_mode_may_change(in->mode))
			return stay(in);
		return metadata_failed(in);
	case DTM_EV_METADATA_FAILED:
		return metadata_failed(in);
	case DTM_EV_ABORT_FAILED:
		return failed(in);
	case DTM_EV_RESUME:
	case DTM_N_EVENTS:
		break;
	}
	return stay(in);
}

const char *dtm_mode_text(enum dtm_mode mode)
{
	switch (mode) {
	case DTM_WRITE:
		return "rw";
	case DTM_OUT_OF_DATA_SPACE:
		return "out_of_data_space";
	case DTM_READ_ONLY:
		return "ro";
	case DTM_FAIL:
	case DTM_N_MODES:
		break;
	}
	return "Fail";
}

bool dtm_mode_may_change(enum dtm_mode mode)
{
	return mode == DTM_WRITE || mode == DTM_OUT_OF_DATA_SPACE;
}

bool dtm_mode_may_grow(enum dtm_mode mode, bool needs_check)
{
	return dtm_mode_may_change(mode) && !needs_check;
}

bool dtm_mode_may_queue(enum dtm_mode mode, bool needs_check, bool error_if_no_space,
			bool timed_out)
{
	return dtm_mode_may_change(mode) && !needs_check && !error_if_no_space && !timed_out;
}
