// SPDX-License-Identifier: GPL-2.0-or-later
/* The HTTP server itself, over its socket, with a core made for tests. */

#include <arpa/inet.h>
#include <dirent.h>
#include <grp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/http-server.h"
#include "api/listen.h"
#include "common/units.h"
#include "fake-core.h"
#include "skip.h"

#define TCP_PORT    18347
#define MAX_STREAMS 5
#define REPLY_MAX   ((size_t)1 << 20)

struct fixture {
	struct tm_core *core;
	struct tm_http *http;
	struct tm_http_config config;
	char path[100];
	char group[64];
};

struct reply {
	int status;
	char *text;
	const char *body;
	json_t *json;
};

static struct fixture f;
static unsigned int n_recorded;

static void start_server(void)
{
	struct tm_error err = { 0 };

	if (tm_http_new(f.core, &f.config, &f.http, &err) < 0)
		fail_msg("%s", err.detail);
}

static int setup(void **state)
{
	struct group entry, *group = NULL;
	char names[4096];

	(void)state;
	memset(&f, 0, sizeof(f));
	(void)getgrgid_r(getegid(), &entry, names, sizeof(names), &group);
	f.core = fake_core_new();
	(void)snprintf(f.path, sizeof(f.path), "%s/sock", f.core->directory);
	(void)snprintf(f.group, sizeof(f.group), "%s", group ? group->gr_name : "root");
	f.config = (struct tm_http_config){
		.socket_path = f.path,
		.admin_group = f.group,
		.tcp_port = TCP_PORT,
		.tcp_permission = TM_PERMIT_VIEW,
		.body_limit = 8192,
		.max_streams = MAX_STREAMS,
		.idle_seconds = 2,
		.receive_seconds = 1,
		.heartbeat_seconds = 1,
	};
	start_server();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	f.http = tm_http_free(f.http);
	assert_int_equal(access(f.path, F_OK), -1);
	fake_core_free(f.core);
	return 0;
}

/* ---- a small client -------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = 10 };

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", f.path);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	return fd;
}

static int dial_tcp(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(TCP_PORT),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Sockets of this process, the server's ends among them. */
static unsigned int count_sockets(void)
{
	unsigned int n = 0;
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/fd");

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct stat st;

		n += fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISSOCK(st.st_mode);
	}
	(void)closedir(dir);
	return n;
}

static bool pause_until(uint64_t end_usec)
{
	(void)poll(NULL, 0, 5);
	return tm_now_monotonic_usec() < end_usec;
}

/* Until the server has closed what was opened since there were @n. */
static bool wait_sockets(unsigned int n)
{
	const uint64_t end = tm_now_monotonic_usec() + 10 * TM_USEC_PER_SEC;

	while (count_sockets() > n) {
		if (!pause_until(end))
			return false;
	}
	return true;
}

/* Until the server has read all that was said. */
static bool wait_read(int fd)
{
	const uint64_t end = tm_now_monotonic_usec() + 10 * TM_USEC_PER_SEC;
	int unread = 1;

	while (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0) {
		if (!pause_until(end))
			return false;
	}
	return unread == 0;
}

/* May come to an end early: the server may refuse before it has read all. */
static void say(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

/* Everything until the server closes. */
static struct reply hear(int fd)
{
	struct reply reply = { .text = calloc(1, REPLY_MAX) };
	size_t used = 0;
	ssize_t n;
	char *body;

	assert_non_null(reply.text);
	while ((n = recv(fd, reply.text + used, REPLY_MAX - 1 - used, 0)) > 0)
		used += (size_t)n;
	(void)close(fd);
	if (used < 12)
		return reply;
	reply.status = (int)strtol(reply.text + 9, NULL, 10);
	body = strstr(reply.text, "\r\n\r\n");
	assert_non_null(body);
	*body = '\0';
	reply.body = body + 4;
	reply.json = json_loads(reply.body, 0, NULL);
	return reply;
}

static void done(struct reply *reply)
{
	json_decref(reply->json);
	free(reply->text);
	*reply = (struct reply){ 0 };
}

static void ask_on(int fd, const char *method, const char *path, const char *headers,
		   const char *body)
{
	char *text = NULL;
	int len;

	if (body)
		len = asprintf(&text,
			       "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			       "Content-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
			       method, path, strlen(body), headers, body);
	else
		len = asprintf(&text,
			       "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n",
			       method, path, headers);
	assert_true(len > 0);
	say(fd, text, (size_t)len);
	free(text);
}

/* For api/check.py, which holds answers against the contract. */
static void record(const char *method, const char *path, const struct reply *reply)
{
	const char *directory = getenv("TM_ANSWERS"), *type;
	tm_auto_fclose FILE *file = NULL;
	char name[256];
	size_t len;

	if (!directory || !reply->text[0] || strcmp(method, "HEAD") == 0)
		return;
	type = strstr(reply->text, "Content-Type: ");
	type = type ? type + 14 : "";
	len = strcspn(type, "\r");
	(void)snprintf(name, sizeof(name), "%s/%03u", directory, n_recorded++);
	file = fopen(name, "w");
	assert_non_null(file);
	assert_true(fprintf(file, "%s %s\n%d %.*s\n%s", method, path, reply->status, (int)len, type,
			    reply->body) > 0);
}

static struct reply ask(const char *method, const char *path, const char *headers, const char *body)
{
	struct reply reply;
	int fd = dial();

	ask_on(fd, method, path, headers, body);
	reply = hear(fd);
	record(method, path, &reply);
	return reply;
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

/* Ask and expect a problem. */
static void expect_problem(const char *method, const char *path, const char *headers,
			   const char *body, enum tm_error_code code, const char *field)
{
	struct reply reply = ask(method, path, headers, body);
	char type[96];

	(void)snprintf(type, sizeof(type), "urn:thinmgr:error:%s", tm_error_slug(code));
	if (reply.status != (int)tm_error_http_status(code) ||
	    strcmp(text_of(reply.json, "type"), type) != 0 ||
	    strcmp(text_of(reply.json, "field"), field) != 0)
		fail_msg("%s %s: %d %s", method, path, reply.status,
			 reply.body ? reply.body : "no answer");
	assert_non_null(strstr(reply.text, "application/problem+json"));
	assert_int_equal(json_integer_value(json_object_get(reply.json, "status")), reply.status);
	done(&reply);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void answers_reads(void **state)
{
	static const struct {
		const char *path;
		const char *has; /* a member of the document */
	} cases[] = {
		{ "/v1/system", "kernel" },
		{ "/v1/health", "ready" },
		{ "/v1/pools", "items" },
		{ "/v1/pools/tank", "data" },
		{ "/v1/pools/" FAKE_POOL_ID, "backing" },
		{ "/v1/pools/idle", "policy" },
		{ "/v1/pools/tank/policy", "when_full" },
		{ "/v1/pools/tank/history", "items" },
		{ "/v1/pools/tank/"
		  "history?from=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z&step=60",
		  "next" },
		{ "/v1/pools/tank/volumes", "items" },
		{ "/v1/pools/tank/volumes/home", "device" },
		{ "/v1/pools/tank/volumes/" FAKE_VOLUME_ID, "mapped" },
		{ "/v1/pools/tank/snapshots", "items" },
		{ "/v1/events", "items" },
		{ "/v1/events?type=extended&severity=info&pool=tank&order=desc&after=0", "items" },
		{ "/v1/operations", "items" },
		{ "/v1/operations?pool=" FAKE_VOLUME_ID "&status=failed&limit=1", "items" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct reply reply = ask("GET", cases[i].path, "", NULL);

		if (reply.status != 200 || !json_object_get(reply.json, cases[i].has))
			fail_msg("%s: %d %s", cases[i].path, reply.status, reply.body);
		assert_non_null(strstr(reply.text, "Content-Type: application/json"));
		assert_non_null(strstr(reply.text, "Cache-Control: no-store"));
		done(&reply);

		reply = ask("HEAD", cases[i].path, "", NULL);
		assert_int_equal(reply.status, 200);
		assert_string_equal(reply.body, "");
		done(&reply);
	}
}

static void shows_pools(void **state)
{
	struct reply reply = ask("GET", "/v1/pools/tank", "", NULL);
	json_t *data = json_object_get(reply.json, "data");

	(void)state;
	assert_non_null(strstr(reply.text, "ETag: \"17\""));
	assert_string_equal(text_of(reply.json, "mode"), "write");
	assert_int_equal(json_integer_value(json_object_get(data, "used")), 67108864);
	assert_int_equal(json_integer_value(json_object_get(data, "free")), 201326592);
	done(&reply);

	reply = ask("GET", "/v1/pools/idle", "", NULL);
	assert_true(json_is_null(json_object_get(reply.json, "mode")));
	assert_true(json_is_null(json_object_get(json_object_get(reply.json, "data"), "used")));
	done(&reply);
}

static void pages_lists(void **state)
{
	struct reply reply = ask("GET", "/v1/pools?limit=1", "", NULL);
	json_t *items = json_object_get(reply.json, "items");

	(void)state;
	assert_int_equal(json_array_size(items), 1);
	assert_string_equal(text_of(json_array_get(items, 0), "name"), "idle");
	assert_string_equal(text_of(reply.json, "next"), "idle");
	done(&reply);
	reply = ask("GET", "/v1/pools?limit=1&cursor=idle", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_string_equal(text_of(json_array_get(items, 0), "name"), "tank");
	assert_true(json_is_null(json_object_get(reply.json, "next")));
	done(&reply);

	/* By name, whatever their order in the pool. */
	reply = ask("GET", "/v1/pools/tank/volumes?limit=1", "", NULL);
	assert_string_equal(
		text_of(json_array_get(json_object_get(reply.json, "items"), 0), "name"), "home");
	assert_string_equal(text_of(reply.json, "next"), "home");
	done(&reply);
	reply = ask("GET", "/v1/pools/tank/volumes?cursor=home", "", NULL);
	assert_string_equal(
		text_of(json_array_get(json_object_get(reply.json, "items"), 0), "name"), "snap");
	assert_true(json_is_null(json_object_get(reply.json, "next")));
	done(&reply);
	reply = ask("GET", "/v1/pools/tank/snapshots", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_array_size(items), 1);
	assert_string_equal(text_of(json_array_get(items, 0), "origin"), "home");
	assert_string_equal(text_of(json_array_get(items, 0), "origin_id"), FAKE_VOLUME_ID);
	done(&reply);

	(void)fake_events(f.core, TM_EVENT_EXTENDED, 5);
	reply = ask("GET", "/v1/events?limit=3", "", NULL);
	assert_string_equal(text_of(reply.json, "next"), "3");
	done(&reply);
	reply = ask("GET", "/v1/events?limit=3&cursor=3", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_array_size(items), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(items, 0), "seq")), 4);
	assert_true(json_is_null(json_object_get(reply.json, "next")));
	done(&reply);
	reply = ask("GET", "/v1/events?limit=1&order=desc", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(items, 0), "seq")), 5);
	assert_string_equal(text_of(json_array_get(items, 0), "type"), "extended");
	assert_non_null(
		json_object_get(json_object_get(json_array_get(items, 0), "data"), "figure"));
	assert_string_equal(text_of(reply.json, "next"), "5");
	done(&reply);
	reply = ask("GET", "/v1/events?limit=2&order=desc&cursor=5", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(items, 0), "seq")), 4);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(items, 1), "seq")), 3);
	assert_string_equal(text_of(reply.json, "next"), "3");
	done(&reply);
}

/* A page of events holds those of what its reader has seen: it waits while they are written. */
static void events_are_waited_for(void **state)
{
	struct pollfd p = { .fd = dial(), .events = POLLIN };
	struct reply reply;
	json_t *items;

	(void)state;
	atomic_store(&f.core->recording, true);
	ask_on(p.fd, "GET", "/v1/events?type=extended&limit=3", "", NULL);
	assert_int_equal(poll(&p, 1, 200), 0);
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 1);
	atomic_store(&f.core->recording, false);
	reply = hear(p.fd);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_array_size(items), 1);
	assert_string_equal(text_of(json_array_get(items, 0), "type"), "extended");
	done(&reply);
	(void)close(p.fd);
}

static void keeps_connections(void **state)
{
	static const char request[] = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
				      "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"
				      "Connection: close\r\n\r\n";
	int fd = dial();
	struct reply reply;

	(void)state;
	say(fd, request, sizeof(request) - 1);
	reply = hear(fd);
	assert_int_equal(reply.status, 200);
	assert_non_null(strstr(reply.body, "HTTP/1.1 200"));
	done(&reply);
}

static void says_when_it_is_not_ready(void **state)
{
	struct reply reply;

	(void)state;
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->view->system.ready = false;
	}
	reply = ask("GET", "/v1/health", "", NULL);
	assert_int_equal(reply.status, 503);
	assert_true(json_is_true(json_object_get(reply.json, "live")));
	assert_true(json_is_false(json_object_get(reply.json, "ready")));
	done(&reply);
}

/* ---- refusing -------------------------------------------------------------------------------- */

static void refuses(void **state)
{
	static const struct {
		const char *method, *path, *body;
		enum tm_error_code code;
		const char *field;
	} cases[] = {
		{ "GET", "/", NULL, TM_ERR_NO_ROUTE, "" },
		{ "GET", "/v1/openapi.json", NULL, TM_ERR_NO_ROUTE, "" },
		{ "GET", "/v1/pools/..%2f", NULL, TM_ERR_BAD_NAME, "" },
		{ "GET", "/v1/pools/%00", NULL, TM_ERR_BAD_PATH, "" },
		{ "GET", "/v1/pools/none", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/pools/none/volumes", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/pools/none/history", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/pools/tank/volumes/none", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/pools/tank/history?step=x", NULL, TM_ERR_BAD_QUERY, "step" },
		{ "GET",
		  "/v1/pools/tank/history?from=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z",
		  NULL, TM_ERR_BAD_QUERY, "from" },
		{ "GET", "/v1/pools?limit=0", NULL, TM_ERR_BAD_QUERY, "limit" },
		{ "GET", "/v1/pools?limit=1001", NULL, TM_ERR_BAD_QUERY, "limit" },
		{ "GET", "/v1/pools?wait=1", NULL, TM_ERR_BAD_QUERY, "wait" },
		{ "GET", "/v1/events?type=x", NULL, TM_ERR_BAD_QUERY, "type" },
		{ "GET", "/v1/events?severity=x", NULL, TM_ERR_BAD_QUERY, "severity" },
		{ "GET", "/v1/events?order=x", NULL, TM_ERR_BAD_QUERY, "order" },
		{ "GET", "/v1/events?pool=none", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/events?pool=a%20b", NULL, TM_ERR_BAD_QUERY, "pool" },
		{ "GET", "/v1/operations?status=x", NULL, TM_ERR_BAD_QUERY, "status" },
		{ "GET", "/v1/operations/" FAKE_POOL_ID, NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/operations/name", NULL, TM_ERR_NOT_FOUND, "" },
		{ "GET", "/v1/operations/" FAKE_POOL_ID "?wait=601", NULL, TM_ERR_BAD_QUERY,
		  "wait" },
		{ "PUT", "/v1/pools", NULL, TM_ERR_METHOD, "" },
		{ "POST", "/v1/pools", "", TM_ERR_BAD_JSON, "" },
		{ "POST", "/v1/pools", "{", TM_ERR_BAD_JSON, "" },
		{ "POST", "/v1/pools", "[]", TM_ERR_BAD_JSON, "" },
		{ "POST", "/v1/pools", "{\"name\":\"a\",\"name\":\"b\"}", TM_ERR_BAD_JSON, "" },
		{ "POST", "/v1/pools", "{}", TM_ERR_MISSING_FIELD, "/name" },
		{ "POST", "/v1/pools/tank/activate?wait=x", NULL, TM_ERR_BAD_QUERY, "wait" },
		{ "POST", "/v1/pools/import", "{\"directory\":\"x\"}", TM_ERR_BAD_PATH,
		  "/directory" },
		{ "POST", "/v1/pools/tank/activate", "{}", TM_ERR_BAD_JSON, "" },
		{ "POST", "/v1/pools/tank/activate?dry_run=maybe", NULL, TM_ERR_BAD_QUERY,
		  "dry_run" },
		{ "DELETE", "/v1/pools/tank?with_volumes=1", NULL, TM_ERR_BAD_QUERY,
		  "with_volumes" },
		{ "PATCH", "/v1/pools/none/policy", "{\"when_full\":\"error\"}", TM_ERR_NOT_FOUND,
		  "" },
		{ "PATCH", "/v1/pools/tank/policy", "{\"x\":1}", TM_ERR_UNKNOWN_FIELD, "/x" },
		{ "PATCH", "/v1/pools/tank/volumes/home", "{\"size\":1}", TM_ERR_OUT_OF_RANGE,
		  "/size" },
		{ "POST", "/v1/pools/tank/snapshots", "{\"snapshots\":[]}", TM_ERR_OUT_OF_RANGE,
		  "/snapshots" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++)
		expect_problem(cases[i].method, cases[i].path, "", cases[i].body, cases[i].code,
			       cases[i].field);
	/* Nothing of all this came to the core. */
	assert_int_equal(f.core->n_submitted, 0);
}

static void refuses_headers(void **state)
{
	struct reply reply;

	(void)state;
	expect_problem("POST", "/v1/pools", "Content-Type: text/plain\r\nContent-Length: 0\r\n",
		       NULL, TM_ERR_BAD_JSON, "");
	expect_problem(
		"POST", "/v1/pools/tank/extend",
		"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
		NULL, TM_ERR_MEDIA_TYPE, "");
	expect_problem("GET", "/v1/events", "Accept: text/event-stream\r\nLast-Event-ID: x\r\n",
		       NULL, TM_ERR_BAD_QUERY, "Last-Event-ID");
	expect_problem("GET", "/v1/events?limit=3", "Accept: a/b;q=1, text/event-stream;q=0.5\r\n",
		       NULL, TM_ERR_BAD_QUERY, "limit");
	expect_problem("DELETE", "/v1/pools/tank", "If-Match: \"16\"\r\n", NULL,
		       TM_ERR_PRECONDITION, "If-Match");
	expect_problem("DELETE", "/v1/pools/tank", "If-Match: W/\"17\"\r\n", NULL,
		       TM_ERR_PRECONDITION, "If-Match");
	assert_int_equal(f.core->n_submitted, 0);

	reply = ask("OPTIONS", "/v1/pools", "", NULL);
	assert_int_equal(reply.status, 204);
	assert_non_null(strstr(reply.text, "Allow: GET, HEAD, POST, OPTIONS"));
	done(&reply);
	reply = ask("PUT", "/v1/pools", "", NULL);
	assert_non_null(strstr(reply.text, "Allow: GET, HEAD, POST, OPTIONS"));
	done(&reply);
}

static void limits_bodies(void **state)
{
	static const char chunked[] = "POST /v1/pools HTTP/1.1\r\nHost: localhost\r\n"
				      "Connection: close\r\nContent-Type: application/json\r\n"
				      "Transfer-Encoding: chunked\r\n\r\n";
	char *body = malloc(64 * 1024), chunk[1100];
	struct reply reply;
	int fd;

	(void)state;
	assert_non_null(body);
	memset(body, ' ', 64 * 1024);
	body[8192] = '\0';
	expect_problem("POST", "/v1/pools", "", body, TM_ERR_BAD_JSON, "");
	body[8192] = ' ';
	body[8193] = '\0';
	expect_problem("POST", "/v1/pools", "", body, TM_ERR_BODY_TOO_LARGE, "");
	body[8193] = ' ';
	body[64 * 1024 - 1] = '\0';
	expect_problem("POST", "/v1/pools", "", body, TM_ERR_BODY_TOO_LARGE, "");

	/* Of unknown length: counted as it comes in. */
	fd = dial();
	say(fd, chunked, sizeof(chunked) - 1);
	for (int i = 0; i < 20; i++) {
		int len = snprintf(chunk, sizeof(chunk), "400\r\n%.1024s\r\n", body);

		say(fd, chunk, (size_t)len);
	}
	say(fd, "0\r\n\r\n", 5);
	reply = hear(fd);
	assert_int_equal(reply.status, 413);
	done(&reply);

	/* Announced as enormous: refused before it is sent. */
	fd = dial();
	ask_on(fd, "POST", "/v1/pools",
	       "Content-Type: application/json\r\nContent-Length: 99999999\r\n", NULL);
	reply = hear(fd);
	assert_int_equal(reply.status, 413);
	done(&reply);
	free(body);
	assert_int_equal(f.core->n_submitted, 0);
}

static void ends_slow_bodies(void **state)
{
	static const char head[] = "POST /v1/pools HTTP/1.1\r\nHost: localhost\r\n"
				   "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
	uint64_t start = tm_now_monotonic_usec();
	struct pollfd p;
	int fd = dial();

	(void)state;
	say(fd, head, sizeof(head) - 1);
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	/* A byte now and then keeps the connection from being idle, but not for ever. */
	for (int i = 0; i < 50 && poll(&p, 1, 200) == 0; i++)
		say(fd, " ", 1);
	assert_in_range(tm_now_monotonic_usec() - start, 900000, 5000000);
	(void)close(fd);

	/* And one that says nothing at all is closed. */
	fd = dial();
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 8000), 1);
	(void)close(fd);
}

static void survives_garbage(void **state)
{
	static const char *const texts[] = {
		"\r\n\r\n\r\n",
		"GET\r\n\r\n",
		"\x16\x03\x01\x02",
		"GET / HTTP/9.9\r\n\r\n",
		"GET /v1/health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/pools HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET  /v1/health HTTP/1.1\r\n\r\n",
	};
	struct reply reply;
	char *large;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(texts); i++) {
		int fd = dial();

		say(fd, texts[i], strlen(texts[i]));
		(void)shutdown(fd, SHUT_WR);
		reply = hear(fd);
		done(&reply);
	}
	large = malloc(100000);
	assert_non_null(large);
	memset(large, 'a', 100000);
	memcpy(large, "GET /v1/pools/", 14);
	for (int i = 0; i < 2; i++) {
		int fd = dial();

		say(fd, large, i ? 100000 : 65536);
		(void)shutdown(fd, SHUT_WR);
		reply = hear(fd);
		assert_int_not_equal(reply.status, 200);
		done(&reply);
	}
	free(large);
	reply = ask("GET", "/v1/health", "", NULL);
	assert_int_equal(reply.status, 200);
	done(&reply);
}

static void guards_loopback(void **state)
{
	static const char *const foreign[] = {
		"Host: example.org\r\n",
		"Host: 127.0.0.1.example.org\r\n",
		"Host: localhost\r\nOrigin: http://localhost:8080\r\n",
	};
	struct reply reply;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(foreign); i++) {
		char text[256];
		int fd = dial_tcp();

		(void)snprintf(text, sizeof(text),
			       "GET /v1/health HTTP/1.1\r\nConnection: close\r\n%s\r\n",
			       foreign[i]);
		say(fd, text, strlen(text));
		reply = hear(fd);
		assert_int_equal(reply.status, 403);
		done(&reply);
	}
	{
		int fd = dial_tcp();

		ask_on(fd, "GET", "/v1/health", "", NULL);
		reply = hear(fd);
		assert_int_equal(reply.status, 200);
		done(&reply);
		/* It may only read. */
		fd = dial_tcp();
		ask_on(fd, "POST", "/v1/pools/tank/activate", "", NULL);
		reply = hear(fd);
		assert_int_equal(reply.status, 403);
		assert_string_equal(text_of(reply.json, "type"), "urn:thinmgr:error:forbidden");
		done(&reply);
	}
	assert_int_equal(f.core->n_submitted, 0);
}

/* ---- who may --------------------------------------------------------------------------------- */

/* What a process of these ids is let do. Needs root to become somebody else. */
static int permission_as(uid_t uid, gid_t gid, const gid_t *extra, size_t n_extra,
			 const struct tm_groups *groups)
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		int pair[2];

		if (setgroups(n_extra, extra) < 0 || setgid(gid) < 0 || setuid(uid) < 0 ||
		    socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
			_exit(99);
		_exit((int)tm_peer_permission(pair[0], groups));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void knows_peers(void **state)
{
	static const struct tm_groups groups = { .admin = 4001, .view = 4002 };
	static const struct tm_groups none = { .admin = TM_GID_NONE, .view = TM_GID_NONE };
	static const gid_t admins[] = { 5, 4001 }, viewers[] = { 4002, 7 }, both[] = { 4002, 4001 };
	gid_t many[200];

	(void)state;
	if (geteuid() != 0)
		TM_SKIP("only root can become somebody else");
	for (size_t i = 0; i < TM_ARRAY_SIZE(many); i++)
		many[i] = (gid_t)(10000 + i);
	many[TM_ARRAY_SIZE(many) - 1] = 4001;
	assert_int_equal(permission_as(0, 0, NULL, 0, &none), TM_PERMIT_ADMIN);
	assert_int_equal(permission_as(1234, 0, NULL, 0, &groups), TM_PERMIT_NONE);
	assert_int_equal(permission_as(1234, 4001, NULL, 0, &groups), TM_PERMIT_ADMIN);
	assert_int_equal(permission_as(1234, 4002, NULL, 0, &groups), TM_PERMIT_VIEW);
	assert_int_equal(permission_as(1234, 1, admins, 2, &groups), TM_PERMIT_ADMIN);
	assert_int_equal(permission_as(1234, 1, viewers, 2, &groups), TM_PERMIT_VIEW);
	assert_int_equal(permission_as(1234, 1, both, 2, &groups), TM_PERMIT_ADMIN);
	assert_int_equal(permission_as(1234, 1, many, TM_ARRAY_SIZE(many), &groups),
			 TM_PERMIT_ADMIN);
	assert_int_equal(permission_as(1234, 4001, admins, 2, &none), TM_PERMIT_NONE);
}

static void sets_up_sockets(void **state)
{
	static const struct tm_groups none = { .admin = TM_GID_NONE, .view = TM_GID_NONE };
	struct tm_error err = { 0 };
	char path[160], longer[200];
	struct stat st;
	uint16_t port;
	int fd, second;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/other", f.core->directory);
	fd = tm_listen_unix(path, &none, &err);
	assert_true(fd >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	/* One that is listened on stays, one that is dead is replaced, another kind of file stays.
	 */
	assert_int_equal(tm_listen_unix(path, &none, &err), -EADDRINUSE);
	(void)close(fd);
	err.code = TM_OK;
	fd = tm_listen_unix(path, &none, &err);
	assert_true(fd >= 0);
	(void)close(fd);
	(void)unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(tm_listen_unix(path, &none, &err), -EEXIST);
	assert_int_equal(rmdir(path), 0);
	memset(longer, 'x', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(tm_listen_unix(longer, &none, &err), -ENAMETOOLONG);
	assert_int_equal(tm_listen_unix("/nonexistent/sock", &none, &err), -ENOENT);

	fd = tm_listen_loopback(0, &port, &err);
	assert_true(fd >= 0);
	assert_int_not_equal(port, 0);
	second = tm_listen_loopback(port, &port, &err);
	assert_int_equal(second, -EADDRINUSE);
	(void)close(fd);
}

/* The status that a process gets which is nothing but a member of a group; 0 when it cannot get in.
 * For a child: no asserts. */
static int status_as(gid_t gid, const char *request)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char text[16] = "";
	int fd;

	memcpy(address.sun_path, f.path, sizeof(f.path));
	if (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(1234) < 0)
		return 1;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 0;
	say(fd, request, strlen(request));
	if (recv(fd, text, 12, MSG_WAITALL) != 12)
		return 2;
	return (int)strtol(text + 9, NULL, 10);
}

static void expect_status_as(gid_t gid, const char *request, int want)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0)
		_exit(status_as(gid, request) / 2); /* an exit status has eight bits */
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), want / 2);
}

/* A viewer gets through the socket's access list, and is then told what it may not do. */
static void lets_viewers_in(void **state)
{
	static const char read[] = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
	static const char change[] =
		"POST /v1/pools/tank/activate HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct group entry, *view = NULL;
	char names[4096];

	(void)state;
	(void)getgrnam_r("games", &entry, names, sizeof(names), &view);
	if (geteuid() != 0 || !view) {
		TM_SKIP("only root can become somebody else, and the group games is needed");
		return; /* for analysers: skip does not come back */
	}
	f.http = tm_http_free(f.http);
	f.config.view_group = "games";
	start_server();
	assert_int_equal(chmod(f.core->directory, 0711), 0);
	expect_status_as(view->gr_gid, read, 200);
	expect_status_as(view->gr_gid, change, 403);
	expect_status_as(12345, read, 0);
	assert_int_equal(f.core->n_submitted, 0);
}

/* ---- changes --------------------------------------------------------------------------------- */

static void accepts_changes(void **state)
{
	struct reply reply;
	char location[96];

	(void)state;
	reply = ask("POST", "/v1/pools/tank/volumes", "", "{\"name\":\"mail\",\"size\":1048576}");
	assert_int_equal(reply.status, 202);
	assert_string_equal(text_of(reply.json, "status"), "queued");
	(void)snprintf(location, sizeof(location), "Location: /v1/operations/%s",
		       text_of(reply.json, "id"));
	assert_non_null(strstr(reply.text, location));
	assert_int_equal(f.core->last.kind, TM_CMD_VOLUME_CREATE);
	assert_string_equal(f.core->last.pool, "tank");
	assert_string_equal(f.core->last.volume_create.name, "mail");
	assert_false(f.core->last.if_match_valid);
	done(&reply);

	reply = ask("PATCH", "/v1/pools/tank/volumes/home", "If-Match: \"3\", \"17\"\r\n",
		    "{\"size\":8589934592}");
	assert_int_equal(reply.status, 202);
	assert_int_equal(f.core->last.kind, TM_CMD_VOLUME_RESIZE);
	assert_string_equal(f.core->last.volume, "home");
	assert_true(f.core->last.if_match_valid);
	assert_int_equal(f.core->last.if_match, 17);
	done(&reply);

	reply = ask("DELETE", "/v1/pools/tank?with_volumes=true", "If-Match: *\r\n", NULL);
	assert_int_equal(reply.status, 202);
	assert_int_equal(f.core->last.kind, TM_CMD_POOL_DELETE);
	assert_true(f.core->last.pool_delete.with_volumes);
	assert_false(f.core->last.if_match_valid);
	done(&reply);

	reply = ask("POST", "/v1/pools/tank/snapshots", "",
		    "{\"snapshots\":[{\"volume\":\"home\",\"name\":\"monday\"}]}");
	assert_int_equal(reply.status, 202);
	assert_int_equal(f.core->last.kind, TM_CMD_SNAPSHOT_CREATE);
	assert_int_equal(f.core->last.snapshot.n_items, 1);
	done(&reply);
}

static void reaches_every_change(void **state)
{
	static const struct {
		const char *method, *path, *body;
		enum tm_command_kind kind;
	} cases[] = {
		{ "POST", "/v1/pools",
		  "{\"name\":\"new\",\"backing\":{\"kind\":\"file\",\"directory\":\"/srv/new\"},"
		  "\"data_size\":268435456}",
		  TM_CMD_POOL_CREATE },
		{ "POST", "/v1/pools/import", "{\"directory\":\"/srv/old\"}", TM_CMD_POOL_IMPORT },
		{ "DELETE", "/v1/pools/tank", NULL, TM_CMD_POOL_DELETE },
		{ "POST", "/v1/pools/tank/activate", NULL, TM_CMD_POOL_ACTIVATE },
		{ "POST", "/v1/pools/tank/deactivate", NULL, TM_CMD_POOL_DEACTIVATE },
		{ "POST", "/v1/pools/tank/repair", NULL, TM_CMD_POOL_REPAIR },
		{ "POST", "/v1/pools/tank/check", NULL, TM_CMD_POOL_CHECK },
		{ "POST", "/v1/pools/tank/check", "{\"copy\":true}", TM_CMD_POOL_CHECK },
		{ "POST", "/v1/pools/tank/repair", "{\"force\":true}", TM_CMD_POOL_REPAIR },
		{ "POST", "/v1/pools/tank/restore-metadata",
		  "{\"copy\":\"20261123T024512Z-repair\"}", TM_CMD_POOL_RESTORE },
		{ "POST", "/v1/pools/tank/extend", "{\"data_size\":1073741824}",
		  TM_CMD_POOL_EXTEND },
		{ "PATCH", "/v1/pools/tank/policy", "{\"when_full\":\"error\"}",
		  TM_CMD_POOL_POLICY },
		{ "PATCH", "/v1/pools/tank/volumes/home", "{\"name\":\"work\"}",
		  TM_CMD_VOLUME_RENAME },
		{ "DELETE", "/v1/pools/tank/volumes/home", NULL, TM_CMD_VOLUME_DELETE },
		{ "POST", "/v1/pools/tank/volumes/home/activate", NULL, TM_CMD_VOLUME_ACTIVATE },
		{ "POST", "/v1/pools/tank/volumes/home/deactivate", NULL,
		  TM_CMD_VOLUME_DEACTIVATE },
		{ "POST", "/v1/pools/tank/volumes/home/check", NULL, TM_CMD_VOLUME_CHECK },
		{ "POST", "/v1/pools/tank/volumes/home/clear-suspect", NULL, TM_CMD_VOLUME_CLEAR },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct reply reply = ask(cases[i].method, cases[i].path, "", cases[i].body);

		if (reply.status != 202)
			fail_msg("%s %s: %d %s", cases[i].method, cases[i].path, reply.status,
				 reply.body);
		assert_int_equal(f.core->last.kind, cases[i].kind);
		done(&reply);
	}
}

static void dry_runs(void **state)
{
	struct reply reply = ask("POST", "/v1/pools/tank/activate?dry_run=true&wait=5", "", NULL);

	(void)state;
	assert_int_equal(reply.status, 200);
	assert_true(json_is_null(json_object_get(reply.json, "id")));
	assert_null(strstr(reply.text, "Location:"));
	done(&reply);
}

static void passes_refusals_on(void **state)
{
	(void)state;
	(void)tm_error_field(&f.core->error, TM_ERR_NO_SPACE, "/size", "There is no room.");
	expect_problem("POST", "/v1/pools/tank/activate?wait=5", "", NULL, TM_ERR_NO_SPACE,
		       "/size");
	f.core->error = (struct tm_error){ .code = TM_ERR_BUSY };
	expect_problem("DELETE", "/v1/pools/tank/volumes/home", "", NULL, TM_ERR_BUSY, "");
}

static void waits_for_operations(void **state)
{
	struct reply reply;
	char path[100];
	int fd;

	(void)state;
	fd = dial();
	ask_on(fd, "POST", "/v1/pools/tank/activate?wait=30", "", NULL);
	assert_true(fake_wait_waited(f.core));
	fake_end_operation(f.core, TM_OP_DONE, TM_OK);
	reply = hear(fd);
	assert_int_equal(reply.status, 200);
	assert_string_equal(text_of(reply.json, "status"), "done");
	done(&reply);

	fd = dial();
	ask_on(fd, "POST", "/v1/pools/tank/activate?wait=30", "", NULL);
	assert_true(fake_wait_waited(f.core));
	fake_end_operation(f.core, TM_OP_FAILED, TM_ERR_KERNEL);
	reply = hear(fd);
	assert_int_equal(reply.status, 500);
	assert_string_equal(text_of(reply.json, "type"), "urn:thinmgr:error:kernel");
	assert_string_equal(text_of(json_object_get(reply.json, "operation"), "status"), "failed");
	done(&reply);

	/* Reading a failed one has not failed. */
	(void)snprintf(path, sizeof(path), "/v1/operations/%s?wait=5", f.core->live.id.text);
	reply = ask("GET", path, "", NULL);
	assert_int_equal(reply.status, 200);
	assert_string_equal(text_of(json_object_get(reply.json, "error"), "type"),
			    "urn:thinmgr:error:kernel");
	done(&reply);

	/* Longer than we wait. */
	reply = ask("POST", "/v1/pools/tank/activate?wait=1", "", NULL);
	assert_int_equal(reply.status, 202);
	assert_non_null(strstr(reply.text, "Location: "));
	(void)snprintf(path, sizeof(path), "/v1/operations/%s?wait=30", text_of(reply.json, "id"));
	done(&reply);

	fd = dial();
	ask_on(fd, "GET", path, "", NULL);
	assert_true(fake_wait_waited(f.core));
	fake_end_operation(f.core, TM_OP_DONE, TM_OK);
	reply = hear(fd);
	assert_int_equal(reply.status, 200);
	assert_string_equal(text_of(reply.json, "status"), "done");
	done(&reply);

	/* Cancelling is no failure, however it ends what it cancels; too late, it is one. */
	reply = ask("POST", "/v1/pools/tank/activate", "", NULL);
	assert_int_equal(reply.status, 202);
	(void)snprintf(path, sizeof(path), "/v1/operations/%s/cancel", text_of(reply.json, "id"));
	done(&reply);
	reply = ask("POST", path, "", NULL);
	assert_int_equal(reply.status, 200);
	assert_string_equal(text_of(json_object_get(reply.json, "error"), "type"),
			    "urn:thinmgr:error:cancelled");
	done(&reply);
	expect_problem("POST", path, "", NULL, TM_ERR_WRONG_STATE, "");
	(void)snprintf(path + strlen(path), sizeof(path) - strlen(path), "?wait=x");
	expect_problem("POST", path, "", NULL, TM_ERR_BAD_QUERY, "wait");
	expect_problem("POST", "/v1/operations/" FAKE_POOL_ID "/cancel", "", NULL, TM_ERR_NOT_FOUND,
		       "");

	reply = ask("GET", "/v1/operations?limit=1", "", NULL);
	assert_int_equal(json_array_size(json_object_get(reply.json, "items")), 1);
	assert_true(json_is_string(json_object_get(reply.json, "next")));
	done(&reply);
}

/* What an operation did can be seen a little after its row in the database says that it is done. */
static void lists_what_can_be_seen(void **state)
{
	struct tm_operation_record row;
	struct reply reply;
	json_t *items;

	(void)state;
	reply = ask("POST", "/v1/pools/tank/activate", "", NULL);
	assert_int_equal(reply.status, 202);
	done(&reply);
	{
		TM_LOCK_SCOPE(&f.core->lock);
		row = f.core->live;
		row.status = TM_OP_DONE;
		assert_int_equal(tm_store_put_operation(f.core->store, &row, NULL), 0);
	}
	reply = ask("GET", "/v1/operations", "", NULL);
	items = json_object_get(reply.json, "items");
	assert_int_equal(json_array_size(items), 1);
	assert_string_equal(text_of(json_array_get(items, 0), "status"), "queued");
	done(&reply);
	reply = ask("GET", "/v1/operations?status=done", "", NULL);
	assert_int_equal(json_array_size(json_object_get(reply.json, "items")), 0);
	done(&reply);
	fake_end_operation(f.core, TM_OP_DONE, TM_OK);
	reply = ask("GET", "/v1/operations?status=done", "", NULL);
	assert_int_equal(json_array_size(json_object_get(reply.json, "items")), 1);
	done(&reply);
}

/* Many more waits than threads: none of them is held. */
static void holds_no_thread(void **state)
{
	int fds[40];

	(void)state;
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->hold = true;
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(fds); i++) {
		fds[i] = dial();
		ask_on(fds[i], "POST", "/v1/pools/tank/activate", "", NULL);
	}
	assert_true(fake_wait_submitted(f.core, TM_ARRAY_SIZE(fds)));
	for (int i = 0; i < 20; i++) {
		struct reply reply = ask("GET", "/v1/health", "", NULL);

		assert_int_equal(reply.status, 200);
		done(&reply);
	}
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->hold = false;
		(void)pthread_cond_broadcast(&f.core->changed);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(fds); i++) {
		struct reply reply = hear(fds[i]);

		assert_int_equal(reply.status, 202);
		done(&reply);
	}
}

/* Callers hang up while the core works: before it has answered, and while it is waited for. */
static void survives_hangups(void **state)
{
	const unsigned int sockets = count_sockets();
	struct reply reply;
	int fd;

	(void)state;
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->hold = true;
	}
	for (int i = 0; i < 5; i++) {
		fd = dial();
		ask_on(fd, "POST", "/v1/pools/tank/activate?wait=60", "", NULL);
		assert_true(fake_wait_submitted(f.core, (unsigned int)i + 1));
		(void)close(fd);
	}
	assert_true(wait_sockets(sockets)); /* the keeper has seen that they are gone */
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->hold = false;
		(void)pthread_cond_broadcast(&f.core->changed);
	}
	fd = dial();
	ask_on(fd, "POST", "/v1/pools/tank/activate?wait=60", "", NULL);
	assert_true(fake_wait_waited(f.core));
	(void)close(fd);
	fake_end_operation(f.core, TM_OP_DONE, TM_OK);
	reply = ask("GET", "/v1/health", "", NULL);
	assert_int_equal(reply.status, 200);
	done(&reply);
}

static void stops_with_requests_waiting(void **state)
{
	static const char unfinished[] = "POST /v1/pools HTTP/1.1\r\nHost: localhost\r\n"
					 "Content-Type: application/json\r\n"
					 "Content-Length: 10\r\n\r\n{";
	struct reply reply;
	int unanswered, waiting, stream, half;
	uint64_t start;

	(void)state;
	waiting = dial();
	ask_on(waiting, "POST", "/v1/pools/tank/activate?wait=600", "", NULL);
	assert_true(fake_wait_waited(f.core));
	{
		TM_LOCK_SCOPE(&f.core->lock);
		f.core->hold = true;
	}
	unanswered = dial();
	ask_on(unanswered, "POST", "/v1/pools/tank/activate?wait=600", "", NULL);
	assert_true(fake_wait_submitted(f.core, 2));
	stream = dial();
	ask_on(stream, "GET", "/v1/events", "Accept: text/event-stream\r\n", NULL);
	half = dial();
	say(half, unfinished, sizeof(unfinished) - 1);
	assert_true(wait_read(stream));
	assert_true(wait_read(half));

	start = tm_now_monotonic_usec();
	f.http = tm_http_free(f.http);
	assert_true(tm_now_monotonic_usec() - start < 3000000);
	assert_int_equal(access(f.path, F_OK), -1);

	reply = hear(waiting);
	assert_int_equal(reply.status, 503);
	assert_string_equal(text_of(reply.json, "type"), "urn:thinmgr:error:shutting-down");
	done(&reply);
	reply = hear(unanswered);
	assert_int_equal(reply.status, 503);
	done(&reply);
	reply = hear(stream);
	assert_int_equal(reply.status, 200);
	assert_non_null(strstr(reply.body, "\r\n0\r\n"));
	done(&reply);
	(void)close(half);
	/* The core's callbacks come afterwards (in the teardown), to nobody. */
}

/* ---- streams --------------------------------------------------------------------------------- */

struct listener {
	int fd;
	char text[65536];
	size_t used;
};

static void listen_from(struct listener *l, const char *path, const char *headers)
{
	char all[256];

	l->fd = dial();
	l->used = 0;
	l->text[0] = '\0';
	(void)snprintf(all, sizeof(all), "Accept: text/event-stream\r\n%s", headers);
	ask_on(l->fd, "GET", path, all, NULL);
}

/* Read until @text has been seen; false after @ms without. */
static bool hear_until(struct listener *l, const char *text, int ms)
{
	uint64_t limit = tm_now_monotonic_usec() + (uint64_t)ms * 1000;

	while (!strstr(l->text, text)) {
		struct pollfd p = { .fd = l->fd, .events = POLLIN };
		uint64_t now = tm_now_monotonic_usec();
		ssize_t n;

		if (now >= limit || poll(&p, 1, (int)((limit - now) / 1000) + 1) <= 0)
			return false;
		n = recv(l->fd, l->text + l->used, sizeof(l->text) - 1 - l->used, 0);
		if (n <= 0)
			return false;
		l->used += (size_t)n;
		l->text[l->used] = '\0';
	}
	return true;
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void streams(void **state)
{
	struct listener *l = calloc(1, sizeof(*l));
	uint64_t start;

	(void)state;
	assert_non_null(l);
	(void)fake_events(f.core, TM_EVENT_POOL_CREATED, 3);
	listen_from(l, "/v1/events", "");
	assert_true(hear_until(l, ": connected", 5000));
	assert_non_null(strstr(l->text, "Content-Type: text/event-stream"));
	/* From now on only; at once. */
	start = tm_now_monotonic_usec();
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 1);
	assert_true(hear_until(l, "id: 4\nevent: extended\ndata: {", 5000));
	assert_true(tm_now_monotonic_usec() - start < 2000000);
	assert_null(strstr(l->text, "id: 3\n"));
	/* A quiet stream says so now and then, and goes on. */
	assert_true(hear_until(l, ": nothing new\n\n", 5000));
	(void)fake_events(f.core, TM_EVENT_LOW_SPACE, 200);
	assert_true(hear_until(l, "id: 204\n", 5000));
	assert_int_equal(count(l->text, "event: low-space\n"), 200);
	(void)close(l->fd);
	free(l);
}

static void resumes_streams(void **state)
{
	struct listener *l = calloc(1, sizeof(*l));

	(void)state;
	assert_non_null(l);
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 100);
	listen_from(l, "/v1/events", "Last-Event-ID: 2\r\n");
	assert_true(hear_until(l, "id: 100\n", 5000));
	assert_null(strstr(l->text, "id: 2\n"));
	assert_int_equal(count(l->text, "event: extended\n"), 98);
	(void)close(l->fd);

	/* The daemon restarts; events come before anybody is back. */
	f.http = tm_http_free(f.http);
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 5);
	start_server();
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 5);
	listen_from(l, "/v1/events", "Last-Event-ID: 100\r\n");
	assert_true(hear_until(l, "id: 110\n", 5000));
	assert_int_equal(count(l->text, "event: extended\n"), 10);
	(void)close(l->fd);

	listen_from(l, "/v1/events?after=109", "");
	assert_true(hear_until(l, "id: 110\n", 5000));
	assert_int_equal(count(l->text, "event: extended\n"), 1);
	(void)close(l->fd);

	/* A number of another database: everything is new. */
	listen_from(l, "/v1/events", "Last-Event-ID: 9000\r\n");
	assert_true(hear_until(l, "id: 110\n", 5000));
	assert_int_equal(count(l->text, "event: extended\n"), 110);
	(void)close(l->fd);
	free(l);
}

static void filters_streams(void **state)
{
	struct listener *l = calloc(1, sizeof(*l));

	(void)state;
	assert_non_null(l);
	listen_from(l, "/v1/events?severity=critical&pool=tank", "");
	assert_true(hear_until(l, ": connected", 5000));
	(void)fake_events(f.core, TM_EVENT_EXTENDED, 70);
	(void)fake_events(f.core, TM_EVENT_NEEDS_CHECK, 1);
	assert_true(hear_until(l, "id: 71\nevent: needs-check\n", 5000));
	assert_null(strstr(l->text, "event: extended"));
	(void)close(l->fd);
	listen_from(l, "/v1/events?pool=idle&type=extended", "Last-Event-ID: 0\r\n");
	assert_true(hear_until(l, ": nothing new", 5000));
	assert_null(strstr(l->text, "id: "));
	(void)close(l->fd);
	free(l);
}

static void limits_streams(void **state)
{
	struct listener *l = calloc(MAX_STREAMS + 1, sizeof(*l));
	bool again = false;

	(void)state;
	assert_non_null(l);
	for (int i = 0; i < MAX_STREAMS; i++) {
		listen_from(&l[i], "/v1/events", "");
		assert_true(hear_until(&l[i], ": connected", 5000));
	}
	expect_problem("GET", "/v1/events", "Accept: text/event-stream\r\n", NULL, TM_ERR_TOO_MANY,
		       "");
	/* Those that are closed make room, though nothing is said on them. */
	for (int i = 0; i < MAX_STREAMS; i++)
		(void)close(l[i].fd);
	for (uint64_t end = tm_now_monotonic_usec() + 10 * TM_USEC_PER_SEC;
	     !again && pause_until(end);) {
		listen_from(&l[MAX_STREAMS], "/v1/events", "");
		again = hear_until(&l[MAX_STREAMS], ": connected", 5000);
		(void)close(l[MAX_STREAMS].fd);
	}
	assert_true(again);
	free(l);
}

/* Whoever does not read is dropped and holds nobody up. */
static void drops_slow_readers(void **state)
{
	struct listener *slow = calloc(1, sizeof(*slow)), *quick = calloc(1, sizeof(*quick));
	struct pollfd p;

	(void)state;
	assert_non_null(slow);
	assert_non_null(quick);
	listen_from(slow, "/v1/events", "");
	assert_true(hear_until(slow, ": connected", 5000));
	listen_from(quick, "/v1/events", "");
	assert_true(hear_until(quick, ": connected", 5000));
	for (int i = 0; i < 20; i++) {
		char last[32];

		(void)snprintf(last, sizeof(last), "id: %llu\n",
			       (unsigned long long)fake_events(f.core, TM_EVENT_EXTENDED, 100));
		quick->used = 0;
		assert_true(hear_until(quick, last, 5000));
	}
	(void)close(quick->fd);
	p = (struct pollfd){ .fd = slow->fd, .events = POLLRDHUP };
	assert_int_equal(poll(&p, 1, 10000), 1);
	(void)close(slow->fd);
	free(slow);
	free(quick);
}

static void refuses_a_bad_start(void **state)
{
	struct tm_http_config config = f.config;
	struct tm_error err = { 0 };
	struct tm_http *http = NULL;

	(void)state;
	/* The socket is taken (by ourselves), then the port. */
	assert_int_equal(tm_http_new(f.core, &config, &http, &err), -EADDRINUSE);
	assert_int_equal(err.code, TM_ERR_IO);
	assert_null(http);
	config.socket_path = NULL;
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_http_new(f.core, &config, &http, &err), -EADDRINUSE);
	assert_null(tm_http_free(NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(answers_reads),
		TEST(shows_pools),
		TEST(pages_lists),
		TEST(events_are_waited_for),
		TEST(keeps_connections),
		TEST(says_when_it_is_not_ready),
		TEST(refuses),
		TEST(refuses_headers),
		TEST(limits_bodies),
		TEST(ends_slow_bodies),
		TEST(survives_garbage),
		TEST(guards_loopback),
		TEST(knows_peers),
		TEST(sets_up_sockets),
		TEST(lets_viewers_in),
		TEST(accepts_changes),
		TEST(reaches_every_change),
		TEST(dry_runs),
		TEST(passes_refusals_on),
		TEST(waits_for_operations),
		TEST(lists_what_can_be_seen),
		TEST(holds_no_thread),
		TEST(survives_hangups),
		TEST(stops_with_requests_waiting),
		TEST(streams),
		TEST(resumes_streams),
		TEST(filters_streams),
		TEST(limits_streams),
		TEST(drops_slow_readers),
		TEST(refuses_a_bad_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
