"""What the benchmarks share: the body, and the CPU time of the clients' backends."""
import os
import subprocess
import sys

# 60 bytes
BODY = '{"id": 1234567, "event": "order.created", "customer": 12345}'

# sum_exec_runtime in nanoseconds; without it clock ticks, which are coarse
if os.path.exists("/proc/self/schedstat"):
    CPU_SECONDS = "split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::float8 / 1e9"
else:
    CPU_SECONDS = ("(SELECT sum(f::float8) FROM unnest((string_to_array(regexp_replace("
                   "pg_read_file('/proc/self/stat'), '^.*\\) ', ''), ' '))[12:13]) AS f) / %d"
                   % os.sysconf("SC_CLK_TCK"))

FRAME = """\\set n :n + 1
\\if :n = :first
INSERT INTO bench.mark SELECT :client_id, 0, {cpu}, clock_timestamp();
\\elif :n = :last
INSERT INTO bench.mark SELECT :client_id, 1, {cpu}, clock_timestamp();
\\else
{op}
\\endif
"""


def cpu_of_calls(conn, query, calls):
    """CPU time of the backend, in microseconds a call"""
    clock = "SELECT 1e6 * " + CPU_SECONDS
    before = conn.execute(clock).fetchone()[0]
    for _ in range(calls):
        conn.execute(query).fetchall()
    return (conn.execute(clock).fetchone()[0] - before) / calls


def backend_cpu(pid):
    """CPU time that a backend on this machine has had, in microseconds"""
    try:
        with open("/proc/%d/schedstat" % pid, encoding="ascii") as stat:
            return int(stat.read().split()[0]) / 1000
    except FileNotFoundError:
        with open("/proc/%d/stat" % pid, encoding="ascii") as stat:
            return sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13])) * 1e6 / os.sysconf("SC_CLK_TCK")


def marks_table(conn):
    conn.execute("CREATE SCHEMA bench")
    conn.execute("CREATE UNLOGGED TABLE bench.mark (client int, phase int, cpu float8, at timestamptz)")


def run_marked(conn, path, clients, first, last, options="", define=()):
    """Run a framed script; operations per second and CPU seconds per operation between its marks."""
    ops = last - first - 1
    command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-t", str(last),
               "-f", path, "-D", "n=0", "-D", "first=%d" % first, "-D", "last=%d" % last]
    for name, value in define:
        command += ["-D", "%s=%s" % (name, value)]
    command.append(conn.info.dbname)
    conn.execute("TRUNCATE bench.mark")
    done = subprocess.run(command, env=dict(os.environ, PGOPTIONS=options),
                          capture_output=True, text=True, check=False)
    if done.returncode or "aborted" in done.stderr:
        sys.exit("%s\n%s" % (done.stdout, done.stderr))
    wall, cpu, marks = conn.execute(
        "SELECT extract(epoch FROM max(at) FILTER (WHERE phase = 1) - min(at) FILTER (WHERE phase = 0)),"
        " sum(CASE phase WHEN 1 THEN cpu ELSE -cpu END), count(*) FROM bench.mark").fetchone()
    assert marks == 2 * clients, done.stdout
    return clients * ops / float(wall), cpu / (clients * ops)
