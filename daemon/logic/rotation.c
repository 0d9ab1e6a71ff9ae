// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/rotation.h"

#include "common/units.h"

#define DAY_USEC (24 * 3600 * TM_USEC_PER_SEC)

void tm_rotation_decide(const struct tm_rotation_copy *copies, size_t n, uint64_t now_usec,
			const struct tm_policy *policy, bool *ret)
{
	const uint64_t span = policy->keep_days * DAY_USEC;
	size_t newer[2] = { 0, 0 };

	for (size_t i = n; i-- > 0;) {
		const size_t n_newer = newer[copies[i].safety]++;
		const uint64_t kept = copies[i].kept_usec;
		const uint64_t age = now_usec > kept ? now_usec - kept : 0;

		ret[i] = n_newer > 0 && n_newer >= policy->keep_copies && age > span;
	}
}
