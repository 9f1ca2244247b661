"""The calls of calls.txt with psycopg 3: psycopg3.py CALLS DATABASE...

Prints, for each way to make them and each database, what this client sees.  Addresses are in the environment; those
of a connection pooler, if there is one, in POOLER_HOST and POOLER_PORT.
"""

import asyncio
import datetime
import json
import logging
import os
import re
import sys

import psycopg
from psycopg.types.json import Jsonb


def element(kind, text):
    if text == "NULL":
        return None
    if kind in ("integer", "bigint"):
        return int(text)
    if kind == "jsonb":
        return Jsonb(json.loads(text))
    if kind == "timestamptz":
        return datetime.datetime.fromisoformat(text)
    return text


def argument(text):
    kind, _, text = text.partition(" ")
    if kind.endswith("[]") and text != "NULL":
        return [element(kind[:-2], each) for each in text.split(" ; ")]
    return element(kind, text)


def read_calls(path):
    calls = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                mark, text = re.fullmatch(r"(?:(once|fetch|error|listen|told|session):)? ?(.*)", line).groups()
                sql, *arguments = text.split(" | ")
                calls.append((mark or "", sql, [argument(each) for each in arguments]))
    return calls


def show(value):
    kind = type(value).__name__
    if isinstance(value, datetime.datetime):
        return "%s:%s" % (kind, value.isoformat())
    if isinstance(value, tuple):
        return "tuple:(%s)" % ", ".join(show(each) for each in value)
    if isinstance(value, bytes):
        return "%s:%s" % (kind, value.hex())
    return "%s:%s" % (kind, json.dumps(value, sort_keys=True, ensure_ascii=False))


def column(description):
    return "%s:%s" % (description.name, description.type_code if description.type_code < 16384 else "user")


def print_rows(description, rows):
    print("columns", *[column(each) for each in description])
    for row in rows:
        print("row", " | ".join("%s=%s" % (each.name, show(value)) for each, value in zip(description, row)))


def print_result(cursor):
    if cursor.description is None:
        print("done", cursor.statusmessage)
    else:
        print_rows(cursor.description, cursor.fetchall())


def print_error(error):
    print("error", error.sqlstate, error.diag.message_primary)


def print_notice(diagnostic):
    print("notice", diagnostic.sqlstate, diagnostic.message_primary)


class Way:
    """How to make the calls: options of the connection, and of each call."""

    def __init__(self, name, cast=True, binary=False, prepare=None, client=False, pooled=False):
        self.name, self.cast, self.binary, self.prepare, self.client, self.pooled = name, cast, binary, prepare, client, pooled

    def calls(self, calls, first):
        for mark, sql, arguments in calls:
            if mark == "once" and not first or mark in ("listen", "told", "session") and self.pooled:
                continue
            label = "-- %s %s" % (mark, sql)
            if not self.cast:
                sql = re.sub(r"(\$\d+)::[a-z]+(\[\])?", r"\1", sql)
            yield label, mark, re.sub(r"\$\d+", "%b" if self.binary else "%s", sql.replace("%", "%%") if arguments else sql), arguments

    def connection(self, database):
        address = {"host": os.environ["POOLER_HOST"], "port": os.environ["POOLER_PORT"]} if self.pooled else {}
        return dict(dbname=database, autocommit=True, prepare_threshold=None if self.prepare is False else 0 if self.prepare else 5,
                    cursor_factory=psycopg.ClientCursor if self.client else None, **address)


def run_sync(way, database, calls, first):
    number = 0
    with psycopg.connect(**way.connection(database)) as conn:
        told = []
        conn.add_notify_handler(told.append)
        conn.add_notice_handler(print_notice)
        for label, mark, sql, arguments in way.calls(calls, first):
            print(label)
            number += 1
            try:
                if mark == "listen":
                    conn.execute('LISTEN "%s"' % sql)
                elif mark == "told":
                    if not told:
                        told.append(next(conn.notifies()))
                    print("told", told[0].channel, repr(told[0].payload))
                elif mark == "fetch" and not way.client:
                    # a cursor of the server
                    with conn.transaction(), conn.cursor("c%d" % number) as cursor:
                        cursor.execute(sql, arguments, binary=way.binary)
                        rows = []
                        while more := cursor.fetchmany(2):
                            rows += more
                        print_rows(cursor.description, rows)
                elif way.client:
                    print_result(conn.cursor().execute(sql, arguments))
                else:
                    print_result(conn.execute(sql, arguments or None, prepare=way.prepare, binary=way.binary))
            except psycopg.Error as error:
                print_error(error)


async def run_async(way, database, calls, first):
    # from 3.2 on None is no default here
    options = {name: value for name, value in way.connection(database).items() if value is not None}
    async with await psycopg.AsyncConnection.connect(**options) as conn:
        told = asyncio.Queue()
        conn.add_notify_handler(told.put_nowait)
        conn.add_notice_handler(print_notice)
        for label, mark, sql, arguments in way.calls(calls, first):
            print(label)
            try:
                if mark == "listen":
                    await conn.execute('LISTEN "%s"' % sql)
                elif mark == "told":
                    notify = told.get_nowait() if not told.empty() else await conn.notifies().__anext__()
                    print("told", notify.channel, repr(notify.payload))
                else:
                    cursor = await conn.execute(sql, arguments or None, prepare=way.prepare, binary=way.binary)
                    if cursor.description is None:
                        print("done", cursor.statusmessage)
                    else:
                        print_rows(cursor.description, await cursor.fetchall())
            except psycopg.Error as error:
                print_error(error)


def run_pipeline(way, database, calls, first):
    """Four statements at a time, which are one transaction"""
    with psycopg.connect(**way.connection(database)) as conn:
        conn.add_notice_handler(print_notice)
        group = []
        for label, mark, sql, arguments in [*way.calls(calls, first), ("-- end", "error", "SELECT 1", [])]:
            if mark in ("listen", "told"):
                continue
            if group and (len(group) == 4 or mark == "error"):
                send_group(conn, group, way)
                group = []
            group.append((label, sql, arguments))
            if mark == "error":
                send_group(conn, group, way)
                group = []


def send_group(conn, group, way):
    for label, _, _ in group:
        print(label)
    try:
        with conn.pipeline() as pipeline:
            cursors = [conn.execute(sql, arguments or None, prepare=way.prepare, binary=way.binary) for _, sql, arguments in group]
            pipeline.sync()
            for cursor in cursors:
                print_result(cursor)
    except psycopg.Error as error:
        print_error(error)


WAYS = [(Way("plain", prepare=False), run_sync),
        (Way("prepared, binary", prepare=True, binary=True), run_sync),
        (Way("literals", client=True), run_sync),
        (Way("without casts", cast=False), run_sync),
        (Way("without casts, binary", cast=False, binary=True), run_sync),
        (Way("async", prepare=True), lambda *arguments: asyncio.run(run_async(*arguments))),
        (Way("pipeline"), run_pipeline)]
if "POOLER_HOST" in os.environ:
    WAYS.append((Way("pooled", prepare=False, pooled=True), run_sync))

# what follows an error in a pipeline
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

all_calls = read_calls(sys.argv[1])
for way, run in WAYS:
    for database in sys.argv[2:]:
        print("==", database, "psycopg,", way.name)
        run(way, database, all_calls, way is WAYS[0][0])
