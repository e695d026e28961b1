/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key-value server as a client sees it: requests and the replies to them.
 * Each conversation is run with the input whole, and cut at every place, and cut
 * into pieces of every length, and with a sink that is often full: the replies
 * must not depend on any of it.
 */
#include "check.h"

#include "plain.h"

struct conversation {
  const char *says;    /* what it shows */
  const char *request; /* may hold no NUL */
  const char *reply;
  bool closes;
};

static const struct conversation conversations[] = {
    {"an array of bulk strings is a command", "*1\r\n$4\r\nPING\r\n", "+PONG\r\n", false},
    {"a line is a command, whatever its case", "ping\r\nPiNg hello\n", "+PONG\r\n$5\r\nhello\r\n", false},
    {"empty arrays and empty lines are nothing", "*0\r\n\r\n*-1\r\n   \r\nPING\r\n", "+PONG\r\n", false},
    {"pipelined commands are answered in order",
     "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nDEL\r\n$"
     "1\r\nk\r\nGET k\r\n",
     "+OK\r\n$5\r\nhello\r\n:1\r\n$-1\r\n", false},
    {"quotes hold blanks and escapes", "ECHO \"a b\\x41\\n\\\"\"\r\nECHO 'it\\'s'\r\nECHO \"\"\r\n",
     "$6\r\na bA\n\"\r\n$4\r\nit's\r\n$0\r\n\r\n", false},
    {"quotes must balance", "ECHO \"a\r\nPING\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n",
     true},
    {"a quote must end its word", "ECHO \"a\"b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n",
     true},
    {"the length of an array is a number", "*x\r\nPING\r\n",
     "-ERR Protocol error: invalid multibulk length\r\n", true},
    {"an array is not longer than the limit", "*65537\r\n",
     "-ERR Protocol error: invalid multibulk length\r\n", true},
    {"every element is a bulk string", "*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n",
     true},
    {"also where its line is empty", "*1\r\n\r\n", "-ERR Protocol error: expected '$', got ' '\r\n", true},
    {"the length of a bulk string is not negative", "*1\r\n$-1\r\n",
     "-ERR Protocol error: invalid bulk length\r\n", true},
    {"nor has it a leading zero", "*1\r\n$04\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n",
     true},
    {"nor does it exceed 512 KiB", "*1\r\n$524289\r\n", "-ERR Protocol error: invalid bulk length\r\n", true},
    {"what follows a bad request is not run", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$x\r\nDBSIZE\r\n",
     "-ERR Protocol error: invalid bulk length\r\n", true},
    {"unknown commands are named with their arguments", "FOO bar \"b a z\"\r\n",
     "-ERR unknown command 'FOO', with args beginning with: 'bar' 'b a z' \r\n", false},
    {"line ends in an error become blanks", "*1\r\n$6\r\na\r\nb\r\n\r\n",
     "-ERR unknown command 'a  b  ', with args beginning with: \r\n", false},
    {"a wrong number of arguments is told", "GET\r\nPING a b\r\nMSET a 1 b\r\nclient setname\r\n",
     "-ERR wrong number of arguments for 'get' command\r\n-ERR wrong number of arguments for 'ping' "
     "command\r\n"
     "-ERR wrong number of arguments for 'mset' command\r\n"
     "-ERR wrong number of arguments for 'client|setname' command\r\n",
     false},
    {"NX sets only new keys, XX only old ones",
     "SET k a XX\r\nSET k b NX\r\nSET k c NX\r\nSET k d XX\r\nGET k\r\nSET k e NX XX\r\n",
     "$-1\r\n+OK\r\n$-1\r\n+OK\r\n$1\r\nd\r\n-ERR syntax error\r\n", false},
    {"expiry must be a positive time",
     "SET k v EX 0\r\nSET k v PX -1\r\nSET k v EX x\r\nSET k v EX\r\nSET k v EX 9223372036854775807\r\n",
     "-ERR invalid expire time in 'set' command\r\n-ERR invalid expire time in 'set' command\r\n"
     "-ERR value is not an integer or out of range\r\n-ERR syntax error\r\n"
     "-ERR invalid expire time in 'set' command\r\n",
     false},
    {"INCR counts from nothing, and only numbers, and not past the last",
     "INCR n\r\nINCR n\r\nSET s abc\r\nINCR s\r\nSET n 9223372036854775807\r\nINCR n\r\nSET n -1\r\nINCR "
     "n\r\nGET n\r\n",
     ":1\r\n:2\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n"
     "-ERR increment or decrement would overflow\r\n+OK\r\n:0\r\n$1\r\n0\r\n",
     false},
    {"several keys at once",
     "MSET a 1 b 2 a 3\r\nMGET a none b\r\nEXISTS a a none\r\nDEL a a b\r\nDBSIZE\r\n",
     "+OK\r\n*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n2\r\n:2\r\n:2\r\n:0\r\n", false},
    {"FLUSHALL leaves nothing", "MSET a 1 b 2\r\nFLUSHALL\r\nDBSIZE\r\nFLUSHALL now\r\n",
     "+OK\r\n+OK\r\n:0\r\n-ERR syntax error\r\n", false},
    {"a connection has a name",
     "CLIENT GETNAME\r\nCLIENT SETNAME me\r\nCLIENT GETNAME\r\nCLIENT SETNAME \"a b\"\r\n",
     "$-1\r\n+OK\r\n$2\r\nme\r\n-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
     false},
    {"unknown subcommands are told", "CONFIG SET a b\r\n",
     "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n", false},
    {"CONFIG GET knows what redis-benchmark asks",
     "CONFIG GET save\r\nCONFIG GET APPEND*\r\nCONFIG GET none\r\n",
     "*2\r\n$4\r\nsave\r\n$0\r\n\r\n*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n*0\r\n", false},
    {"COMMAND describes commands in the shape of Redis 7",
     "COMMAND INFO get nope\r\nCOMMAND DOCS dbsize nope\r\n",
     "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n*"
     "-1\r\n"
     "*2\r\n$6\r\ndbsize\r\n*6\r\n$7\r\nsummary\r\n$15\r\nCounts the keys\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n"
     "$5\r\ngroup\r\n$6\r\nserver\r\n",
     false},
    {"QUIT is answered, and is the last thing", "QUIT\r\nPING\r\n", "+OK\r\n", true},
    {"a browser gets no answer", "POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n", "", true},
};

static void assert_reply(struct plain *p, const struct conversation *c, const char *how, size_t where) {
  size_t len = strlen(c->reply);
  if (p->out_len != len || memcmp(p->out, c->reply, len) != 0)
    fail_msg("%s (%s %zu): replied %.*s", c->says, how, where, (int)p->out_len, (const char *)p->out);
  if ((p->status == SESSION_CLOSE) != c->closes)
    fail_msg("%s (%s %zu): status %d", c->says, how, where, p->status);
}

static void converse(const struct conversation *c, size_t cut, size_t piece, size_t until_full,
                     const char *how) {
  struct kv *kv = plain_kv(1 << 20);
  struct plain p;
  plain_open(&p, kv);
  p.until_full = until_full;
  p.step = 1;
  plain_feed(&p, c->request, cut, piece);
  plain_feed(&p, c->request + cut, strlen(c->request) - cut, piece);
  assert_reply(&p, c, how, cut > 0 ? cut : piece);
  plain_close(&p);
  assert_int_equal(kv->clients, 0);
  plain_kv_free(kv);
}

static void replies_do_not_depend_on_how_the_input_is_cut(void **state) {
  for (size_t i = 0; i < sizeof conversations / sizeof conversations[0]; i++) {
    const struct conversation *c = &conversations[i];
    size_t len = strlen(c->request);
    converse(c, 0, 0, 0, "whole");
    for (size_t cut = 1; cut < len; cut++)
      converse(c, cut, 0, 0, "cut at");
    for (size_t piece = 1; piece < len; piece++)
      converse(c, 0, piece, 1, "pieces, full sink");
  }
}

/* "*3 SET k <len bytes>" and "*2 GET k", as often as asked. */
static char *large_request(size_t value_len, unsigned gets, size_t *len) {
  char *text = malloc(value_len + 200 + 50 * (size_t)gets);
  int n = sprintf(text, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%zu\r\n", value_len);
  for (size_t i = 0; i < value_len; i++)
    text[(size_t)n + i] = (char)(i * 7 + i / 251);
  char *at = text + n + value_len;
  at += sprintf(at, "\r\n");
  for (unsigned i = 0; i < gets; i++)
    at += sprintf(at, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
  *len = (size_t)(at - text);
  return text;
}

static void a_value_of_512_kib_goes_in_and_out_in_any_pieces(void **state) {
  static const size_t sizes[] = {1, 614, 615, 1448, 70000, RESP_BULK_MAX};
  static const size_t pieces[] = {0, 1447, 1448, 65536};
  for (unsigned s = 0; s < 6; s++) {
    for (unsigned i = 0; i < 4; i++) {
      struct kv *kv = plain_kv(8 << 20);
      struct plain p;
      size_t len;
      char *request = large_request(sizes[s], 3, &len);
      plain_open(&p, kv);
      p.step = 1448;
      p.until_full = 10000;
      plain_feed(&p, request, len, pieces[i]);
      char header[32];
      size_t header_len = (size_t)sprintf(header, "$%zu\r\n", sizes[s]);
      size_t each = header_len + sizes[s] + 2;
      assert_int_equal(p.out_len, 5 + 3 * each);
      for (unsigned get = 0; get < 3; get++) {
        const uint8_t *reply = p.out + 5 + get * each;
        assert_memory_equal(reply, header, header_len);
        for (size_t at = 0; at < sizes[s]; at++)
          assert_int_equal(reply[header_len + at], (uint8_t)(at * 7 + at / 251));
      }
      plain_close(&p);
      plain_kv_free(kv);
      free(request);
    }
  }
}

/* Runs the session once on the whole text and leaves it waiting. */
static void start(struct plain *p, const char *text, size_t len) {
  size_t used;
  p->status = session_run(p->kv, &p->session, (const uint8_t *)text, len, &used);
}

static void a_value_being_sent_stays_itself_while_others_overwrite_it(void **state) {
  struct kv *kv = plain_kv(8 << 20);
  struct plain slow, other;
  size_t len;
  char *request = large_request(100000, 1, &len);
  plain_open(&slow, kv);
  plain_open(&other, kv);
  slow.step = 100;
  slow.until_full = 1000;
  start(&slow, request, len);
  assert_int_equal(slow.status, SESSION_WAIT);
  plain_feed(&other, "SET k gone\r\nDEL k\r\nFLUSHALL\r\n", 29, 0);
  assert_int_equal(other.out_len, 14);
  slow.status = SESSION_READ;
  plain_feed(&slow, "PING\r\n", 6, 0);
  assert_int_equal(slow.out_len, 5 + 9 + 100000 + 2 + 7);
  assert_memory_equal(slow.out + 14, strchr(request, 'k') + 12, 100000);
  plain_close(&slow);
  plain_close(&other);
  assert_true(memory_used_bytes(&kv->memory) < 200000);
  plain_kv_free(kv);
  free(request);
}

static void a_client_that_does_not_read_costs_no_copies(void **state) {
  struct kv *kv = plain_kv(8 << 20);
  struct plain p;
  plain_open(&p, kv);
  size_t len;
  char *request = large_request(RESP_BULK_MAX, 0, &len);
  plain_feed(&p, request, len, 0);
  size_t before = memory_used_bytes(&kv->memory);
  p.step = 1;
  p.until_full = 1;
  char mget[16 + 1000 * 2 + 1] = "MGET";
  for (unsigned i = 0; i < 1000; i++)
    strcat(mget, " k");
  strcat(mget, "\r\n");
  start(&p, mget, strlen(mget)); /* 500 MiB of replies */
  assert_int_equal(p.status, SESSION_WAIT);
  assert_true(memory_used_bytes(&kv->memory) - before < 64 * 1024);
  plain_close(&p);
  assert_true(memory_used_bytes(&kv->memory) <= before);
  plain_kv_free(kv);
  free(request);
}

static void a_full_store_refuses_values_and_still_understands_del(void **state) {
  struct kv *kv = plain_kv(2 << 20);
  struct plain p;
  plain_open(&p, kv);
  size_t len;
  char *request = large_request(400000, 0, &len);
  char *key = strchr(request, 'k');
  for (int name = 'a'; name < 'a' + 6; name++) {
    *key = (char)name;
    plain_feed(&p, request, len, 1448);
  }
  static const char oom[] = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
  assert_memory_equal(p.out, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n-OOM", 29);
  assert_memory_equal(p.out + p.out_len - strlen(oom), oom, strlen(oom));
  size_t had = p.out_len;
  plain_feed(&p, "DEL a b\r\nMSET x 1 y 2\r\nPING\r\n", 29, 1);
  assert_memory_equal(p.out + had, ":2\r\n+OK\r\n+PONG\r\n", 16);
  plain_close(&p);
  plain_kv_free(kv);
  free(request);
}

/* Announced lengths alone take nothing: only bytes that have arrived do. */
static void a_promise_of_bytes_takes_no_memory(void **state) {
  struct kv *kv = plain_kv(2 << 20);
  static struct plain clients[16];
  for (unsigned i = 0; i < 16; i++) {
    plain_open(&clients[i], kv);
    plain_feed(&clients[i], "*60000\r\n$3\r\nSET\r\n$524288\r\nx", 28, 0);
  }
  assert_true(memory_used_bytes(&kv->memory) < 128 * 1024);
  for (unsigned i = 0; i < 16; i++)
    plain_close(&clients[i]);
  assert_true(memory_used_bytes(&kv->memory) < 64 * 1024);
  plain_kv_free(kv);
}

static void a_line_without_an_end_is_refused_at_64_kib(void **state) {
  static const struct {
    const char *start, *reply;
  } lines[] = {
      {"x", "-ERR Protocol error: too big inline request\r\n"},
      {"*1", "-ERR Protocol error: too big mbulk count string\r\n"},
      {"*1\r\n$1", "-ERR Protocol error: too big bulk count string\r\n"},
  };
  static char text[70000];
  for (unsigned i = 0; i < 3; i++) {
    memset(text, '1', sizeof text);
    memcpy(text, lines[i].start, strlen(lines[i].start));
    for (size_t piece = 999; piece <= 70000; piece += 23000) {
      struct kv *kv = plain_kv(2 << 20);
      struct plain p;
      plain_open(&p, kv);
      plain_feed(&p, text, 65000, piece);
      assert_int_equal(p.status, SESSION_READ);
      plain_feed(&p, text + 65000, sizeof text - 65000, piece);
      assert_int_equal(p.status, SESSION_CLOSE);
      assert_int_equal(p.out_len, strlen(lines[i].reply));
      assert_memory_equal(p.out, lines[i].reply, p.out_len);
      plain_close(&p);
      plain_kv_free(kv);
    }
  }
}

static void keys_expire_by_the_clock(void **state) {
  struct kv *kv = plain_kv(1 << 20);
  struct plain p;
  plain_open(&p, kv);
  static const char set[] = "SET a 1 PX 10\r\nSET b 1 EX 1\r\nSET c 5 EX 1\r\nINCR c\r\nSET b 1\r\n";
  plain_feed(&p, set, sizeof set - 1, 0);
  kv->now_ms += 10;
  plain_feed(&p, "EXISTS a\r\n", 10, 0);
  kv->now_ms += 990;
  plain_feed(&p, "EXISTS b c\r\nSET c 1 NX\r\n", 24,
             0); /* INCR kept the expiry of c, SET dropped that of b */
  static const char replies[] = "+OK\r\n+OK\r\n+OK\r\n:6\r\n+OK\r\n:0\r\n:1\r\n+OK\r\n";
  assert_int_equal(p.out_len, sizeof replies - 1);
  assert_memory_equal(p.out, replies, p.out_len);
  plain_close(&p);
  plain_kv_free(kv);
}

static void every_long_reply_fits_its_room(void **state) {
  static const char *const requests[] = {"INFO\r\n",         "COMMAND\r\n",       "COMMAND DOCS\r\n",
                                         "CONFIG GET *\r\n", "COMMAND COUNT\r\n", "INFO server keyspace\r\n"};
  for (unsigned i = 0; i < 6; i++) {
    struct kv *kv = plain_kv(1 << 20);
    struct plain whole, slow;
    plain_open(&whole, kv);
    plain_open(&slow, kv);
    slow.step = slow.until_full = 1;
    plain_feed(&whole, requests[i], strlen(requests[i]), 0);
    plain_feed(&slow, requests[i], strlen(requests[i]), 0);
    assert_true(whole.out_len > 4);
    assert_int_equal(whole.out_len, slow.out_len);
    plain_close(&whole);
    plain_close(&slow);
    plain_kv_free(kv);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(replies_do_not_depend_on_how_the_input_is_cut),
      cmocka_unit_test(a_value_of_512_kib_goes_in_and_out_in_any_pieces),
      cmocka_unit_test(a_value_being_sent_stays_itself_while_others_overwrite_it),
      cmocka_unit_test(a_client_that_does_not_read_costs_no_copies),
      cmocka_unit_test(a_full_store_refuses_values_and_still_understands_del),
      cmocka_unit_test(a_promise_of_bytes_takes_no_memory),
      cmocka_unit_test(a_line_without_an_end_is_refused_at_64_kib),
      cmocka_unit_test(keys_expire_by_the_clock),
      cmocka_unit_test(every_long_reply_fits_its_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
