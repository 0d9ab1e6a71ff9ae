// SPDX-License-Identifier: GPL-2.0-or-later
/* Paths to routes, and percent decoding. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/router.h"
#include "common/cleanup.h"

#define ID "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f"

static int match(const char *method, const char *path, struct tm_match *ret, struct tm_error *err)
{
	*err = (struct tm_error){ 0 };
	return tm_router_match(method, path, strlen(path), ret, err);
}

static void finds_routes(void **state)
{
	static const struct {
		const char *method, *path, *operation, *first, *second;
	} cases[] = {
		{ "GET", "/v1/system", "getSystem", "", "" },
		{ "GET", "/v1/pools", "listPools", "", "" },
		{ "POST", "/v1/pools", "createPool", "", "" },
		{ "POST", "/v1/pools/import", "importPool", "", "" },
		{ "GET", "/v1/pools/tank", "getPool", "tank", "" },
		{ "GET", "/v1/pools/" ID, "getPool", ID, "" },
		{ "GET", "/v1/pools/%74%61nk", "getPool", "tank", "" },
		/* A pool may be called like an action. */
		{ "GET", "/v1/pools/import", "getPool", "import", "" },
		{ "DELETE", "/v1/pools/import", "deletePool", "import", "" },
		{ "GET", "/v1/pools/volumes/volumes/volumes", "getVolume", "volumes", "volumes" },
		{ "DELETE", "/v1/pools/tank", "deletePool", "tank", "" },
		{ "POST", "/v1/pools/tank/extend", "extendPool", "tank", "" },
		{ "PATCH", "/v1/pools/tank/policy", "patchPoolPolicy", "tank", "" },
		{ "GET", "/v1/pools/tank/history", "getPoolHistory", "tank", "" },
		{ "PATCH", "/v1/pools/tank/volumes/home", "patchVolume", "tank", "home" },
		{ "POST", "/v1/pools/tank/volumes/home/activate", "activateVolume", "tank",
		  "home" },
		{ "POST", "/v1/pools/tank/snapshots", "createSnapshots", "tank", "" },
		{ "GET", "/v1/operations/" ID, "getOperation", ID, "" },
		{ "GET", "/%76%31/events", "listEvents", "", "" },
	};
	struct tm_match m;
	struct tm_error err;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(match(cases[i].method, cases[i].path, &m, &err), 0);
		assert_non_null(m.route);
		assert_string_equal(m.route->operation_id, cases[i].operation);
		assert_string_equal(m.params[0], cases[i].first);
		assert_string_equal(m.params[1], cases[i].second);
		assert_int_equal(m.n_params, !!cases[i].first[0] + !!cases[i].second[0]);
		assert_false(m.head);
	}
}

static void refuses_paths(void **state)
{
	static const struct {
		const char *path;
		int result;
		enum tm_error_code code;
	} cases[] = {
		{ "", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/", -ENOENT, TM_ERR_NO_ROUTE },
		{ "*", -ENOENT, TM_ERR_NO_ROUTE },
		{ "v1/pools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "http://localhost/v1/pools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1/pools/", -ENOENT, TM_ERR_NO_ROUTE },
		{ "//v1/pools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1//pools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/V1/pools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1/poolss", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1/pool", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1%2fpools", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1/pools/tank/volumes/home/activate/x", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/a/b/c/d/e/f/g/h/i/j/k/l", -ENOENT, TM_ERR_NO_ROUTE },
		{ "/v1/pools/../system", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/..", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/./pools", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%2e%2E", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%00", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/tank%00", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/a%0ab", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/a%7f", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/a%2", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/a%zz", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/a%2g", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%ff", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%c0%af", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%ed%a0%80", -EINVAL, TM_ERR_BAD_PATH },
		{ "/v1/pools/%2e%2e%2fetc", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/a%2fb", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/a%20b", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/-a", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/%c3%a9", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/a:b", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/tank/volumes/a+b", -EINVAL, TM_ERR_BAD_NAME },
		{ "/v1/pools/tank#x", -EINVAL, TM_ERR_BAD_NAME },
	};
	struct tm_match m;
	struct tm_error err;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		int r = match("GET", cases[i].path, &m, &err);

		if (r != cases[i].result || err.code != cases[i].code)
			fail_msg("%s: %d, %s", cases[i].path, r, tm_error_slug(err.code));
		assert_true(err.detail[0]);
		/* Without room for an error too. */
		assert_int_equal(
			tm_router_match("GET", cases[i].path, strlen(cases[i].path), &m, NULL), r);
	}
}

static void limits_lengths(void **state)
{
	char path[TM_PATH_RAW_MAX + 64];
	struct tm_match m;
	struct tm_error err;
	size_t base;

	(void)state;
	base = (size_t)snprintf(path, sizeof(path), "/v1/pools/");
	memset(path + base, 'a', sizeof(path) - base);
	path[base + TM_NAME_MAX] = '\0';
	assert_int_equal(match("GET", path, &m, &err), 0);
	assert_int_equal(strlen(m.params[0]), TM_NAME_MAX);

	path[base + TM_NAME_MAX] = 'a';
	path[base + TM_NAME_MAX + 1] = '\0';
	assert_int_equal(match("GET", path, &m, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_NAME);

	path[base + TM_NAME_MAX + 1] = 'a';
	path[base + 500] = '\0';
	assert_int_equal(match("GET", path, &m, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_PATH);

	path[base + 500] = 'a';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(match("GET", path, &m, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_PATH);
}

static void tells_methods(void **state)
{
	static const struct {
		const char *path, *allow;
	} cases[] = {
		{ "/v1/system", "GET, HEAD, OPTIONS" },
		{ "/v1/pools", "GET, HEAD, POST, OPTIONS" },
		{ "/v1/pools/tank", "GET, HEAD, DELETE, OPTIONS" },
		{ "/v1/pools/import", "GET, HEAD, POST, DELETE, OPTIONS" },
		{ "/v1/pools/tank/volumes/home", "GET, HEAD, PATCH, DELETE, OPTIONS" },
		{ "/v1/pools/tank/activate", "POST, OPTIONS" },
	};
	static const char *const methods[] = { "PUT", "TRACE", "CONNECT", "get", "", "GETX" };
	struct tm_match m;
	struct tm_error err;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		for (size_t j = 0; j < TM_ARRAY_SIZE(methods); j++) {
			assert_int_equal(match(methods[j], cases[i].path, &m, &err), -EOPNOTSUPP);
			assert_int_equal(err.code, TM_ERR_METHOD);
			assert_string_equal(m.allow, cases[i].allow);
			assert_null(m.route);
		}
		assert_int_equal(match("OPTIONS", cases[i].path, &m, &err), 0);
		assert_true(m.options);
		assert_string_equal(m.allow, cases[i].allow);
	}
	assert_int_equal(match("HEAD", "/v1/pools/tank", &m, &err), 0);
	assert_true(m.head);
	assert_string_equal(m.route->operation_id, "getPool");
	assert_int_equal(match("HEAD", "/v1/pools/tank/activate", &m, &err), -EOPNOTSUPP);
	assert_int_equal(match("OPTIONS", "/v1/nothing", &m, &err), -ENOENT);
}

static void reaches_every_route(void **state)
{
	static const char *const methods[] = { "GET", "POST", "PATCH", "DELETE" };
	const struct tm_route *routes;
	struct tm_match m;
	struct tm_error err;
	size_t n;

	(void)state;
	routes = tm_router_routes(&n);
	assert_true(n > 20);
	for (size_t i = 0; i < n; i++) {
		char path[256] = "";

		/* Put a name where the template has a parameter. */
		for (const char *p = routes[i].path; *p; p++) {
			size_t used = strlen(path);

			if (*p == '{') {
				(void)snprintf(path + used, sizeof(path) - used, "tank");
				p = strchr(p, '}');
				assert_non_null(p);
			} else {
				path[used] = *p;
				path[used + 1] = '\0';
			}
		}
		assert_int_equal(match(methods[routes[i].method], path, &m, &err), 0);
		assert_ptr_equal(m.route, &routes[i]);
		assert_non_null(routes[i].handler);
		/* Reading is for viewers, changing for administrators. */
		assert_int_equal(routes[i].permission, routes[i].method == TM_METHOD_GET
							       ? TM_PERMIT_VIEW
							       : TM_PERMIT_ADMIN);
		assert_false(routes[i].takes_body && (routes[i].method == TM_METHOD_GET ||
						      routes[i].method == TM_METHOD_DELETE));
	}
}

static void decodes(void **state)
{
	static const struct {
		const char *text, *want;
		size_t size;
		int result;
	} cases[] = {
		{ "", "", 1, 0 },
		{ "abc", "abc", 4, 0 },
		{ "abc", "ab", 3, -ENAMETOOLONG },
		{ "%41", "A", 2, 0 },
		{ "%4", "", 8, -EINVAL },
		{ "%", "", 8, -EINVAL },
		{ "x%4", "", 8, -EINVAL },
		{ "%e2%82%ac+", "\xe2\x82\xac+", 8, 0 },
		{ "%25%32%35", "%25", 8, 0 },
		{ "a", "", 0, -ENAMETOOLONG },
		{ "%01", "", 8, -EINVAL },
	};
	char buf[8];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			tm_percent_decode(cases[i].text, strlen(cases[i].text), buf, cases[i].size),
			cases[i].result);
		if (cases[i].result == 0)
			assert_string_equal(buf, cases[i].want);
	}
	assert_int_equal(tm_percent_decode("a\0b", 3, buf, sizeof(buf)), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_routes),        cmocka_unit_test(refuses_paths),
		cmocka_unit_test(limits_lengths),      cmocka_unit_test(tells_methods),
		cmocka_unit_test(reaches_every_route), cmocka_unit_test(decodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
