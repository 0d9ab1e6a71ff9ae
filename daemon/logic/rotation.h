/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which copies of metadata are kept. A copy goes when it is over both limits: there are as many
 * newer ones as shall be kept, and it is older than it has to become. The newest always stays.
 * Safety copies, and what others took the place of, are counted each for themselves: however often
 * the one is made, it does not push out the other.
 */
#ifndef TM_LOGIC_ROTATION_H
#define TM_LOGIC_ROTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logic/model.h"

struct tm_rotation_copy {
	uint64_t kept_usec; /* since when, real time */
	bool safety;        /* made of healthy metadata, to be safe; else: replaced */
};

/*
 * @copies: @n of them, the oldest first; the real time is @now_usec. ret[i] becomes whether that
 * one is to be removed. Whatever was kept in the future is not old.
 */
void tm_rotation_decide(const struct tm_rotation_copy *copies, size_t n, uint64_t now_usec,
			const struct tm_policy *policy, bool *ret);

#endif
