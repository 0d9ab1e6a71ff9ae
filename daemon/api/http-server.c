// SPDX-License-Identifier: GPL-2.0-or-later
/* libmicrohttpd, its callbacks, and the thread that looks after suspended connections. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "api/listen.h"
#include "api/request.h"
#include "api/stream.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/units.h"

/* Request line and headers of one connection, and the buffer its answers are sent from. */
#define CONNECTION_MEMORY ((size_t)32 * 1024)
/* What is read and thrown away of a refused body, so that the caller gets to read why. */
#define DISCARD_LIMIT ((size_t)4 * 1024 * 1024)
/* How long answers in flight may take when the server stops. */
#define DRAIN_USEC (500 * TM_USEC_PER_MSEC)

void tm_http_ref(struct tm_http *http)
{
	(void)__atomic_add_fetch(&http->refs, 1, __ATOMIC_RELAXED);
}

void tm_http_unref(struct tm_http *http)
{
	if (__atomic_sub_fetch(&http->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	(void)pthread_cond_destroy(&http->changed);
	(void)pthread_mutex_destroy(&http->lock);
	(void)pthread_mutex_destroy(&http->readers.lock);
	free(http->groups);
	free(http->socket_path);
	free(http);
}

/* ---- a request as it comes in ---------------------------------------------------------------- */

static void refuse(struct tm_request *request, enum tm_error_code code, const char *text)
{
	request->refused = true;
	(void)tm_error_set(&request->error, code, EINVAL, "%s", text);
}

static bool is_stopping(struct tm_http *http)
{
	TM_LOCK_SCOPE(&http->lock);
	return http->stopping;
}

static bool is_loopback_host(const char *host)
{
	static const char *const names[] = { "127.0.0.1", "localhost", "[::1]" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		size_t len = strlen(names[i]);

		if (strncasecmp(host, names[i], len) == 0 && (!host[len] || host[len] == ':'))
			return true;
	}
	return false;
}

/* Any web page can make a browser on this machine send requests to loopback: those are told by
 * their headers. */
static bool is_from_browser(struct tm_request *request)
{
	const char *host = tm_request_header(request, "Host");

	return tm_request_header(request, "Origin") || (host && !is_loopback_host(host));
}

static bool is_json(const char *type)
{
	static const char json[] = "application/json";

	if (!type || strncasecmp(type, json, sizeof(json) - 1) != 0)
		return false;
	type += sizeof(json) - 1;
	type += strspn(type, " \t");
	if (!*type)
		return true;
	if (*type++ != ';')
		return false;
	type += strspn(type, " \t");
	return strcasecmp(type, "charset=utf-8") == 0 || strcasecmp(type, "charset=\"utf-8\"") == 0;
}

static void check_body_headers(struct tm_request *request, bool has_body)
{
	const char *length = tm_request_header(request, "Content-Length");
	uint64_t bytes;

	if (!request->match.route->takes_body) {
		if (has_body)
			refuse(request, TM_ERR_BAD_JSON, "This request takes no body.");
		return;
	}
	if (has_body && !is_json(tm_request_header(request, "Content-Type"))) {
		refuse(request, TM_ERR_MEDIA_TYPE,
		       "The body's Content-Type is not application/json (in UTF-8).");
		return;
	}
	if (length && tm_decimal_parse(length, &bytes) == 0 &&
	    bytes > request->http->config.body_limit)
		refuse(request, TM_ERR_BODY_TOO_LARGE, "The request body is too large.");
}

static void check_headers(struct tm_request *request, const char *method, bool has_body)
{
	const char *path = request->uri, *query = path + request->path_len;
	struct tm_error *err = &request->error;

	if (is_stopping(request->http)) {
		refuse(request, TM_ERR_SHUTTING_DOWN, "The daemon is stopping.");
		return;
	}
	if (request->permission == TM_PERMIT_NONE) {
		refuse(request, TM_ERR_FORBIDDEN, "You are not in a group that may use thinmgr.");
		tm_error_hint(err, "Ask the administrator to add you to the group thinmgr, or to "
				   "thinmgr-view for reading, and log in again.");
		return;
	}
	if (!request->secure_origin && is_from_browser(request)) {
		refuse(request, TM_ERR_FORBIDDEN,
		       "Requests that web pages make are not answered on this port.");
		return;
	}
	if (tm_router_match(method, path, request->path_len, &request->match, err) < 0) {
		request->refused = true;
		return;
	}
	if (request->match.options)
		return;
	if (request->permission < request->match.route->permission) {
		refuse(request, TM_ERR_FORBIDDEN, "You may read here, but not change anything.");
		tm_error_hint(err, "Members of the group thinmgr may.");
		return;
	}
	if (*query == '?')
		query++;
	if (tm_url_query_parse(query, strlen(query), request->match.route->query, &request->query,
			       err) < 0) {
		request->refused = true;
		return;
	}
	check_body_headers(request, has_body);
}

static int begin(struct tm_request *request, struct MHD_Connection *connection, const char *method)
{
	const char *length, *coding;
	uint64_t bytes = 0;
	bool has_body;

	request->begun = true;
	request->connection = connection;
	length = tm_request_header(request, "Content-Length");
	coding = tm_request_header(request, "Transfer-Encoding");
	if (length)
		(void)tm_decimal_parse(length, &bytes);
	has_body = coding || bytes > 0;
	check_headers(request, method, has_body);
	if (request->refused && has_body &&
	    (bytes > DISCARD_LIMIT || tm_request_header(request, "Expect")))
		return tm_answer_error(request, &request->error);
	return MHD_YES;
}

/* A part of the body. MHD_NO closes the connection. */
static int receive(struct tm_request *request, const char *data, size_t len)
{
	const struct tm_http_config *config = &request->http->config;

	request->body_seen += len;
	if (request->body_seen > DISCARD_LIMIT || tm_now_monotonic_usec() - request->started_usec >
							  config->receive_seconds * TM_USEC_PER_SEC)
		return MHD_NO;
	if (request->refused)
		return MHD_YES;
	if (request->body_seen > config->body_limit) {
		refuse(request, TM_ERR_BODY_TOO_LARGE, "The request body is too large.");
		return MHD_YES;
	}
	if (request->body_len + len > request->body_size) {
		size_t size = request->body_size ? request->body_size * 2 : 4096;
		char *body;

		while (size < request->body_len + len)
			size *= 2;
		body = realloc(request->body, size);
		if (!body) {
			refuse(request, TM_ERR_NO_MEMORY, "Out of memory.");
			return MHD_YES;
		}
		request->body = body;
		request->body_size = size;
	}
	memcpy(request->body + request->body_len, data, len);
	request->body_len += len;
	return MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *url,
				 const char *method, const char *version, const char *upload_data,
				 size_t *upload_data_size, void **req_cls)
{
	struct tm_request *request = *req_cls;
	int (*resume)(struct tm_request *);

	(void)cls;
	(void)url;
	(void)version;
	if (!request)
		return MHD_NO;
	if (!request->begun) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

		request->permission = info ? (enum tm_permission)(uintptr_t)info->socket_context
					   : TM_PERMIT_NONE;
		return (enum MHD_Result)begin(request, connection, method);
	}
	if (*upload_data_size) {
		size_t len = *upload_data_size;

		*upload_data_size = 0;
		return (enum MHD_Result)receive(request, upload_data, len);
	}
	if (request->resume) {
		resume = request->resume;
		request->resume = NULL;
		return (enum MHD_Result)resume(request);
	}
	if (request->refused)
		return (enum MHD_Result)tm_answer_error(request, &request->error);
	if (request->match.options)
		return (enum MHD_Result)tm_answer_empty(request, MHD_HTTP_NO_CONTENT);
	return (enum MHD_Result)request->match.route->handler(request);
}

static struct tm_request *new_request(struct tm_http *http, const char *uri, bool secure_origin)
{
	struct tm_request *request = tm_request_new(http, uri);

	if (!request)
		return NULL;
	request->secure_origin = secure_origin;
	TM_LOCK_SCOPE(&http->lock);
	http->n_requests++;
	return request;
}

static void *on_unix_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
	(void)connection;
	return new_request(cls, uri, true);
}

static void *on_tcp_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
	(void)connection;
	return new_request(cls, uri, false);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
			 enum MHD_RequestTerminationCode why)
{
	struct tm_http *http = cls;
	struct tm_request *request = *req_cls;

	(void)connection;
	(void)why;
	if (!request)
		return;
	*req_cls = NULL;
	{
		TM_LOCK_SCOPE(&http->lock);
		http->n_requests--;
		if (http->stopping)
			(void)pthread_cond_broadcast(&http->changed);
	}
	(void)tm_request_unref(request);
}

static void on_unix_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			       enum MHD_ConnectionNotificationCode what)
{
	struct tm_http *http = cls;
	const union MHD_ConnectionInfo *info;
	enum tm_permission permission = TM_PERMIT_NONE;

	if (what != MHD_CONNECTION_NOTIFY_STARTED)
		return;
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info)
		permission = tm_peer_permission(info->connect_fd, http->groups);
	*socket_context = (void *)(uintptr_t)permission;
}

static void on_tcp_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			      enum MHD_ConnectionNotificationCode what)
{
	struct tm_http *http = cls;

	(void)connection;
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		*socket_context = (void *)(uintptr_t)http->config.tcp_permission;
}

/* The router decodes, strictly and after it has split the path. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
	(void)cls;
	(void)connection;
	return strlen(text);
}

static void on_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

static void on_log(void *cls, const char *fmt, va_list ap)
{
	char text[256];
	size_t len;

	(void)cls;
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		return;
	len = strlen(text);
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	tm_log(LOG_DEBUG, "http: %s", text);
}

/* ---- looking after suspended connections ----------------------------------------------------- */

static void look_after(struct tm_http *http)
{
	uint64_t now = tm_now_monotonic_usec();
	uint64_t beat = http->config.heartbeat_seconds * TM_USEC_PER_SEC;
	struct tm_request *next;

	for (struct tm_request *request = http->parked; request; request = next) {
		struct pollfd fd = { .fd = request->fd };
		bool gone;

		next = request->next;
		gone = poll(&fd, 1, 0) > 0 && (fd.revents & (POLLHUP | POLLERR | POLLNVAL));
		/* To a caller that is gone a stream writes too: that is how the connection ends. */
		if (request->stream ? tm_stream_heartbeat_due(request->stream, now, gone ? 0 : beat)
				    : gone)
			tm_request_wake_locked(request);
	}
}

static void *keeper(void *userdata)
{
	struct tm_http *http = userdata;
	struct timespec when = { 0 };
	bool armed = false;

	(void)pthread_setname_np(pthread_self(), "http-keeper");
	TM_LOCK_SCOPE(&http->lock);
	while (!http->stopping) {
		if (!http->n_parked) {
			armed = false;
			(void)pthread_cond_wait(&http->changed, &http->lock);
			continue;
		}
		if (!armed) {
			(void)clock_gettime(CLOCK_MONOTONIC, &when);
			when.tv_sec += (time_t)http->config.heartbeat_seconds;
			armed = true;
		}
		if (pthread_cond_timedwait(&http->changed, &http->lock, &when) == ETIMEDOUT) {
			armed = false;
			look_after(http);
		}
	}
	return NULL;
}

/* On the main loop, in the order of the numbers. */
static void on_events(void *userdata, const struct tm_event *events, size_t n)
{
	struct tm_http *http = userdata;
	struct tm_request *next;

	if (!n)
		return;
	TM_LOCK_SCOPE(&http->lock);
	if (events[n - 1].seq > http->last_seq)
		http->last_seq = events[n - 1].seq;
	for (struct tm_request *request = http->parked; request; request = next) {
		next = request->next;
		if (request->stream)
			tm_request_wake_locked(request);
	}
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_defaults(struct tm_http_config *config)
{
	if (!config->admin_group)
		config->admin_group = "thinmgr";
	if (!config->view_group)
		config->view_group = "thinmgr-view";
	if (!config->threads)
		config->threads = 2;
	if (!config->max_connections)
		config->max_connections = 256;
	if (!config->max_streams)
		config->max_streams = 64;
	if (!config->body_limit)
		config->body_limit = 256 * TM_KIB;
	if (!config->idle_seconds)
		config->idle_seconds = 30;
	if (!config->receive_seconds)
		config->receive_seconds = 60;
	if (!config->heartbeat_seconds)
		config->heartbeat_seconds = 15;
}

/* Takes @fd. */
static int start_daemon(struct tm_http *http, int fd, bool is_unix, struct MHD_Daemon **ret,
			struct tm_error *err)
{
	const struct tm_http_config *config = &http->config;

	*ret = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, on_access, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, http,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
		config->threads > 1 ? config->threads : 0U, MHD_OPTION_CONNECTION_LIMIT,
		config->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, config->idle_seconds,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT,
		1, MHD_OPTION_URI_LOG_CALLBACK, is_unix ? on_unix_uri : on_tcp_uri, http,
		MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, http, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
		is_unix ? on_unix_connection : on_tcp_connection, http, MHD_OPTION_END);
	if (*ret)
		return 0;
	(void)close(fd);
	return tm_error_set(err, TM_ERR_INTERNAL, EIO, "Cannot start the HTTP server.");
}

/* A cut-off start and the end of a full one: everything that was begun. */
static void stop(struct tm_http *http)
{
	struct timespec limit;

	if (http->listener)
		http->listener = tm_core_unlisten(http->core, http->listener);
	/* New callers find nothing; those who are connected are told (see check_headers). */
	if (http->unix_daemon)
		(void)unlink(http->socket_path);
	{
		TM_LOCK_SCOPE(&http->lock);
		http->stopping = true;
		while (http->parked)
			tm_request_wake_locked(http->parked);
		(void)pthread_cond_broadcast(&http->changed);
		(void)clock_gettime(CLOCK_MONOTONIC, &limit);
		limit.tv_nsec += (long)(DRAIN_USEC * 1000);
		if (limit.tv_nsec >= 1000000000) {
			limit.tv_nsec -= 1000000000;
			limit.tv_sec++;
		}
		while (http->n_requests) {
			if (pthread_cond_timedwait(&http->changed, &http->lock, &limit) != 0)
				break;
		}
	}
	if (http->keeper_running)
		(void)pthread_join(http->keeper, NULL);
	/* These close the listening sockets too. */
	if (http->unix_daemon)
		MHD_stop_daemon(http->unix_daemon);
	if (http->tcp_daemon)
		MHD_stop_daemon(http->tcp_daemon);
	tm_readers_done(&http->readers);
}

struct tm_http *tm_http_free(struct tm_http *http)
{
	if (!http)
		return NULL;
	stop(http);
	tm_http_unref(http);
	return NULL;
}

static void tm_http_freep(struct tm_http **http)
{
	*http = tm_http_free(*http);
}

static int no_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

/* The struct itself, with nothing started. */
static struct tm_http *allocate(struct tm_core *core, const struct tm_http_config *config)
{
	struct tm_http *http = calloc(1, sizeof(*http));
	pthread_condattr_t attr;

	if (!http)
		return NULL;
	http->groups = calloc(1, sizeof(*http->groups));
	if (config->socket_path)
		http->socket_path = strdup(config->socket_path);
	if (!http->groups || (config->socket_path && !http->socket_path) ||
	    pthread_condattr_init(&attr) != 0) {
		free(http->groups);
		free(http->socket_path);
		free(http);
		return NULL;
	}
	/* None of these can fail on Linux with these arguments. */
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&http->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	(void)pthread_mutex_init(&http->lock, NULL);
	(void)pthread_mutex_init(&http->readers.lock, NULL);
	http->refs = 1;
	http->core = core;
	http->config = *config;
	set_defaults(&http->config);
	http->readers.directory = tm_core_state_directory(core);
	tm_groups_lookup(http->config.admin_group, http->config.view_group, http->groups);
	return http;
}

int tm_http_new(struct tm_core *core, const struct tm_http_config *cfg, struct tm_http **ret,
		struct tm_error *err)
{
	tm_cleanup(tm_http_freep) struct tm_http *http = allocate(core, cfg);
	struct tm_store_reader *reader;
	uint16_t port;
	int r;

	if (!http)
		return no_memory(err);
	/* Listen first: what is committed in between is then counted by one or the other. */
	http->listener = tm_core_listen(core, on_events, http);
	if (!http->listener)
		return no_memory(err);
	reader = tm_readers_take(&http->readers, err);
	if (!reader)
		return -EIO;
	r = tm_store_last_seq(reader, &http->last_seq, err);
	tm_readers_give(&http->readers, reader);
	if (r < 0)
		return r;
	r = pthread_create(&http->keeper, NULL, keeper, http);
	if (r != 0)
		return tm_error_set(err, TM_ERR_INTERNAL, r, "Cannot start a thread: %s.",
				    strerror(r));
	http->keeper_running = true;

	if (http->socket_path) {
		r = tm_listen_unix(http->socket_path, http->groups, err);
		if (r < 0)
			return r;
		r = start_daemon(http, r, true, &http->unix_daemon, err);
		if (r < 0) {
			(void)unlink(http->socket_path);
			return r;
		}
	}
	if (http->config.tcp_port) {
		r = tm_listen_loopback(http->config.tcp_port, &port, err);
		if (r < 0)
			return r;
		r = start_daemon(http, r, false, &http->tcp_daemon, err);
		if (r < 0)
			return r;
	}
	*ret = TM_TAKE(http);
	return 0;
}
