/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When volumes become suspect: writes to them may have been lost, and neither more space nor a
 * repair brings those back. Suspect is what was active and not read-only when
 *
 *  - the pool went read-only or failed: what was written since its last commit is taken back, and
 *    what came later was answered with an error;
 *  - the pool had no data space and answered writes with errors, because it is to, or because they
 *    had waited for too long. Writes that waited and were given space in time are not lost.
 *
 * and what a repair, or going back to kept metadata, left other than it was. Pure.
 */
#ifndef TM_LOGIC_SUSPECT_H
#define TM_LOGIC_SUSPECT_H

#include "logic/kernel-events.h"
#include "logic/model.h"
#include "logic/repair-verdict.h"

/* By what the pool's status says now. */
enum tm_suspicion tm_suspect_by_status(const struct tm_thin_pool_status *status);

/*
 * By what our target remembers, of what happened at @floor_ns or later; *ret_usec, in real time, is
 * when the last of that was. @when_full: what the pool does with writes it has no space for.
 */
enum tm_suspicion tm_suspect_by_events(const struct tm_kernel_events *events, uint64_t floor_ns,
				       enum tm_when_full when_full, uint64_t *ret_usec);

bool tm_suspect_by_fate(enum tm_fate fate);

/*
 * Does it make this volume suspect? One that is suspect already stays so for its first reason.
 * @happened_usec: when it happened, 0: it lasts. What was before a volume was made or cleared does
 * not count.
 */
bool tm_suspect_touches(const struct tm_volume_record *volume, uint64_t happened_usec);

#endif
