"""Work for a CPython that runs as a guest.

Arithmetic, texts, hashes, a database, and what it may not.
"""

import collections
import decimal
import hashlib
import heapq
import json
import math
import os
import re
import sqlite3
import sys
import zlib


def primes_below(end):
    sieve = bytearray([1]) * end
    sieve[0:2] = b"\0\0"
    for n in range(2, math.isqrt(end - 1) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, end, n)))
    return [n for n in range(end) if sieve[n]]


def pi(digits):
    """Machin's formula in integers."""

    def arctan_of_inverse(x, unit):
        total = term = unit // x
        n = 3
        while term:
            term //= -x * x
            total += term // n
            n += 2
        return total

    unit = 10 ** (digits + 10)
    return (16 * arctan_of_inverse(5, unit) - 4 * arctan_of_inverse(239, unit)) // 10**10


def shortest_path(size):
    """Dijkstra over a grid whose costs come from a linear congruential generator."""
    state, cost = 1, {}
    for at in ((x, y) for y in range(size) for x in range(size)):
        state = (state * 1103515245 + 12345) % 2**31
        cost[at] = 1 + state // 65536 % 9
    best, queue = {(0, 0): 0}, [(0, (0, 0))]
    while queue:
        far, (x, y) = heapq.heappop(queue)
        if (x, y) == (size - 1, size - 1):
            return far
        for step in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if step in cost and far + cost[step] < best.get(step, math.inf):
                best[step] = far + cost[step]
                heapq.heappush(queue, (best[step], step))


def refused(what, attempt):
    try:
        attempt()
    except Exception:
        print(f"{what}: refused")
    else:
        print(f"{what}: ALLOWED")


print("arguments:", sys.argv[1:], "version:", sys.version_info[:2])

primes = primes_below(200_000)
print("primes:", len(primes), primes[-1], sum(primes))
print("digits of pi:", hashlib.sha256(str(pi(1_000)).encode()).hexdigest())
print("path:", shortest_path(80))

decimal.getcontext().prec = 60
print("root of 2:", decimal.Decimal(2).sqrt())
print("floats:", math.sin(1e6), 0.1 + 0.2, 2**0.5, float("1e308") * 10)

words = re.findall(r"[a-z]{4,}", __doc__.lower())
print("words:", sorted(collections.Counter(words).items()))
print("unicode:", "Grüße, Ωmega, 日本語"[::-1].encode().hex())

table = [{"n": n, "square": n * n, "odd": bool(n % 2)} for n in range(1_000)]
text = json.dumps(table, sort_keys=True)
assert json.loads(text) == table
assert zlib.decompress(zlib.compress(text.encode())) == text.encode()
print("json:", len(text), hashlib.sha256(text.encode()).hexdigest())

database = sqlite3.connect(":memory:")
database.execute("create table numbers (n integer, odd integer)")
database.executemany("insert into numbers values (?, ?)", ((n, n % 2) for n in range(10_000)))
print("sql:", database.execute("select odd, count(*), sum(n) from numbers group by odd").fetchall())

print("environment:", dict(os.environ))
refused("reading a file", lambda: open("/etc/hostname"))
refused("writing a file", lambda: open("/tmp/out", "w"))
refused("another process", lambda: os.fork())
refused("the network", lambda: __import__("socket").create_connection(("127.0.0.1", 9)))

print("done", file=sys.stderr)
sys.exit(7)
