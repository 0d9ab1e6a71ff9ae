/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who holds a pool's volumes. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"
#include "core/internal.h"
#include "host/holders.h"

/*
 * Whenever somebody who could write to a device closes it, udev looks at what is on it now: it lets
 * go by itself, within moments.
 */
static bool is_passing(const struct tm_holder *h)
{
	return h->kind == TM_HOLDER_PROCESS &&
	       strcmp(h->process.unit, "systemd-udevd.service") == 0;
}

int tm_parts_holders(struct tm_core *core, const struct tm_pool_record *pool,
		     const struct tm_volume_record *volumes, size_t n, struct tm_holding *ret,
		     struct tm_error *err)
{
	*ret = (struct tm_holding){ 0 };
	ret->devices = calloc(n ? n : 1, sizeof(*ret->devices));
	ret->names = calloc(n ? n : 1, sizeof(*ret->names));
	if (!ret->devices || !ret->names)
		goto no_memory;
	for (size_t i = 0; i < n; i++) {
		struct tm_dm_info info;

		if (tm_parts_ours(core, pool, TM_ROLE_VOLUME, &volumes[i], &info, NULL) <= 0 ||
		    info.open_count == 0)
			continue;
		ret->devices[ret->n_devices] = makedev(info.major, info.minor);
		(void)snprintf(ret->names[ret->n_devices++], sizeof(ret->names[0]), "%s",
			       volumes[i].name);
	}
	if (!ret->n_devices)
		return 0;
	if (tm_holders_find(ret->devices, ret->n_devices, "/proc", "/sys", &ret->holders, err) <
	    0) {
		tm_holding_done(ret);
		return -EIO;
	}
	tm_holders_leave_out(&ret->holders, is_passing);
	return 0;
no_memory:
	tm_holding_done(ret);
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

void tm_holding_done(struct tm_holding *h)
{
	tm_holders_done(&h->holders);
	free(h->devices);
	free(h->names);
	*h = (struct tm_holding){ 0 };
}

/*
 * Of a mount that is copied into the namespaces of services (udevd has one of its own) it is enough
 * to hear once: most copies go with it.
 */
static bool is_copy(const struct tm_holding *h, const struct tm_holder *one)
{
	if (one->kind != TM_HOLDER_MOUNT || one->mount.here)
		return false;
	for (size_t i = 0; i < h->holders.n; i++) {
		const struct tm_holder *other = &h->holders.list[i];

		if (other->kind == TM_HOLDER_MOUNT && other->mount.here &&
		    other->device == one->device &&
		    strcmp(other->mount.line.point, one->mount.line.point) == 0)
			return true;
	}
	return false;
}

const char *tm_holding_text(const struct tm_holding *h, char *buf, size_t len)
{
	size_t at = 0, told = 0, all = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < h->holders.n; i++)
		all += is_copy(h, &h->holders.list[i]) ? 0 : 1;
	for (size_t i = 0; i < h->holders.n; i++) {
		const struct tm_holder *one = &h->holders.list[i];
		char more[48] = "";
		int n;

		if (is_copy(h, one))
			continue;
		if (told + 1 < all)
			(void)snprintf(more, sizeof(more), ", and %zu more", all - told - 1);
		n = snprintf(buf + at, len - at, "%s%s is %s", at ? ", " : "",
			     h->names[one->device], one->text);
		/* As many as there is room for, with how many there are more. */
		if (n < 0 || at + (size_t)n + strlen(more) >= len) {
			(void)snprintf(buf + at, len - at, "%s%zu more", at ? ", and " : "",
				       all - told);
			break;
		}
		at += (size_t)n;
		told++;
	}
	if (!h->holders.n && h->n_devices)
		(void)snprintf(buf, len, "%s is held by something that cannot be seen",
			       h->names[0]);
	return buf;
}

json_t *tm_holding_json(const struct tm_holding *h)
{
	json_t *list = tm_holders_json(&h->holders, h->devices);

	for (size_t i = 0; list && i < h->holders.n; i++)
		(void)json_object_set_new(json_array_get(list, i), "volume",
					  json_string(h->names[h->holders.list[i].device]));
	return list;
}
