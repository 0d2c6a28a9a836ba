"""Commits numbered transactions into an SQLite database until its standard input ends.

Arguments: database, journal mode, synchronous, log, seed, pause between commits in seconds.
After each commit that returned, a line "NUMBER" is appended to the log. The content of the database is a
function of the seed and the last number alone (see sqlite_check.py).
"""
import os
import random
import select
import sqlite3
import sys
import time

SLOTS = 60

database, journal_mode, synchronous, log, seed, pause = sys.argv[1:]
db = sqlite3.connect(database, isolation_level=None)
assert db.execute(f"PRAGMA journal_mode={journal_mode}").fetchone()[0] == journal_mode
db.execute(f"PRAGMA synchronous={synchronous}")
# A checkpoint moves pages from the log into the database: often, because there order counts most.
db.execute("PRAGMA wal_autocheckpoint=150")
db.execute("BEGIN IMMEDIATE")
db.execute("CREATE TABLE numbers(n INTEGER PRIMARY KEY)")
db.execute("CREATE TABLE counter(last INTEGER, total INTEGER)")
db.execute("CREATE TABLE payload(slot INTEGER PRIMARY KEY, n INTEGER, body BLOB)")
db.execute("CREATE INDEX payload_by_body ON payload(substr(body, 1, 20))")
db.execute("INSERT INTO counter VALUES(0, 0)")
db.execute("COMMIT")
told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
print("ready", flush=True)
due = time.monotonic()
n = 0
while True:
    due = max(due + float(pause), time.monotonic() - 1)
    if select.select([0], [], [], max(0, due - time.monotonic()))[0]:
        break
    n += 1
    body = random.Random(f"{seed} {n}")
    body = body.randbytes(body.choice([10, 300, 3000, 9000, 30000]))
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO numbers VALUES(?)", (n,))
    db.execute("INSERT OR REPLACE INTO payload VALUES(?, ?, ?)", (n % SLOTS, n, body))
    if n % 7 == 0:
        db.execute("DELETE FROM payload WHERE slot = ?", ((n + 30) % SLOTS,))
    db.execute("UPDATE counter SET last = ?, total = total + ?", (n, n))
    db.execute("COMMIT")
    os.write(told, b"%d\n" % n)
db.close()
