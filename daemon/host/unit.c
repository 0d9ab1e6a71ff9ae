// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/unit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "logic/mountinfo.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define ROOT    "/org/freedesktop/systemd1"
#define MANAGER SYSTEMD ".Manager"
#define UNIT    SYSTEMD ".Unit"

#define OWN_UNIT "thinmgrd.service"

/* A question; a job takes as long as it takes. */
#define CALL_USEC (10 * TM_USEC_PER_SEC)

static void bus_closep(sd_bus **bus)
{
	(void)sd_bus_close_unref(*bus);
}
static void strv_freep(char ***list)
{
	for (char **at = *list; at && *at; at++)
		free(*at);
	free(*list);
}
#define auto_bus     tm_cleanup(bus_closep)
#define auto_message tm_cleanup(sd_bus_message_unrefp)
#define auto_error   tm_cleanup(sd_bus_error_free)
#define auto_strv    tm_cleanup(strv_freep)

static int open_bus(sd_bus **ret)
{
	int r = sd_bus_open_system_with_description(ret, "thinmgrd-units");

	return r < 0 ? r : sd_bus_set_method_call_timeout(*ret, CALL_USEC);
}

void tm_unit_done(struct tm_unit *u)
{
	free(u->more);
	*u = (struct tm_unit){ .more = NULL };
}

/* ---- finding -------------------------------------------------------------------------------- */

/* The object of a unit that systemd has loaded. *ret is the caller's to free. */
static int unit_path(sd_bus *bus, const char *name, char **ret)
{
	auto_message sd_bus_message *reply = NULL;
	const char *path;
	int r = sd_bus_call_method(bus, SYSTEMD, ROOT, MANAGER, "GetUnit", NULL, &reply, "s", name);

	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

static int is_active(sd_bus *bus, const char *path)
{
	tm_auto_free char *state = NULL;
	int r = sd_bus_get_property_string(bus, SYSTEMD, path, UNIT, "ActiveState", NULL, &state);

	return r < 0 ? r
		     : !strcmp(state, "active") || !strcmp(state, "activating") ||
			       !strcmp(state, "reloading");
}

/* Does it come from a file that is still there once it is stopped? */
static int has_file(sd_bus *bus, const char *path)
{
	static const char transient[] = "/run/systemd/transient/";
	tm_auto_free char *file = NULL;
	int r = sd_bus_get_property_string(bus, SYSTEMD, path, UNIT, "FragmentPath", NULL, &file);

	return r < 0 ? r : file[0] && strncmp(file, transient, strlen(transient)) != 0;
}

/* 1: noted, 0: not (any more) active, or noted before. */
static int add_more(sd_bus *bus, struct tm_unit *u, const char *name)
{
	tm_auto_free char *path = NULL;
	int r;

	if (!strcmp(name, u->name) || strlen(name) >= TM_UNIT_NAME_SIZE)
		return 0;
	for (size_t i = 0; i < u->n_more; i++)
		if (!strcmp(u->more[i], name))
			return 0;
	if (unit_path(bus, name, &path) < 0)
		return 0;
	r = is_active(bus, path);
	if (r <= 0)
		return r;
	if (!strcmp(name, OWN_UNIT) || u->n_more == TM_UNIT_MORE_MAX)
		return -EDEADLK;
	memcpy(u->more[u->n_more++], name, strlen(name) + 1);
	return 1;
}

/* Those that go when the unit at @path goes. */
static int add_requiring(sd_bus *bus, struct tm_unit *u, const char *path)
{
	static const char *const kinds[] = { "RequiredBy", "BoundBy", "ConsistsOf" };
	int r = 0;

	for (size_t k = 0; r >= 0 && k < TM_ARRAY_SIZE(kinds); k++) {
		auto_strv char **names = NULL;

		r = sd_bus_get_property_strv(bus, SYSTEMD, path, UNIT, kinds[k], NULL, &names);
		for (char **name = names; r >= 0 && name && *name; name++)
			r = add_more(bus, u, *name);
	}
	return r < 0 ? r : 0;
}

/* Swap has a unit by each name of its device; one of them, which the others follow, is the real
 * one. */
static int follow(sd_bus *bus, struct tm_unit *u, char **path)
{
	tm_auto_free char *name = NULL;
	int r = sd_bus_get_property_string(bus, SYSTEMD, *path, UNIT, "Following", NULL, &name);

	if (r < 0 || !name[0] || strlen(name) >= sizeof(u->name))
		return r;
	memcpy(u->name, name, strlen(name) + 1);
	free(TM_TAKE(*path));
	return unit_path(bus, u->name, path);
}

static int find(sd_bus *bus, struct tm_unit *u)
{
	tm_auto_free char *path = NULL;
	int r = unit_path(bus, u->name, &path);

	if (r >= 0)
		r = follow(bus, u, &path);

	if (r >= 0)
		r = is_active(bus, path);
	if (r > 0)
		r = has_file(bus, path);
	if (r <= 0)
		return r;
	u->more = calloc(TM_UNIT_MORE_MAX, sizeof(*u->more));
	if (!u->more)
		return -ENOMEM;
	r = add_requiring(bus, u, path);
	/* The list grows while it is walked. */
	for (size_t i = 0; r >= 0 && i < u->n_more; i++) {
		tm_auto_free char *more = NULL;

		if (unit_path(bus, u->more[i], &more) >= 0)
			r = add_requiring(bus, u, more);
	}
	return r < 0 ? r : 1;
}

int tm_unit_find(const char *path, const char *suffix, struct tm_unit *ret)
{
	struct tm_unit u = { .more = NULL };
	auto_bus sd_bus *bus = NULL;
	int r;

	*ret = u;
	if (tm_unit_name(path, suffix, u.name, sizeof(u.name)) < 0 || open_bus(&bus) < 0)
		return 0;
	r = find(bus, &u);
	if (r <= 0) {
		tm_unit_done(&u);
		return r == -ENOMEM ? r : 0;
	}
	*ret = u;
	return 1;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

struct job {
	char *path;
	char result[32]; /* "": not ended yet */
};

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct job *job = userdata;
	const char *path, *unit, *result;
	uint32_t id;

	(void)ret_error;
	if (sd_bus_message_read(m, "uoss", &id, &path, &unit, &result) >= 0 && job->path &&
	    !strcmp(path, job->path))
		(void)snprintf(job->result, sizeof(job->result), "%s", result);
	return 0;
}

static int begin(sd_bus *bus, const char *method, const char *name, struct job *job,
		 sd_bus_error *error)
{
	auto_message sd_bus_message *reply = NULL;
	const char *path;
	int r = sd_bus_match_signal(bus, NULL, SYSTEMD, ROOT, MANAGER, "JobRemoved", on_removed,
				    job);

	/* What comes before the answer waits until it was read: none is missed. */
	if (r >= 0)
		r = sd_bus_call_method(bus, SYSTEMD, ROOT, MANAGER, "Subscribe", error, NULL, NULL);
	if (r >= 0)
		r = sd_bus_call_method(bus, SYSTEMD, ROOT, MANAGER, method, error, &reply, "ss",
				       name, "replace");
	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return r;
	job->path = strdup(path);
	return job->path ? 0 : -ENOMEM;
}

/* 0 when the job has ended, -ETIME, or what the bus says. */
static int wait_for(sd_bus *bus, const struct job *job, uint64_t end_usec)
{
	while (!job->result[0]) {
		const uint64_t now = tm_now_monotonic_usec();
		int r = sd_bus_process(bus, NULL);

		if (r > 0)
			continue;
		if (r == 0 && now >= end_usec)
			return -ETIME;
		if (r == 0)
			r = sd_bus_wait(bus, end_usec - now);
		if (r < 0 && r != -EINTR)
			return r;
	}
	return 0;
}

/* There is a signal for a job's end, or none when the connection goes; a unit's state tells, too.
 */
static void cancel(sd_bus *bus, const struct job *job)
{
	(void)sd_bus_call_method(bus, SYSTEMD, job->path, SYSTEMD ".Job", "Cancel", NULL, NULL,
				 NULL);
}

static int run_job(const char *method, const char *name, unsigned int limit_seconds,
		   struct tm_error *err)
{
	const uint64_t end = tm_now_monotonic_usec() + limit_seconds * TM_USEC_PER_SEC;
	const bool stop = !strcmp(method, "StopUnit");
	const char *what = stop ? "stop" : "start";
	auto_error sd_bus_error error = SD_BUS_ERROR_NULL;
	auto_bus sd_bus *bus = NULL;
	struct job job = { .path = NULL };
	int r = open_bus(&bus);

	if (r >= 0)
		r = begin(bus, method, name, &job, &error);
	if (r >= 0)
		r = wait_for(bus, &job, end);
	if (r == -ETIME) {
		cancel(bus, &job);
		r = tm_error_set(err, TM_ERR_TIMEOUT, ETIMEDOUT,
				 "systemd did not %s %s within %u s", what, name, limit_seconds);
	} else if (r < 0) {
		r = tm_error_set(err, TM_ERR_IO, -r, "cannot have systemd %s %s: %s", what, name,
				 error.message ? error.message : strerrordesc_np(-r));
	} else if (strcmp(job.result, "done") != 0) {
		r = tm_error_set(err, stop ? TM_ERR_BUSY : TM_ERR_IO, stop ? EBUSY : EIO,
				 "systemd could not %s %s: %s", what, name, job.result);
		tm_error_hint(err, "\"systemctl status %s\" says more.", name);
	}
	free(job.path);
	return r;
}

int tm_unit_stop(const char *name, unsigned int limit_seconds, struct tm_error *err)
{
	return run_job("StopUnit", name, limit_seconds, err);
}

int tm_unit_start(const char *name, unsigned int limit_seconds, struct tm_error *err)
{
	return run_job("StartUnit", name, limit_seconds, err);
}
