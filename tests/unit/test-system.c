/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of the kernel's target: looked at whenever a pool gets its table. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "running-core.h"
#include "skip.h"

static void taken(struct fixture *f)
{
	tm_system_target_taken(&f->base.core);
	drain(f);
}

static void expect(struct fixture *f, const char *module, const char *version, const char *degraded)
{
	struct tm_view *view = tm_core_view(&f->base.core);
	const struct tm_system_view *s = &view->system;

	assert_string_equal(s->target_module, module);
	assert_string_equal(s->target_version, version);
	assert_string_equal(s->target_origin, module[0] ? "distribution" : "");
	assert_string_equal(s->n_degraded ? s->degraded[0] : "", degraded);
	assert_string_equal(s->degraded[s->n_degraded - 1], "A tool is missing.");
	(void)tm_view_unref(view);
}

/* Published when it is another, with what is to be said of it; else nothing is done. */
static void follows(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;
	struct tm_system_view *s = &core->system;
	uint64_t published;

	if (access("/sys/module/dm_thinmgr", F_OK) == 0)
		TM_SKIP("dm_thinmgr is loaded on this machine");
	(void)snprintf(s->target_module, sizeof(s->target_module), "dm_thinmgr");
	(void)snprintf(s->target_version, sizeof(s->target_version), "1.22.0");
	s->target_grows = true;
	(void)snprintf(s->degraded[0], sizeof(s->degraded[0]), "The target is bad.");
	(void)snprintf(s->degraded[1], sizeof(s->degraded[1]), "A tool is missing.");
	s->n_degraded = 2;
	core->n_target_degraded = 1;

	kernel.version = 22;
	taken(f);
	assert_false(s->target_grows);
	expect(f, "dm_thin_pool", "1.22.0", "A tool is missing.");

	published = core->view_generation;
	taken(f);
	assert_int_equal(core->view_generation, published);

	kernel.version = 23;
	taken(f);
	expect(f, "dm_thin_pool", "1.23.0", "A tool is missing.");

	(void)snprintf(s->kernel_release, sizeof(s->kernel_release), "6.1");
	kernel.version = 0;
	tm_system_look_again(core);
	drain(f);
	expect(f, "", "",
	       "The kernel has no thin-pool target: no pool can be activated. Install the modules "
	       "that belong to kernel 6.1.");

	kernel.version = 22;
	tm_system_look_again(core);
	drain(f);
	expect(f, "dm_thin_pool", "1.22.0", "A tool is missing.");
}

/* Why the other could not be had is said for as long as that lasts. */
static void reason_stays(void **state)
{
	struct fixture *f = *state;
	struct tm_core *core = &f->base.core;
	struct tm_system_view *s = &core->system;

	if (access("/sys/module/dm_thinmgr", F_OK) == 0)
		TM_SKIP("dm_thinmgr is loaded on this machine");
	(void)snprintf(s->target_module, sizeof(s->target_module), "dm_thin_pool");
	(void)snprintf(s->target_version, sizeof(s->target_version), "1.22.0");
	(void)snprintf(s->target_origin, sizeof(s->target_origin), "distribution");
	(void)snprintf(s->degraded[0], sizeof(s->degraded[0]), "Ours is on the blacklist.");
	(void)snprintf(s->degraded[1], sizeof(s->degraded[1]), "A tool is missing.");
	s->n_degraded = 2;
	core->n_target_degraded = 1;
	tm_core_publish(core);

	kernel.version = 22;
	taken(f);
	expect(f, "dm_thin_pool", "1.22.0", "Ours is on the blacklist.");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, running_setup, running_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(follows),
		TEST(reason_stays),
	};

	return cmocka_run_group_tests_name("system", tests, NULL, NULL);
}
