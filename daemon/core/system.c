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

static void degrade(struct tm_core *core, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void degrade(struct tm_core *core, const char *fmt, ...)
{
	struct tm_system_view *s = &core->system;
	va_list ap;

	if (s->n_degraded >= TM_ARRAY_SIZE(s->degraded))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(s->degraded[s->n_degraded], sizeof(s->degraded[0]), fmt, ap);
	va_end(ap);
	tm_log(LOG_WARNING, "%s", s->degraded[s->n_degraded]);
	s->n_degraded++;
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
		if (!tm_tool_path(names[i], t->path, sizeof(t->path)))
			degrade(core, "%s is not installed; install thin-provisioning-tools.",
				names[i]);
	}
}

/* Ours where it was built for this kernel, else the distribution's. */
static void load_target(struct tm_core *core)
{
	int r = load_module(OUR_MODULE);

	if (r >= 0)
		return;
	if (r == -ECANCELED)
		degrade(core, "The module " OUR_MODULE
			      " is on the blacklist in modprobe.d, and the distribution's is used "
			      "in its place.");
	else if (r != -ENOENT)
		degrade(core,
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

int tm_system_probe(struct tm_core *core, struct tm_error *err)
{
	struct tm_system_view *s = &core->system;
	unsigned int version[3];
	struct utsname u;
	int r;

	(void)err;
	(void)snprintf(s->version, sizeof(s->version), "%s", TM_VERSION);
	s->started_usec = tm_now_realtime_usec();
	if (uname(&u) == 0)
		(void)snprintf(s->kernel_release, sizeof(s->kernel_release), "%s", u.release);
	r = tm_dm_target_version(core->dm, "thin-pool", version, NULL);
	if (r == -ENOENT && core->config.load_module) {
		load_target(core);
		r = tm_dm_target_version(core->dm, "thin-pool", version, NULL);
	}
	if (r >= 0) {
		s->target_grows = ours_is_loaded();
		(void)snprintf(s->target_module, sizeof(s->target_module), "%s",
			       s->target_grows ? OUR_MODULE : STOCK_MODULE);
		(void)snprintf(s->target_version, sizeof(s->target_version), "%u.%u.%u", version[0],
			       version[1], version[2]);
		(void)snprintf(s->target_origin, sizeof(s->target_origin), "%s",
			       s->target_grows ? "thinmgr" : "distribution");
	} else {
		degrade(core,
			"The kernel has no thin-pool target: no pool can be activated. Install the "
			"modules that belong to kernel %s.",
			s->kernel_release);
	}
	s->no_space_timeout_seconds = tm_system_no_space_timeout();
	find_tools(core);
	return 0;
}
