/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine: kernel target, tools, what is degraded. */

#include <errno.h>
#include <libkmod.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "core/internal.h"

#ifndef TM_VERSION
#define TM_VERSION "0.1.0"
#endif

#define OUR_MODULE   "dm_thinmgr"
#define STOCK_MODULE "dm_thin_pool"

/* What was seen of the kernel's target, until the main loop takes it over. */
struct sight {
	struct tm_core *core;
	char module[32], version[32], origin[32]; /* as in the view */
	bool ours;
	int no_space_timeout_seconds;
	bool tried; /* it was missing, and to be loaded */
	char warnings[2][256];
	size_t n_warnings;
};

static void warn(struct sight *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void warn(struct sight *k, const char *fmt, ...)
{
	va_list ap;

	if (k->n_warnings >= TM_ARRAY_SIZE(k->warnings))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(k->warnings[k->n_warnings++], sizeof(k->warnings[0]), fmt, ap);
	va_end(ap);
}

static void unref_kmod(struct kmod_ctx **ctx)
{
	if (*ctx)
		(void)kmod_unref(*ctx);
}

/* -ENOENT where there is none for this kernel, -ECANCELED where the administrator forbids it. */
static int load_module(const char *name)
{
	tm_cleanup(unref_kmod) struct kmod_ctx *ctx = kmod_new(NULL, NULL);
	struct kmod_list *list = NULL, *at;
	int r;

	if (!ctx)
		return -ENOMEM;
	(void)kmod_load_resources(ctx);
	r = kmod_module_new_from_lookup(ctx, name, &list);
	if (r < 0)
		return r;
	r = list ? 0 : -ENOENT;
	kmod_list_foreach(at, list)
	{
		struct kmod_module *m = kmod_module_get_module(at);
		int one = kmod_module_probe_insert_module(m, KMOD_PROBE_APPLY_BLACKLIST, NULL, NULL,
							  NULL, NULL);

		(void)kmod_module_unref(m);
		if (one < 0)
			r = one;
		else if (one > 0)
			r = -ECANCELED; /* on the blacklist: the kernel was not asked */
	}
	(void)kmod_module_unref_list(list);
	return r;
}

int tm_system_no_space_timeout(void)
{
	tm_auto_free char *text = NULL;
	unsigned long value;
	size_t len;
	char *end;

	if (tm_read_file("/sys/module/" OUR_MODULE "/parameters/no_space_timeout", 64, &text,
			 &len) < 0 &&
	    tm_read_file("/sys/module/" STOCK_MODULE "/parameters/no_space_timeout", 64, &text,
			 &len) < 0)
		return -1;
	value = strtoul(text, &end, 10);
	return end == text || value > INT32_MAX ? -1 : (int)value;
}

static void find_tools(struct tm_core *core)
{
	static const char *const names[] = { "thin_check", "thin_repair", "thin_dump", "thin_ls",
					     "thin_metadata_size" };
	struct tm_system_view *s = &core->system;

	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		struct tm_tool_view *t = &s->tools[s->n_tools++];

		(void)snprintf(t->name, sizeof(t->name), "%s", names[i]);
		if (tm_tool_path(names[i], t->path, sizeof(t->path)) ||
		    s->n_degraded >= TM_ARRAY_SIZE(s->degraded))
			continue;
		(void)snprintf(s->degraded[s->n_degraded], sizeof(s->degraded[0]),
			       "%s is not installed; install thin-provisioning-tools.", names[i]);
		tm_log(LOG_WARNING, "%s", s->degraded[s->n_degraded++]);
	}
}

/* Ours where it was built for this kernel, else the distribution's. */
static void load_target(struct sight *k)
{
	int r = load_module(OUR_MODULE);

	if (r >= 0)
		return;
	if (r == -ECANCELED)
		warn(k, "The module " OUR_MODULE
			" is on the blacklist in modprobe.d, and the distribution's is used "
			"in its place.");
	else if (r != -ENOENT)
		warn(k,
		     "The module " OUR_MODULE
		     " could not be loaded, and the distribution's is used "
		     "in its place: %s.%s",
		     strerror(-r),
		     r == -EKEYREJECTED || r == -ENOKEY || r == -EPERM
			     ? " With Secure Boot it has to be signed with a key that is "
			       "enrolled."
		     : r == -ENOEXEC ? " Was it built for this kernel? The kernel log says more."
				     : " The kernel log says more.");
	r = load_module(STOCK_MODULE);
	if (r < 0)
		tm_log(LOG_WARNING, "The module " STOCK_MODULE " could not be loaded: %s.",
		       r == -ECANCELED ? "it is on the blacklist in modprobe.d" : strerror(-r));
}

static bool ours_is_loaded(void)
{
	tm_auto_free char *text = NULL;
	size_t len;

	return tm_read_file("/sys/module/" OUR_MODULE "/initstate", 64, &text, &len) == 0 &&
	       strncmp(text, "live", 4) == 0;
}

/* False: that cannot be found out. */
static bool see_target(struct sight *k)
{
	unsigned int version[3];
	int r = tm_dm_target_version(k->core->dm, "thin-pool", version, NULL);

	if (r >= 0) {
		k->ours = ours_is_loaded();
		(void)snprintf(k->module, sizeof(k->module), "%s",
			       k->ours ? OUR_MODULE : STOCK_MODULE);
		(void)snprintf(k->version, sizeof(k->version), "%u.%u.%u", version[0], version[1],
			       version[2]);
		(void)snprintf(k->origin, sizeof(k->origin), "%s",
			       k->ours ? "thinmgr" : "distribution");
	} else {
		warn(k,
		     "The kernel has no thin-pool target: no pool can be activated. Install the "
		     "modules that belong to kernel %s.",
		     k->core->system.kernel_release);
	}
	k->no_space_timeout_seconds = tm_system_no_space_timeout();
	return r >= 0 || r == -ENOENT;
}

/* Those of the target come first. */
static bool take_warnings(struct tm_core *core, const struct sight *k)
{
	struct tm_system_view *s = &core->system;
	const size_t others = s->n_degraded - core->n_target_degraded;
	bool same = core->n_target_degraded == k->n_warnings;

	for (size_t i = 0; same && i < k->n_warnings; i++)
		same = strcmp(s->degraded[i], k->warnings[i]) == 0;
	if (same)
		return false;
	memmove(s->degraded[k->n_warnings], s->degraded[core->n_target_degraded],
		others * sizeof(s->degraded[0]));
	for (size_t i = 0; i < k->n_warnings; i++) {
		memcpy(s->degraded[i], k->warnings[i], sizeof(s->degraded[i]));
		tm_log(LOG_WARNING, "%s", s->degraded[i]);
	}
	core->n_target_degraded = k->n_warnings;
	s->n_degraded = others + k->n_warnings;
	return true;
}

static void take_over(struct tm_core *core, const struct sight *k)
{
	struct tm_system_view *s = &core->system;
	const bool other = strcmp(s->target_module, k->module) != 0 ||
			   strcmp(s->target_version, k->version) != 0;
	bool changed = other || s->no_space_timeout_seconds != k->no_space_timeout_seconds;

	if (other && core->view) /* not at the start */
		tm_log(LOG_NOTICE, "The kernel's thin-pool target is now that of %s%s%s%s%s.",
		       k->module[0] ? k->module : "no module", k->version[0] ? " " : "", k->version,
		       s->target_module[0] ? ", and no longer that of " : "", s->target_module);
	memcpy(s->target_module, k->module, sizeof(s->target_module));
	memcpy(s->target_version, k->version, sizeof(s->target_version));
	memcpy(s->target_origin, k->origin, sizeof(s->target_origin));
	s->target_grows = k->ours;
	s->no_space_timeout_seconds = k->no_space_timeout_seconds;
	/* Why the other could not be had stays true for as long as this one is there. */
	if (other || k->tried)
		changed = take_warnings(core, k) || changed;
	if (changed)
		tm_core_publish_soon(core);
}

static void target_seen(void *arg)
{
	struct sight *k = arg;

	take_over(k->core, k);
	free(k);
}

/* With the lock held: what is posted later was seen later. */
static void see_and_tell(struct tm_core *core, bool load)
{
	struct sight *k = calloc(1, sizeof(*k));

	if (!k)
		return;
	k->core = core;
	k->tried = load;
	if (load)
		load_target(k);
	if (see_target(k))
		tm_mailbox_post(core->mailbox, target_seen, k);
	else
		free(k);
}

void tm_system_want_target(struct tm_core *core)
{
	unsigned int version[3];

	if (!core->config.load_module)
		return;
	TM_LOCK_SCOPE(&core->target_lock);
	if (tm_dm_target_version(core->dm, "thin-pool", version, NULL) == -ENOENT)
		see_and_tell(core, true);
}

void tm_system_target_taken(struct tm_core *core)
{
	TM_LOCK_SCOPE(&core->target_lock);
	see_and_tell(core, false);
}

void tm_system_look_again(struct tm_core *core)
{
	struct sight k = { .core = core };

	if (see_target(&k))
		take_over(core, &k);
}

int tm_system_probe(struct tm_core *core, struct tm_error *err)
{
	struct tm_system_view *s = &core->system;
	struct sight k = { .core = core, .tried = true };
	unsigned int version[3];
	struct utsname u;

	(void)err;
	(void)snprintf(s->version, sizeof(s->version), "%s", TM_VERSION);
	s->started_usec = tm_now_realtime_usec();
	if (uname(&u) == 0)
		(void)snprintf(s->kernel_release, sizeof(s->kernel_release), "%s", u.release);
	if (core->config.load_module &&
	    tm_dm_target_version(core->dm, "thin-pool", version, NULL) == -ENOENT)
		load_target(&k);
	(void)see_target(&k);
	take_over(core, &k);
	find_tools(core);
	return 0;
}
