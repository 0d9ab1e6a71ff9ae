/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgrd: arguments, configuration, readiness, signals. No logic. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "api/http-server.h"
#include "bus/bus.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/units.h"
#include "config/config.h"
#include "core/daemon.h"
#include "core/operation.h"

#define RUN_DIRECTORY   "/run/thinmgr"
#define STOP_CHECK_USEC (50 * TM_USEC_PER_MSEC)
#define STOP_LIMIT_USEC (10 * TM_USEC_PER_SEC)
/* Who waits for the service need not wait for one pool with a lot of metadata to be checked. */
#define READY_LIMIT_USEC (60 * TM_USEC_PER_SEC)

/* All that lives as long as the daemon; main owns it. */
struct daemon {
	const char *config_path;
	bool debug;
	struct tm_config config;
	sd_event *event;
	struct tm_core *core;
	struct tm_http *http;
	struct tm_bus *bus;
	sd_event_source *stop_timer, *ready_timer;
	uint64_t stop_began_usec;
};

static void usage(FILE *to)
{
	(void)fputs("Usage: thinmgrd [OPTION]...\n"
		    "Keeps thin pools from running out of space.\n\n"
		    "  --config FILE      read FILE instead of " TM_CONFIG_PATH "\n"
		    "  --check-config     say whether the configuration is valid, and exit\n"
		    "  --list-operations  print the operations and their steps as JSON, and exit\n"
		    "  --debug            log at level debug\n"
		    "  --version          print the version, and exit\n"
		    "  --help             print this, and exit\n",
		    to);
}

static void core_config(const struct tm_config *c, struct tm_core_config *ret)
{
	*ret = (struct tm_core_config){
		.worker_threads = c->worker_threads,
		.keep_events_usec = c->keep_events_usec,
		.tool_limit_usec = c->tool_limit_usec,
		.load_module = c->load_module,
	};
	(void)snprintf(ret->state_directory, sizeof(ret->state_directory), "%s",
		       c->state_directory);
}

static void view_changed(void *userdata)
{
	struct daemon *d = userdata;

	if (d->bus)
		tm_bus_view_changed(d->bus);
}

/* The end comes when running operations are finished or undone: seconds at most, usually at once.
 */
static int stop_check(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;
	const uint64_t now = tm_now_monotonic_usec();

	(void)usec;
	if (tm_core_idle(d->core)) {
		if (!tm_core_raising(d->core))
			return sd_event_exit(d->event, 0);
		/* A check of metadata may take minutes; the next start begins it anew. */
		tm_core_abandon(d->core);
		(void)sd_notify(0, "STOPPING=1");
		_exit(0);
	}
	if (now - d->stop_began_usec > STOP_LIMIT_USEC) {
		tm_log(LOG_WARNING, "An operation does not end; the next start settles it.");
		/* Threads may hang in the kernel: waiting for them would hang the stop as well. */
		(void)sd_notify(0, "STOPPING=1");
		_exit(0);
	}
	(void)sd_event_source_set_time(source, now + STOP_CHECK_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void now_ready(struct daemon *d, const char *status)
{
	if (d->ready_timer) {
		d->ready_timer = sd_event_source_disable_unref(d->ready_timer);
		(void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
	} else {
		(void)sd_notifyf(0, "STATUS=%s", status);
	}
}

static void pools_up(void *userdata)
{
	now_ready(userdata, "Watching thin pools");
}

static int ready_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	now_ready(userdata, "Watching thin pools; some are still being brought up");
	return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct daemon *d = userdata;

	(void)source;
	if (d->stop_timer)
		return 0;
	tm_log(LOG_INFO, "Stopping on %s; pools and volumes stay active.",
	       strsignal((int)si->ssi_signo));
	(void)sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
	tm_core_stop(d->core);
	d->stop_began_usec = tm_now_monotonic_usec();
	return sd_event_add_time(d->event, &d->stop_timer, CLOCK_MONOTONIC, d->stop_began_usec, 1,
				 stop_check, d);
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	struct daemon *d = userdata;
	struct tm_core_config core;
	struct tm_config config;
	struct tm_error err = { 0 };

	(void)source;
	(void)si;
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
			 (unsigned long long)tm_now_monotonic_usec());
	if (tm_config_load(d->config_path, &config, &err) < 0) {
		tm_log(LOG_ERR, "The configuration was not reloaded, the old one stays: %s",
		       err.detail);
	} else {
		tm_log_set_level(d->debug ? LOG_DEBUG : config.log_level);
		core_config(&config, &core);
		tm_core_reconfigure(d->core, &core);
		tm_log(LOG_INFO, "The configuration was reloaded; log_level and keep_events took "
				 "effect, other changes do at the next start.");
	}
	(void)sd_notify(0, "READY=1");
	return 0;
}

/* One instance: the lock lives as long as the process. Returns the descriptor. */
static int take_lock(void)
{
	int fd;

	/* Whoever may use the socket has to get there, whatever the umask. */
	if (mkdir(RUN_DIRECTORY, 0755) == 0)
		(void)chmod(RUN_DIRECTORY, 0755);
	else if (errno != EEXIST)
		return -errno;
	fd = open(RUN_DIRECTORY "/thinmgrd.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

static int report(const char *what, const struct tm_error *err)
{
	struct tm_log_fields fields = { .error = err };

	tm_log_fields(LOG_ERR, &fields, "%s: %s%s%s", what, err->detail, err->hint[0] ? " " : "",
		      err->hint);
	return EXIT_FAILURE;
}

static void daemon_done(struct daemon *d)
{
	/* Interfaces first: their callbacks point into the core. */
	d->http = tm_http_free(d->http);
	if (d->core)
		tm_core_on_view(d->core, NULL, NULL);
	d->bus = tm_bus_free(d->bus);
	sd_event_source_disable_unref(d->stop_timer);
	sd_event_source_disable_unref(d->ready_timer);
	d->core = tm_core_free(d->core);
	d->event = sd_event_unref(d->event);
}

static int add_signals(struct daemon *d)
{
	sigset_t set;
	int r;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGPIPE);
	/* Before any thread: they inherit it. */
	r = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r)
		return -r;
	r = sd_event_add_signal(d->event, NULL, SIGTERM, on_stop, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGINT, on_stop, d);
	if (r >= 0)
		r = sd_event_add_signal(d->event, NULL, SIGHUP, on_reload, d);
	return r;
}

static int start(struct daemon *d)
{
	struct tm_core_config core;
	struct tm_http_config http = {
		.socket_path = d->config.socket,
		.admin_group = d->config.socket_group,
		.tcp_port = (uint16_t)d->config.loopback_port,
		.tcp_permission = d->config.loopback_admin ? TM_PERMIT_ADMIN : TM_PERMIT_VIEW,
		.threads = d->config.http_threads,
		.max_connections = d->config.max_connections,
		.body_limit = d->config.max_body_bytes,
	};
	struct tm_error err = { 0 };
	int r;

	core_config(&d->config, &core);
	if (tm_core_new(d->event, &core, &d->core, &err) < 0)
		return report("thinmgrd cannot start", &err);
	if (tm_http_new(d->core, &http, &d->http, &err) < 0)
		return report("The API cannot be served", &err);
	if (d->config.bus_enabled && tm_bus_new(d->core, d->event, &d->bus, &err) < 0)
		return report("The bus cannot be used", &err);
	tm_core_on_view(d->core, view_changed, d);
	view_changed(d);
	r = sd_event_set_watchdog(d->event, true);
	if (r < 0)
		tm_log(LOG_WARNING, "The watchdog cannot be served: %s.", strerror(-r));
	(void)sd_notify(0, "STATUS=Bringing up thin pools");
	r = sd_event_add_time_relative(d->event, &d->ready_timer, CLOCK_MONOTONIC, READY_LIMIT_USEC,
				       TM_USEC_PER_SEC, ready_late, d);
	if (r < 0) {
		tm_log(LOG_ERR, "Cannot make a timer: %s.", strerror(-r));
		return EXIT_FAILURE;
	}
	tm_core_on_ready(d->core, pools_up, d);
	r = sd_event_loop(d->event);
	if (r < 0) {
		tm_log(LOG_ERR, "The main loop failed: %s.", strerror(-r));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", no_argument, NULL, 'k' },
		{ "list-operations", no_argument, NULL, 'l' },
		{ "debug", no_argument, NULL, 'd' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	tm_cleanup(daemon_done) struct daemon d = { 0 };
	tm_auto_close int lock = -1;
	struct tm_error err = { 0 };
	bool check = false;
	int c, r;

	(void)umask(0077);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			d.config_path = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'l': {
			tm_auto_free char *text = tm_op_list_json();

			return text && puts(text) >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		}
		case 'd':
			d.debug = true;
			break;
		case 'V':
			return puts("thinmgrd " TM_VERSION) >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind != argc) {
		(void)fprintf(stderr, "thinmgrd: unexpected argument '%s'\n", argv[optind]);
		return 2;
	}
	tm_log_init(d.debug ? LOG_DEBUG : LOG_INFO);
	if (tm_config_load(d.config_path, &d.config, &err) < 0) {
		(void)report("The configuration is not valid", &err);
		return 2;
	}
	if (check) {
		(void)puts("The configuration is valid.");
		return EXIT_SUCCESS;
	}
	if (!d.debug)
		tm_log_set_level(d.config.log_level);
	lock = take_lock();
	if (lock == -EWOULDBLOCK) {
		tm_log(LOG_ERR,
		       "Another thinmgrd is running: " RUN_DIRECTORY "/thinmgrd.lock is locked.");
		return EXIT_FAILURE;
	}
	if (lock < 0) {
		tm_log(LOG_ERR, "Cannot lock " RUN_DIRECTORY "/thinmgrd.lock: %s.",
		       strerror(-lock));
		return EXIT_FAILURE;
	}
	r = sd_event_default(&d.event);
	if (r >= 0)
		r = add_signals(&d);
	if (r < 0) {
		tm_log(LOG_ERR, "Cannot set up the main loop: %s.", strerror(-r));
		return EXIT_FAILURE;
	}
	return start(&d);
}
