/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's side of the bus against a real dbus-daemon of our own: absent at first, then there,
 * then killed and started again. A client in the same loop looks on. Skipped without dbus-daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "bus/connection.h"
#include "bus/manager.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "skip.h"

#define RETRY_USEC (20 * TM_USEC_PER_MSEC)
#define LIMIT_USEC (20 * TM_USEC_PER_SEC)

struct fixture {
	char directory[64], socket[96], config[96];
	pid_t daemon; /* 0: not running */
	sd_event *event;
	struct tm_bus_connection *connection;
	sd_bus *client;
	char heard[1024]; /* what the client was told, one after the other */
	char answer[16384];
	bool answered;
};

static const char *find_daemon(void)
{
	static const char *const paths[] = { "/usr/bin/dbus-daemon", "/bin/dbus-daemon" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(paths); i++) {
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	}
	return NULL;
}

static void start_daemon(struct fixture *f)
{
	char option[128];

	(void)snprintf(option, sizeof(option), "--config-file=%s", f->config);
	f->daemon = fork();
	assert_true(f->daemon >= 0);
	if (f->daemon == 0) {
		(void)execl(find_daemon(), "dbus-daemon", option, "--nofork", "--nopidfile",
			    (char *)NULL);
		_exit(127);
	}
}

static void stop_daemon(struct fixture *f)
{
	if (f->daemon) {
		(void)kill(f->daemon, SIGKILL);
		assert_int_equal(waitpid(f->daemon, NULL, 0), f->daemon);
	}
	f->daemon = 0;
	(void)unlink(f->socket);
}

static struct tm_view *view_of(bool ready, const char *degraded, const char *pool)
{
	struct tm_view *v = calloc(1, sizeof(*v) + sizeof(v->pools[0]));

	assert_non_null(v);
	v->refs = 1;
	(void)snprintf(v->system.version, sizeof(v->system.version), "9.8");
	(void)snprintf(v->system.target_module, sizeof(v->system.target_module), "dm_thin_pool");
	(void)snprintf(v->system.target_version, sizeof(v->system.target_version), "1.22.0");
	(void)snprintf(v->system.target_origin, sizeof(v->system.target_origin), "distribution");
	v->system.ready = ready;
	if (degraded) {
		(void)snprintf(v->system.degraded[0], sizeof(v->system.degraded[0]), "%s",
			       degraded);
		v->system.n_degraded = 1;
	}
	if (pool) {
		v->pools[0] = calloc(1, sizeof(*v->pools[0]));
		assert_non_null(v->pools[0]);
		v->pools[0]->refs = 1;
		(void)snprintf(v->pools[0]->record.name, sizeof(v->pools[0]->record.name), "%s",
			       pool);
		v->n_pools = 1;
	}
	return v;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct tm_error err = { 0 };
	char text[512];
	FILE *config;

	assert_non_null(f);
	(void)snprintf(f->directory, sizeof(f->directory), "/tmp/test-bus-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	(void)snprintf(f->socket, sizeof(f->socket), "%s/bus", f->directory);
	(void)snprintf(f->config, sizeof(f->config), "%s/bus.conf", f->directory);
	(void)snprintf(text, sizeof(text),
		       "<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>"
		       "<policy context=\"default\"><allow send_destination=\"*\"/>"
		       "<allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n",
		       f->socket);
	config = fopen(f->config, "we");
	assert_non_null(config);
	assert_true(fputs(text, config) >= 0);
	assert_int_equal(fclose(config), 0);
	(void)snprintf(text, sizeof(text), "unix:path=%s", f->socket);
	assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", text, 1), 0);
	assert_true(sd_event_new(&f->event) >= 0);
	/* There is no bus yet. */
	assert_int_equal(tm_bus_connection_new(f->event, view_of(false, "slow", "one"), RETRY_USEC,
					       &f->connection, &err),
			 0);
	assert_false(tm_bus_connection_ready(f->connection));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->client = sd_bus_close_unref(f->client);
	f->connection = tm_bus_connection_free(f->connection);
	f->event = sd_event_unref(f->event);
	stop_daemon(f);
	(void)unlink(f->config);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

/* Runs the loop until @done says so; fails after a while. */
static void run_until(struct fixture *f, bool (*done)(struct fixture *f))
{
	uint64_t end = tm_now_monotonic_usec() + LIMIT_USEC;

	while (!done(f)) {
		if (tm_now_monotonic_usec() > end)
			fail_msg("nothing happened for too long; heard: %s", f->heard);
		assert_true(sd_event_run(f->event, 20 * TM_USEC_PER_MSEC) >= 0);
	}
}

static bool is_ready(struct fixture *f)
{
	return tm_bus_connection_ready(f->connection);
}

static bool is_not_ready(struct fixture *f)
{
	return !tm_bus_connection_ready(f->connection);
}

static bool is_answered(struct fixture *f)
{
	return f->answered;
}

static bool socket_is_there(struct fixture *f)
{
	return access(f->socket, F_OK) == 0;
}

static void hear(struct fixture *f, const char *text)
{
	size_t n = strlen(f->heard);

	(void)snprintf(f->heard + n, sizeof(f->heard) - n, "%s", text);
}

/* Whatever Manager says: its name and its arguments that are strings or numbers. */
static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct fixture *f = userdata;
	char type;

	(void)ret_error;
	hear(f, sd_bus_message_get_member(m));
	hear(f, "(");
	while (sd_bus_message_peek_type(m, &type, NULL) > 0) {
		if (type == 's') {
			const char *text = NULL;

			assert_true(sd_bus_message_read_basic(m, 's', &text) > 0);
			hear(f, text);
		} else {
			char text[32];
			uint64_t number = 0;

			assert_int_equal(type, 't');
			assert_true(sd_bus_message_read_basic(m, 't', &number) > 0);
			(void)snprintf(text, sizeof(text), "%" PRIu64, number);
			hear(f, text);
		}
		hear(f, ",");
	}
	hear(f, ")");
	return 0;
}

/* The names of the properties that changed. */
static int on_properties(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct fixture *f = userdata;
	const char *interface = NULL, *name = NULL;

	(void)ret_error;
	assert_true(sd_bus_message_read_basic(m, 's', &interface) > 0);
	assert_string_equal(interface, TM_BUS_INTERFACE);
	hear(f, "changed:");
	assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") > 0);
	while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
		assert_true(sd_bus_message_read_basic(m, 's', &name) > 0);
		hear(f, name);
		hear(f, ",");
		assert_true(sd_bus_message_skip(m, "v") > 0);
		assert_true(sd_bus_message_exit_container(m) >= 0);
	}
	return 0;
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct fixture *f = userdata;
	const sd_bus_error *error = sd_bus_message_get_error(m);
	const char *contents = NULL;
	char type = 0;

	(void)ret_error;
	f->answered = true;
	f->answer[0] = '\0';
	if (error) {
		(void)snprintf(f->answer, sizeof(f->answer), "error: %s", error->name);
		return 0;
	}
	if (sd_bus_message_peek_type(m, &type, &contents) > 0 && type == 'v') {
		assert_true(sd_bus_message_enter_container(m, 'v', contents) > 0);
		(void)sd_bus_message_peek_type(m, &type, &contents);
	}
	if (type == 's') {
		const char *text = NULL;

		assert_true(sd_bus_message_read_basic(m, 's', &text) > 0);
		(void)snprintf(f->answer, sizeof(f->answer), "%s", text);
	} else if (type == 'b') {
		int value = 0;

		assert_true(sd_bus_message_read_basic(m, 'b', &value) > 0);
		(void)snprintf(f->answer, sizeof(f->answer), "%s", value ? "true" : "false");
	} else if (type == 'a') {
		char **list = NULL;

		assert_true(sd_bus_message_read_strv(m, &list) >= 0);
		for (char **s = list; s && *s; s++) {
			size_t n = strlen(f->answer);

			(void)snprintf(f->answer + n, sizeof(f->answer) - n, "[%s]", *s);
			free(*s);
		}
		free(list);
	}
	return 0;
}

static void connect_client(struct fixture *f)
{
	run_until(f, socket_is_there);
	for (int i = 0; sd_bus_open_system(&f->client) < 0; i++) {
		assert_true(i < 200);
		(void)usleep(10000);
	}
	assert_true(sd_bus_match_signal(f->client, NULL, TM_BUS_NAME, TM_BUS_PATH, TM_BUS_INTERFACE,
					NULL, on_signal, f) >= 0);
	assert_true(sd_bus_match_signal(f->client, NULL, TM_BUS_NAME, TM_BUS_PATH,
					"org.freedesktop.DBus.Properties", "PropertiesChanged",
					on_properties, f) >= 0);
	assert_true(sd_bus_attach_event(f->client, f->event, SD_EVENT_PRIORITY_NORMAL) >= 0);
}

/* Ask for a property, or for the interface when @property is NULL. */
static const char *ask(struct fixture *f, const char *property)
{
	int r;

	f->answered = false;
	if (property)
		r = sd_bus_call_method_async(f->client, NULL, TM_BUS_NAME, TM_BUS_PATH,
					     "org.freedesktop.DBus.Properties", "Get", on_answer, f,
					     "ss", TM_BUS_INTERFACE, property);
	else
		r = sd_bus_call_method_async(f->client, NULL, TM_BUS_NAME, TM_BUS_PATH,
					     "org.freedesktop.DBus.Introspectable", "Introspect",
					     on_answer, f, NULL);
	assert_true(r >= 0);
	run_until(f, is_answered);
	return f->answer;
}

static void up(struct fixture *f)
{
	if (!find_daemon())
		TM_SKIP("dbus-daemon is not installed");
	start_daemon(f);
	connect_client(f);
	run_until(f, is_ready);
}

static void test_properties(void **state)
{
	struct fixture *f = *state;

	up(f);
	assert_string_equal(ask(f, "Version"), "9.8");
	assert_string_equal(ask(f, "KernelTarget"), "dm_thin_pool 1.22.0 (distribution)");
	assert_string_equal(ask(f, "Ready"), "false");
	assert_string_equal(ask(f, "Degraded"), "[slow]");
	assert_string_equal(ask(f, "Pools"), "[one]");
	assert_non_null(strstr(ask(f, "Nothing"), "error:"));

	/* Only what is different is told. Asking afterwards puts the signals before the answer. */
	tm_bus_connection_set_view(f->connection, view_of(false, "slow", "one"));
	assert_string_equal(ask(f, "Ready"), "false");
	assert_string_equal(f->heard, "");
	tm_bus_connection_set_view(f->connection, view_of(true, "slow", "one"));
	assert_string_equal(ask(f, "Ready"), "true");
	assert_string_equal(f->heard, "changed:Ready,");
	f->heard[0] = '\0';
	tm_bus_connection_set_view(f->connection, view_of(true, NULL, "two"));
	assert_string_equal(ask(f, "Pools"), "[two]");
	assert_string_equal(f->heard, "changed:Degraded,Pools,");
	assert_string_equal(ask(f, "Degraded"), "");
	f->heard[0] = '\0';
	tm_bus_connection_set_view(f->connection, view_of(true, NULL, NULL));
	assert_string_equal(ask(f, "Pools"), "");
	assert_string_equal(f->heard, "changed:Pools,");
}

static void test_signals(void **state)
{
	struct fixture *f = *state;
	const struct tm_event events[] = {
		{ .seq = 7,
		  .type = TM_EVENT_LOW_SPACE,
		  .pool_name = "one",
		  .message = "low",
		  .data = (char[]){ "{\"used\":3,\"total\":4}" } },
		{ .seq = 8,
		  .type = TM_EVENT_EXTENDED,
		  .pool_name = "one",
		  .message = "big\xff",
		  .data = (char[]){ "{\"space\":\"data\",\"from\":4,\"to\":8,\"reaction_usec\":"
				    "9}" } },
	};

	up(f);
	tm_bus_connection_events(f->connection, events, 2);
	(void)ask(f, "Version");
	assert_string_equal(f->heard,
			    "LowSpace(one,data,3,4,7,)Event(7,low-space,notice,one,low,)"
			    "Extended(one,data,4,8,9,8,)Event(8,extended,info,one,big?,)");
}

/* Without blanks and the ways to close an element, which differ between versions. */
static void normalise(char *xml)
{
	static const char closing[] = "</property>";
	char *out = xml;

	for (const char *in = xml; *in; in++) {
		if (strncmp(in, closing, strlen(closing)) == 0)
			in += strlen(closing) - 1;
		else if (!strchr(" \n\t/", *in))
			*out++ = *in;
	}
	*out = '\0';
}

static char *manager_part(const char *xml)
{
	const char *begin = strstr(xml, "<interface name=\"" TM_BUS_INTERFACE "\">"), *end;
	char *part;

	assert_non_null(begin);
	end = strstr(begin, "</interface>");
	assert_non_null(end);
	part = strndup(begin, (size_t)(end - begin));
	assert_non_null(part);
	normalise(part);
	return part;
}

/* What sd-bus says of the object is what tm_bus_introspect prints. */
static void test_introspection(void **state)
{
	struct fixture *f = *state;
	char *printed = NULL, *ours, *theirs;
	size_t len = 0;
	FILE *out;

	up(f);
	out = open_memstream(&printed, &len);
	assert_non_null(out);
	tm_bus_introspect(out);
	assert_int_equal(fclose(out), 0);
	theirs = manager_part(ask(f, NULL));
	ours = manager_part(printed);
	assert_string_equal(ours, theirs);
	free(theirs);
	free(ours);
	free(printed);
}

static void test_bus_goes_and_comes(void **state)
{
	struct fixture *f = *state;
	const struct tm_event e = { .seq = 1, .type = TM_EVENT_NEEDS_CHECK, .pool_name = "one" };

	up(f);
	for (int i = 0; i < 2; i++) {
		f->client = sd_bus_close_unref(f->client);
		stop_daemon(f);
		run_until(f, is_not_ready);
		/* Life goes on meanwhile. */
		tm_bus_connection_events(f->connection, &e, 1);
		tm_bus_connection_set_view(f->connection, view_of(i == 0, NULL, "later"));
		up(f);
		assert_string_equal(ask(f, "Pools"), "[later]");
		assert_string_equal(ask(f, "Ready"), i == 0 ? "true" : "false");
		f->heard[0] = '\0';
		tm_bus_connection_events(f->connection, &e, 1);
		(void)ask(f, "Version");
		assert_string_equal(f->heard,
				    "NeedsCheck(one,1,)Event(1,needs-check,critical,one,,)");
	}
}

static void test_name_is_taken(void **state)
{
	struct fixture *f = *state;
	uint64_t until;

	if (!find_daemon())
		TM_SKIP("dbus-daemon is not installed");
	start_daemon(f);
	/* Without the loop running the name is the client's first. */
	for (int i = 0; access(f->socket, F_OK) < 0; i++) {
		assert_true(i < 500);
		(void)usleep(10000);
	}
	for (int i = 0; sd_bus_open_system(&f->client) < 0; i++) {
		assert_true(i < 200);
		(void)usleep(10000);
	}
	assert_true(sd_bus_request_name(f->client, TM_BUS_NAME, 0) >= 0);
	assert_true(sd_bus_attach_event(f->client, f->event, SD_EVENT_PRIORITY_NORMAL) >= 0);
	until = tm_now_monotonic_usec() + 10 * RETRY_USEC;
	while (tm_now_monotonic_usec() < until) {
		assert_true(sd_event_run(f->event, 10 * TM_USEC_PER_MSEC) >= 0);
		assert_false(tm_bus_connection_ready(f->connection));
	}
	assert_true(sd_bus_release_name(f->client, TM_BUS_NAME) >= 0);
	run_until(f, is_ready);
}

/* An end in the middle of everything leaves nothing behind (the leak checker looks). */
static void test_free_at_any_time(void **state)
{
	struct fixture *f = *state;

	if (!find_daemon())
		TM_SKIP("dbus-daemon is not installed");
	start_daemon(f);
	run_until(f, socket_is_there);
	for (int i = 0; i < 20; i++) {
		f->connection = tm_bus_connection_free(f->connection);
		assert_int_equal(tm_bus_connection_new(f->event, view_of(true, NULL, "x"),
						       RETRY_USEC, &f->connection, NULL),
				 0);
		for (int turn = 0; turn < i; turn++)
			assert_true(sd_event_run(f->event, 1000) >= 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_properties, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_introspection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bus_goes_and_comes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_at_any_time, setup, teardown),
	};

	return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
