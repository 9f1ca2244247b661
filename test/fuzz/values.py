"""Random values, as SQL text: mostly plausible ones, some extreme."""
import json

INT_LIMITS = ("0", "-1", "1", "2147483647", "-2147483648", "NULL", "32768", "100000")
BIGINT_LIMITS = ("0", "-1", "1", "9223372036854775807", "-9223372036854775808", "NULL", "4611686018427387904", "2147483648")
TIMES = ("'infinity'::timestamptz", "'-infinity'::timestamptz", "NULL::timestamptz", "now()", "clock_timestamp() + interval '1 s'",
         "clock_timestamp() - interval '1 h'", "'294276-12-31 23:59:59.999999+00'::timestamptz", "'epoch'::timestamptz",
         "'4713-01-02 00:00:00+00 BC'::timestamptz", "'2000-01-01 00:00:00+00'::timestamptz")
INTERVALS = ("10", "1", "3", "1000", "1 day", "1 hour", "2 seconds", "1 mon", "1 mon -719 hours", "-1", "0", "00:00:00", "1 day -24 hours",
             "-1 day", "9223372036854775807", "99999999999999999999", "garbage", "", "1 year 3 mons -400 days", "178000000 years", "1 us",
             "infinity", "0.000001 s", "1 week", "1 day 1 us", "NaN", "  5 ", "1e3", "-9223372036854775808", "NULL")
SCALARS = ("null", "1", "-0", "1e400", "true", '"x"', '""', "[]", "{}", "[[[]]]", '"\\u00e9"', '{"a": {"b": [1, null, {"c": {}}]}}')
GROUPS = ("a", "b", "c", "", "_default_fifo_group", "g" * 300, "\u00e9\u4e2d", "x'y\"z%s\\", "null")
ODD_NAMES = ("", " ", "a;b", "a b", "A", "a.b", "q'uote", 'dq"uote', "per%cent", "per%s", "\u00e9\u4e2d\u6587", "back\\slash", "$1", "--", "a--b",
             "x" * 47, "x" * 48, "x" * 63, "x" * 64, "\u00e9" * 23, "\u00e9" * 24, "z0_p0", "z0_default", "std_pkey", "z0_vt_idx", "meta",
             "z0_msg_id_seq", "pgmq.z0", "pg_class", "\n", "NULL", "x" * 100000, "..", "\u0130\u0131", "Z0", "q_z0")
# The streams that are there to be fuzzed; their names are taken for queues, too
STREAMS = (("y0", "stream 1"), ("y1", "stream 3"), ('Y q"u%s', "stream 2"), ("w" * 44, "stream 64"))
WORDS = ("a", "b", "c", "log", "x", "1", "error")


def lit(text):
    """Correct with either setting of standard_conforming_strings"""
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return " E" + quoted if "\\" in text else quoted


class Values:
    def __init__(self, rng, names, extreme=0.15):
        self.rng = rng
        self.names = names      # of the queues that are there to be fuzzed
        self.extreme = extreme
        self.ids = 0            # in the last array of them

    def odd(self):
        return self.rng.random() < self.extreme

    def name(self):
        if self.odd():
            name = self.rng.choice(ODD_NAMES)
            return "NULL" if name == "NULL" else lit(name)
        name = self.rng.choice(self.names)
        if self.rng.random() < 0.02:
            name = name.upper()
        return lit(name)

    def stream(self):
        return lit(self.rng.choice(STREAMS)[0]) if self.rng.random() < 0.9 else self.name()

    def shard_key(self):
        return self.rng.choice(("NULL", "''", "repeat('\u00e9', 9000)", "E'\\\\'") if self.odd() else ("'a'", "'b'", "'c'", "NULL"))

    def of_stream(self, name):
        """For a text of a function of streams; None if it is not of streams"""
        rng = self.rng
        if name == "stream_name":
            return self.stream() if rng.random() < 0.97 else "NULL"
        if name == "subscription":
            return self.dedup_key() if self.odd() else "'sub%d'" % rng.randrange(3)
        if name == "start":
            return rng.choice(("'x'", "NULL", "''")) if self.odd() else rng.choice(("'earliest'", "'latest'", "NULL"))
        if name == "key":
            return self.shard_key()
        return None

    def lease(self):
        """Mostly of some shard that is leased, if the owner calls"""
        if self.odd():
            return self.rng.choice(BIGINT_LIMITS) + "::bigint"
        return "fuzz.lease('pgmq.p_y%d')" % self.rng.randrange(2)

    def array(self, element, kind, most=4):
        """Also empty, with NULLs, with more dimensions, with another lower bound, with duplicates"""
        rng = self.rng
        if self.odd():
            return rng.choice(("NULL::%s[]", "'{}'::%s[]", "ARRAY[NULL]::%s[]", "ARRAY[NULL, NULL]::%s[]",
                               "array_fill(NULL::%s, '{3,2}')")) % kind
        items = [element() for _ in range(rng.randint(1, most))]
        shape = rng.random()
        if shape < 0.05:
            return "ARRAY[ARRAY[%s], ARRAY[%s]]::%s[]" % (items[0], items[0], kind)
        if shape < 0.1:
            return "array_fill(%s::%s, '{%d}', '{%s}')" % (items[0], kind, len(items), rng.choice(("0", "-5", "7")))
        if shape < 0.15:
            items += [items[0], "NULL"]
        if shape > 0.99:
            return "array_fill(%s::%s, '{3000}')" % (items[0], kind)
        return "ARRAY[%s]::%s[]" % (", ".join(items), kind)

    def jsonb(self):
        rng = self.rng
        if self.odd():
            choice = rng.random()
            if choice < 0.2:
                return "NULL::jsonb"
            if choice < 0.3:
                return "repeat('[', 1000)::text || repeat(']', 1000)".join(("(", ")::jsonb"))
            if choice < 0.4:
                return "to_jsonb(repeat(md5(%d::text), %d))" % (rng.randrange(99), rng.choice((100, 3000, 40000)))
            return lit(rng.choice(SCALARS)) + "::jsonb"
        return lit(json.dumps({"m": rng.randrange(4), "n": rng.randrange(100)})) + "::jsonb"

    def headers(self):
        rng = self.rng
        if self.odd():
            return self.jsonb()
        if rng.random() < 0.4:
            return rng.choice(("NULL::jsonb", "'{}'::jsonb", "'{\"other\": 1}'::jsonb"))
        group = rng.choice(GROUPS[:3]) if rng.random() < 0.6 else rng.choice(GROUPS)
        value = rng.choice((group, group, group, 5, None, [1], {"x": 1}, True))
        return lit(json.dumps({"x-pgmq-group": value})) + "::jsonb"

    def integer(self, *usual):
        return self.rng.choice(INT_LIMITS) if self.odd() else str(self.rng.choice(usual))

    def msg_id(self):
        if self.odd():
            return self.rng.choice(BIGINT_LIMITS) + "::bigint"
        return "%d::bigint" % self.rng.randrange(1, 200)

    def key(self, pattern=False):
        rng = self.rng
        words = [rng.choice(WORDS + (("*", "#", "#") if pattern else ())) for _ in range(rng.choice((1, 2, 2, 3, 3, 5)))]
        if self.odd():
            words = rng.choice((["a"] * 300, ["#"] * 120, ["*", "#"] * 60, ["a" * 300], [""], ["a", "", "b"], ["a*"], ["\u00e9" * 130],
                                ["#", "a"] * 50, ["NULL"], ["a b"], ["[(\\"], ["%s"]))
        # A prefix of their own: no pattern leads others' messages to queues that are damaged
        text = ".".join(["f"] + words)
        return "NULL" if text == "f.NULL" else lit(text)

    def dedup_key(self):
        if self.odd():
            return self.rng.choice(("NULL", "''", "repeat('x', 255)", "repeat('x', 256)", "repeat('\u00e9', 127)", lit(self.rng.choice(ODD_NAMES))))
        return "'k%d'" % self.rng.randrange(5)

    def argument(self, name, kind):
        """For one argument of a function, by its name and type"""
        rng = self.rng
        if kind == "text" and self.of_stream(name):
            return self.of_stream(name)
        if kind == "text":
            if name in ("queue_name", "table_name"):
                return self.name()
            if name in ("partition_interval", "retention_interval"):
                text = rng.choice(INTERVALS if rng.random() < 0.4 else ("10", "7", "1 day", "1 hour"))
                return "NULL" if text == "NULL" else lit(text)
            if name in ("pattern", "routing_key"):
                return self.key(name == "pattern")
            if name == "dedup_key":
                return self.dedup_key()
            if name == "dead_letter_queue":
                return self.name() if rng.random() < 0.5 else "NULL"
            if name == "overflow":
                return rng.choice(("'reject'", "'drop_oldest'", "NULL", "'x'"))
            if name in ("error", "reason"):
                return rng.choice(("'why'", "''", "NULL", "repeat('\u00e9', 5000)"))
            if name == "schema_name":
                return rng.choice(("'public'", "'public'", "'pgmq'", "'pg_temp'", "'No such'", "NULL"))
            if name == "prefix":
                return lit(rng.choice(("q", "a", "", "x", "g" * 70)))
            return rng.choice(("'pg_partman'", "'pgmq'", "NULL", "''", self.name()))
        if kind == "text[]" and name == "settings":
            return self.array(lambda: lit(rng.choice(("max_reads", "retry_delay", "priority", "message_ttl", "max_length", "overflow", "none"))), "text")
        if kind == "text[]" and name == "keys":
            return "NULL" if rng.random() < 0.5 else self.array(self.shard_key, "text")
        if kind == "text[]" and name == "dedup_keys":
            return self.array(self.dedup_key, "text")
        if kind == "text[]":
            if rng.random() < 0.01:
                return "(SELECT array_agg('z' || i) FROM generate_series(1, %d) AS i)" % rng.choice((100, 5000, 100000))
            return self.array(self.name, "text", 6)
        if kind == "jsonb[]":
            return self.array(self.headers if name == "headers" else self.jsonb, "jsonb")
        if kind == "jsonb":
            if name == "headers":
                return self.headers()
            if name == "headers_conditional":
                return self.headers()
            if name == "conditional":
                return rng.choice(("'{}'", "'{\"m\": 1}'", self.jsonb())) + "::jsonb"
            return self.jsonb()
        if kind == "integer[]":
            # Tokens of the messages before, so mostly as many of them
            count = rng.randrange(8) if self.odd() else self.ids
            return "ARRAY[%s]::integer[]" % ", ".join(self.integer(1, 1, 2, 3) for _ in range(count))
        if kind == "bigint[]":
            if rng.random() < 0.01:
                return "(SELECT array_agg(i) FROM generate_series(-10, %d) AS i)" % rng.choice((100, 30000))
            self.ids = rng.randrange(8)
            if rng.random() < 0.6:
                return "ARRAY[%s]::bigint[]" % ", ".join(self.msg_id() for _ in range(self.ids))
            return self.array(self.msg_id, "bigint", 8)
        if kind == "bigint" and name == "max_length" and not self.odd():
            return rng.choice(("NULL", "1", "20", "1000"))
        if kind == "bigint" and name == "lease":
            return self.lease()
        if kind == "bigint" and name == "start_id" and rng.random() < 0.7:
            return "NULL"
        if kind == "bigint":
            return self.msg_id()
        if kind == "interval":
            # Short ones, so that nothing stays as it is for long; the odd ones that cannot be read are for texts
            text = rng.choice(("NULL", "0", "-1 s", "1 us", "100 years", "178000000 years", "1 mon -1 day") if self.odd() else ("10 ms", "1 s", "1 hour"))
            return "NULL::interval" if text == "NULL" else "'%s'::interval" % text
        if kind == "double precision":
            return rng.choice(("'NaN'", "'infinity'", "-1", "0.5", "1e300") if self.odd() else ("NULL", "1", "2.5")) + "::double precision"
        if kind == "timestamp with time zone":
            if name == "start_time" and rng.random() < 0.7:
                return "NULL"
            return rng.choice(TIMES)
        if kind == "boolean":
            return rng.choice(("true", "false", "NULL") if self.odd() else ("true", "false"))
        assert kind == "integer", kind
        usual = {"attempt": (1, 1, 1, 2, 3), "qty": (1, 2, 5, 100), "vt": (0, 0, 1, 2), "delay": (0, 0, 1), "max_poll_seconds": (0, 1), "poll_interval_ms": (1, 50, 300),
                 "max_reads": (3, 1000), "max_in_flight": (5, 1000), "rate_limit": (100, 1000), "timeout_ms": (0, 20, 300), "throttle_interval_ms": (0, 10, 250, 5000), "leading_partition": (1, 2, 3),
                 "shard": (0, 0, 0, 1, 2), "shards": (1, 2, 3, 64)}
        # "int.Max" partitions ahead or poll seconds would only take long; that it can be cancelled is tried now and then
        if name in ("leading_partition", "max_poll_seconds", "timeout_ms") and rng.random() < 0.95:
            return str(rng.choice(usual[name] + (-1,))) if not self.odd() else "NULL"
        return self.integer(*usual.get(name, (0, 1, 5))) + "::integer"
