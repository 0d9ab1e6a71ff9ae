/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "document.h"

#define ANSWER_LIMIT (64u * 1024 * 1024)

/* A stream says something at least every 30 s; three times that is a dead connection. */
#define STREAM_SILENCE_SECONDS 90L

struct cli_client {
	CURLM *multi;
	CURL *easy;
	char *socket;
	char *user_agent;
	int interrupt_fd;
};

/* ---- addresses ------------------------------------------------------------------------------ */

static void url_char(struct cli_url *u, char c)
{
	if (u->len + 1 >= sizeof(u->text)) {
		u->overflow = true;
		return;
	}
	u->text[u->len++] = c;
	u->text[u->len] = '\0';
}

static void url_encoded(struct cli_url *u, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if ((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') ||
		    (*p >= 'a' && *p <= 'z') || strchr("-._~", *p)) {
			url_char(u, (char)*p);
		} else {
			url_char(u, '%');
			url_char(u, hex[*p >> 4]);
			url_char(u, hex[*p & 15]);
		}
	}
}

void cli_url_init(struct cli_url *u, const char *path)
{
	u->text[0] = '\0';
	u->len = 0;
	u->query = false;
	u->overflow = false;
	cli_url_add(u, path);
}

void cli_url_add(struct cli_url *u, const char *literal)
{
	for (; *literal; literal++)
		url_char(u, *literal);
}

void cli_url_segment(struct cli_url *u, const char *segment)
{
	url_char(u, '/');
	url_encoded(u, segment);
}

void cli_url_query(struct cli_url *u, const char *name, const char *value)
{
	url_char(u, u->query ? '&' : '?');
	u->query = true;
	url_encoded(u, name);
	url_char(u, '=');
	url_encoded(u, value);
}

void cli_url_query_uint(struct cli_url *u, const char *name, unsigned long long value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%llu", value);
	cli_url_query(u, name, text);
}

/* ---- the client ----------------------------------------------------------------------------- */

void cli_response_done(struct cli_response *r)
{
	free(r->body);
	json_decref(r->document);
	*r = (struct cli_response){ 0 };
}

int cli_client_new(const char *socket, const char *user_agent, struct cli_client **ret,
		   struct tm_error *err)
{
	cli_auto_client struct cli_client *c = calloc(1, sizeof(*c));
	const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (!c)
		goto no_memory;
	if (strlen(socket) > most)
		return tm_error_set(err, TM_ERR_BAD_PATH, ENAMETOOLONG,
				    "a socket's path has at most %zu bytes, this one has %zu", most,
				    strlen(socket));
	c->interrupt_fd = -1;
	c->socket = strdup(socket);
	c->user_agent = strdup(user_agent);
	c->multi = curl_multi_init();
	c->easy = curl_easy_init();
	if (!c->socket || !c->user_agent || !c->multi || !c->easy)
		goto no_memory;
	*ret = TM_TAKE(c);
	return 0;

no_memory:
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
}

struct cli_client *cli_client_free(struct cli_client *c)
{
	if (!c)
		return NULL;
	if (c->easy)
		curl_easy_cleanup(c->easy);
	if (c->multi)
		(void)curl_multi_cleanup(c->multi);
	free(c->socket);
	free(c->user_agent);
	free(c);
	return NULL;
}

void cli_client_set_interrupt(struct cli_client *c, int fd)
{
	c->interrupt_fd = fd;
}

struct transfer {
	CURL *easy;
	struct cli_response *response;
	size_t room;
	/* Streams. */
	struct cli_sse *sse;
	cli_sse_fn fn;
	void *userdata;
	int stopped; /* why receiving ended early: an errno or what @fn returned */
};

static size_t receive(char *bytes, size_t size, size_t count, void *userdata)
{
	struct transfer *t = userdata;
	struct cli_response *r = t->response;
	size_t n = size * count;
	long status = 0;
	char *type = NULL;

	if (t->sse && curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
	    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && status == 200 &&
	    type && strncasecmp(type, "text/event-stream", strlen("text/event-stream")) == 0) {
		r->event_stream = true;
		t->stopped = cli_sse_feed(t->sse, bytes, n, t->fn, t->userdata);
		return t->stopped ? CURL_WRITEFUNC_ERROR : n;
	}
	if (n > ANSWER_LIMIT || r->len + n > ANSWER_LIMIT) {
		t->stopped = -EMSGSIZE;
		return CURL_WRITEFUNC_ERROR;
	}
	if (r->len + n + 1 > t->room) {
		size_t want = 2 * (r->len + n + 1);
		char *bigger = realloc(r->body, want);

		if (!bigger) {
			t->stopped = -ENOMEM;
			return CURL_WRITEFUNC_ERROR;
		}
		r->body = bigger;
		t->room = want;
	}
	memcpy(r->body + r->len, bytes, n);
	r->len += n;
	r->body[r->len] = '\0';
	return n;
}

/* Runs the prepared transfer; its result in *ret. 0, -EINTR, or -EIO when libcurl itself failed. */
static int run(struct cli_client *c, CURLcode *ret)
{
	struct curl_waitfd extra = { .fd = c->interrupt_fd, .events = CURL_WAIT_POLLIN };
	unsigned int n_extra = c->interrupt_fd >= 0 ? 1 : 0;
	int running = 1, left;
	int r = 0;

	if (curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
		return -EIO;
	for (;;) {
		CURLMsg *message;

		if (curl_multi_perform(c->multi, &running) != CURLM_OK) {
			r = -EIO;
			break;
		}
		message = curl_multi_info_read(c->multi, &left);
		if (message && message->msg == CURLMSG_DONE) {
			*ret = message->data.result;
			break;
		}
		if (running == 0) {
			r = -EIO;
			break;
		}
		extra.revents = 0;
		if (curl_multi_poll(c->multi, n_extra ? &extra : NULL, n_extra, 60000, NULL) !=
		    CURLM_OK) {
			r = -EIO;
			break;
		}
		if (n_extra && extra.revents) {
			r = -EINTR;
			break;
		}
	}
	(void)curl_multi_remove_handle(c->multi, c->easy);
	return r;
}

static int unreachable(struct cli_client *c, struct tm_error *err)
{
	long errnum = 0;

	if (curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &errnum) != CURLE_OK || errnum <= 0)
		errnum = ECONNREFUSED;
	if (errnum == EACCES || errnum == EPERM) {
		(void)tm_error_set(err, TM_ERR_FORBIDDEN, EACCES,
				   "the daemon's socket %s may not be used by this user",
				   c->socket);
		tm_error_hint(err, "ask as root, or join the group thinmgr (to look only: "
				   "thinmgr-view)");
		return -EACCES;
	}
	(void)tm_error_set(err, TM_ERR_SHUTTING_DOWN, ECONNREFUSED,
			   "thinmgrd does not answer at %s: %s", c->socket, strerror((int)errnum));
	tm_error_hint(err, "is it running? See 'systemctl status thinmgrd'");
	return -ECONNREFUSED;
}

static int transfer_error(struct cli_client *c, CURLcode code, const struct transfer *t,
			  struct tm_error *err)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
		return unreachable(c, err);
	case CURLE_OPERATION_TIMEDOUT:
		return tm_error_set(err, TM_ERR_TIMEOUT, ETIMEDOUT,
				    "thinmgrd did not answer in time");
	case CURLE_OUT_OF_MEMORY:
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	case CURLE_WRITE_ERROR:
		if (t->stopped == -ENOMEM)
			return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
		if (t->stopped == -EMSGSIZE)
			return tm_error_set(err, TM_ERR_INTERNAL, EPROTO,
					    "the answer is larger than any that thinmgrd gives");
		return t->stopped ? t->stopped : -EIO;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
		return tm_error_set(err, TM_ERR_INTERNAL, EPROTO,
				    "what answers at %s is not thinmgrd", c->socket);
	default:
		(void)tm_error_set(err, TM_ERR_SHUTTING_DOWN, ECONNRESET,
				   "the connection to thinmgrd was cut off: %s",
				   curl_easy_strerror(code));
		tm_error_hint(err, "if it was restarted, see 'thinmgr operation list' for what "
				   "became of a change");
		return -ECONNRESET;
	}
}

/* What every request has in common. */
static CURLcode prepare(struct cli_client *c, const char *url, struct transfer *t,
			struct curl_slist *headers)
{
	CURL *e = c->easy;
	CURLcode r = CURLE_OK;

	curl_easy_reset(e);
#define SET(option, value)                                          \
	do {                                                        \
		if (r == CURLE_OK)                                  \
			r = curl_easy_setopt(e, (option), (value)); \
	} while (0)
	SET(CURLOPT_UNIX_SOCKET_PATH, c->socket);
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, "http");
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_USERAGENT, c->user_agent);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_CONNECTTIMEOUT, 10L);
	SET(CURLOPT_WRITEFUNCTION, receive);
	SET(CURLOPT_WRITEDATA, t);
#undef SET
	return r;
}

/* Adds a line to *list; false when out of memory. */
static bool add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (!longer)
		return false;
	*list = longer;
	return true;
}

static void slist_freep(struct curl_slist **list)
{
	curl_slist_free_all(*list);
}

static int full_url(const struct cli_url *url, char *buf, size_t len, struct tm_error *err)
{
	if (url->overflow || (size_t)snprintf(buf, len, "http://localhost%s", url->text) >= len)
		return tm_error_set(err, TM_ERR_BAD_QUERY, EINVAL, "the request is too long");
	return 0;
}

/* Reads the body, and the status that belongs to it. */
static int take_document(struct cli_client *c, struct cli_response *r, struct tm_error *err)
{
	json_error_t fault;

	if (curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &r->status) != CURLE_OK)
		r->status = 0;
	if (r->len == 0)
		return 0;
	r->document = json_loadb(r->body, r->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
	if (!r->document)
		return tm_error_set(err, TM_ERR_INTERNAL, EPROTO,
				    "the answer (status %ld) is not valid JSON: %s", r->status,
				    fault.text);
	return 0;
}

int cli_client_request(struct cli_client *c, const char *method, const struct cli_url *url,
		       const json_t *body, unsigned int patience_seconds, struct cli_response *ret,
		       struct tm_error *err)
{
	__attribute__((cleanup(slist_freep))) struct curl_slist *headers = NULL;
	cli_auto_response struct cli_response response = { 0 };
	struct transfer t = { .easy = c->easy, .response = &response };
	tm_auto_free char *text = NULL;
	char address[sizeof(url->text) + 32];
	CURLcode code = CURLE_OK;
	int r = full_url(url, address, sizeof(address), err);

	if (r < 0)
		return r;
	if (!add_header(&headers, "Accept: application/json, application/problem+json") ||
	    !add_header(&headers, "Expect:"))
		goto no_memory;
	if (body) {
		text = json_dumps(body, JSON_COMPACT);
		if (!text || !add_header(&headers, "Content-Type: application/json"))
			goto no_memory;
	}
	code = prepare(c, address, &t, headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, method);
	if (code == CURLE_OK && (text || strcmp(method, "POST") == 0))
		code = curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, text ? text : "");
	/* Without a body a POST has a length of 0 and no type. */
	if (code == CURLE_OK && !text && strcmp(method, "POST") == 0 &&
	    !add_header(&headers, "Content-Type:"))
		goto no_memory;
	if (code == CURLE_OK)
		code = curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(c->easy, CURLOPT_TIMEOUT, (long)patience_seconds);
	if (code != CURLE_OK)
		goto no_memory;

	r = run(c, &code);
	if (r == -EINTR)
		return r;
	if (r < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, EIO, "the HTTP client failed");
	r = transfer_error(c, code, &t, err);
	if (r < 0)
		return r;
	r = take_document(c, &response, err);
	if (r < 0)
		return r;
	*ret = response;
	response = (struct cli_response){ 0 };
	return 0;

no_memory:
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "the request could not be prepared");
}

/* Only what a header line may hold: an id is the daemon's, but it came over a wire. */
static bool printable(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

int cli_client_stream(struct cli_client *c, const struct cli_url *url, const char *last_id,
		      struct cli_sse *sse, cli_sse_fn fn, void *userdata, struct cli_response *ret,
		      struct tm_error *err)
{
	__attribute__((cleanup(slist_freep))) struct curl_slist *headers = NULL;
	cli_auto_response struct cli_response response = { 0 };
	struct transfer t = {
		.easy = c->easy, .response = &response, .sse = sse, .fn = fn, .userdata = userdata
	};
	char address[sizeof(url->text) + 32], line[128];
	CURLcode code;
	int r = full_url(url, address, sizeof(address), err);

	if (r < 0)
		return r;
	if (!add_header(&headers, "Accept: text/event-stream, application/problem+json"))
		goto no_memory;
	if (*last_id && printable(last_id)) {
		(void)snprintf(line, sizeof(line), "Last-Event-ID: %s", last_id);
		if (!add_header(&headers, line))
			goto no_memory;
	}
	code = prepare(c, address, &t, headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_TIME, STREAM_SILENCE_SECONDS);
	if (code != CURLE_OK)
		goto no_memory;

	r = run(c, &code);
	if (r == -EINTR)
		return r;
	if (r < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, EIO, "the HTTP client failed");
	if (code == CURLE_WRITE_ERROR && t.stopped > 0)
		return t.stopped;
	r = transfer_error(c, code, &t, err);
	if (r < 0)
		return r;
	if (curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &response.status) != CURLE_OK)
		response.status = 0;
	if (!response.event_stream && response.status != 200) {
		r = take_document(c, &response, err);
		if (r < 0)
			return r;
	}
	*ret = response;
	response = (struct cli_response){ 0 };
	return 0;

no_memory:
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "the request could not be prepared");
}

/* ---- problems ------------------------------------------------------------------------------- */

static enum tm_error_code guess_code(long status)
{
	switch (status) {
	case 400:
		return TM_ERR_BAD_QUERY;
	case 401:
	case 403:
		return TM_ERR_FORBIDDEN;
	case 404:
		return TM_ERR_NOT_FOUND;
	case 409:
	case 412:
		return TM_ERR_WRONG_STATE;
	case 504:
		return TM_ERR_TIMEOUT;
	case 507:
		return TM_ERR_NO_SPACE;
	default:
		return TM_ERR_INTERNAL;
	}
}

void cli_problem_to_error(const json_t *problem, long status, struct tm_error *err, bool *ret_known)
{
	static const char prefix[] = "urn:thinmgr:error:";
	const char *type = cli_string(problem, "type");
	const char *detail = cli_string(problem, "detail");
	const char *field = cli_string(problem, "field");
	enum tm_error_code code = TM_OK;

	if (strncmp(type, prefix, sizeof(prefix) - 1) == 0)
		code = tm_error_from_slug(type + sizeof(prefix) - 1);
	*ret_known = code != TM_OK;
	if (code == TM_OK)
		code = guess_code(status);
	if (!*detail)
		detail = cli_string(problem, "title");

	*err = (struct tm_error){ .code = code };
	if (*detail)
		(void)snprintf(err->detail, sizeof(err->detail), "%s", detail);
	else
		(void)snprintf(err->detail, sizeof(err->detail),
			       "the daemon answered with status %ld and no explanation", status);
	(void)snprintf(err->field, sizeof(err->field), "%s", field);
	(void)snprintf(err->hint, sizeof(err->hint), "%s", cli_string(problem, "hint"));
}
